"""The distance at infinitely many images, from Gaussians whose distance is known."""

import numpy as np
import pytest

from lensdiff.errors import MetricError
from lensdiff.scores.extrapolation import against_size, extrapolate

SIZES = (40, 60, 100, 200, 400)


def gaussians(n, seed, shift, width=10):
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((n, width))
    generated = 1.5 * rng.standard_normal((n, width))
    generated[:, 0] += shift
    return generated, real


def test_a_line_in_one_over_n_is_found_exactly():
    ns = np.array(SIZES)
    found = extrapolate(ns, 3 + 70 / ns, 0.1 * np.ones(5))
    assert found.d_inf == pytest.approx(3)
    away = np.array([0.1, -0.2, 0.1, 0.3, -0.1])
    bent = extrapolate(ns, 3 + 70 / ns + away, 0.1 * np.ones(5))
    residuals = 3 + 70 / ns + away - bent.at(ns)
    assert bent.chi2 == pytest.approx((residuals**2).sum() / 0.1**2)
    assert found.b == pytest.approx(70)
    assert found.chi2 == pytest.approx(0, abs=1e-12)
    assert found.at(50) == pytest.approx(3 + 70 / 50)
    curved = extrapolate(ns, 3 + 70 / ns + 20_000 / ns**2, 0.1 * np.ones(5))
    assert curved.chi2 > 10 * curved.degrees  # a curve that isn't the line shows in chi2


def test_errors_are_the_scatter_of_repeated_fits_and_chi2_has_its_mean():
    ns = np.array(SIZES)
    errors = 0.5 / np.sqrt(ns / 40)
    rng = np.random.default_rng(0)
    fits = [extrapolate(ns, 3 + 70 / ns + errors * rng.normal(size=5), errors) for _ in range(2000)]
    assert np.std([fit.d_inf for fit in fits]) == pytest.approx(fits[0].d_inf_error, rel=0.06)
    assert np.std([fit.b for fit in fits]) == pytest.approx(fits[0].b_error, rel=0.06)
    assert np.mean([fit.chi2 for fit in fits]) == pytest.approx(fits[0].degrees, rel=0.1)


def test_shared_rows_make_the_error_larger_and_leave_the_line():
    ns = np.array(SIZES)
    errors = np.linspace(0.4, 0.1, 5)
    alone = extrapolate(ns, 3 + 70 / ns, errors)
    shared = extrapolate(ns, 3 + 70 / ns, np.outer(errors, errors) * (0.1 * np.eye(5) + 0.9))
    assert shared.d_inf == pytest.approx(alone.d_inf)
    diagonal = extrapolate(ns, 3 + 70 / ns, np.diag(errors**2))
    assert diagonal == alone
    # all move by one number
    together = extrapolate(ns, 3 + 70 / ns, 0.01 * np.ones((5, 5)) + 1e-9 * np.eye(5))
    assert together.d_inf_error == pytest.approx(0.1, rel=1e-4)
    assert together.b_error < 0.02
    curve = 3 + 70 / ns + 2_000 / ns**2  # which errors that all share can't hide
    hidden = extrapolate(ns, curve, errors)
    seen = extrapolate(ns, curve, np.outer(errors, errors) * (0.01 * np.eye(5) + 0.99))
    assert seen.chi2 > 5 * hidden.chi2


def test_the_distance_of_two_gaussians_is_found_from_samples_that_are_all_biased():
    expected = 2.0**2 + 10 * 0.5**2  # shift of the mean, and (1.5 - 1)^2 in each dimension
    sizes = (*SIZES, 2_000)  # up to all of the rows
    away = []
    for seed in range(12):
        distances, covariance = against_size(*gaussians(2_000, seed, 2.0), sizes, seed)
        assert distances[0] > 1.1 * distances[-1]
        found = extrapolate(sizes, distances, covariance)
        assert found.d_inf_error < 0.4
        away.append((found.d_inf - expected) / found.d_inf_error)
        assert found.b > 5 * found.b_error
    assert 0.5 < np.sqrt(np.mean(np.square(away))) < 1.6
    assert abs(np.mean(away)) < 0.9


def test_too_few_sizes_or_rows_and_errors_of_zero_are_refused():
    with pytest.raises(MetricError, match="three sizes"):
        extrapolate([10, 10, 20], [1, 1, 1], [1, 1, 1])
    with pytest.raises(MetricError, match="positive"):
        extrapolate([10, 20, 30], [1, 1, 1], [1, 0, 1])
    with pytest.raises(MetricError, match="positive"):
        extrapolate([10, 20, 30], [1, 1, 1], [1, -1, 1])
    rows = np.zeros((90, 2))
    with pytest.raises(MetricError, match="40 to 90"):
        against_size(rows, rows, [40, 91])
    with pytest.raises(MetricError, match="as many of each"):
        extrapolate([10, 20, 30], [1, 1, 1], [1, 1])

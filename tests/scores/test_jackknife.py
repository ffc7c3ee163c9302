"""Fast distances of parts of two sets, and the error bars that they make."""

import numpy as np
import pytest
import scipy.linalg

from lensdiff.errors import MetricError
from lensdiff.scores.distances import frechet, frechet_error
from lensdiff.scores.jackknife import (
    Pair,
    Rows,
    excess_errors,
    factor,
    shared_groups,
    standard_error,
    without_groups,
)
from lensdiff.scores.statistics import Statistics


def direct(a, b):
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), its root by the general eigenvalues."""
    one, two = (np.cov(x, rowvar=False) for x in (a, b))
    values = scipy.linalg.eigvals(one @ two).real
    root = np.sqrt(np.clip(values, 0, None)).sum()
    shift = a.mean(0) - b.mean(0)
    return shift @ shift + np.trace(one) + np.trace(two) - 2 * root


def correlated(n, width, seed, shift=0.0):
    mix = np.random.default_rng(100).standard_normal((width, width)) / np.sqrt(width)
    rows = np.random.default_rng(seed).standard_normal((n, width)) @ mix + shift
    return rows.astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(40, 30), (40, 300), (300, 40), (300, 250)])
def test_a_part_has_the_distance_of_the_direct_formula_to_six_digits(n, m):
    width = 60  # fewer rows than features on both sides, on one, on none
    a = correlated(n, width, 1, shift=5.0)
    b = correlated(m, width, 2, shift=5.3)
    pair = Pair(Rows(a), Rows(b))
    for left_out in (slice(0, 0), slice(0, 4), slice(9, 20)):
        of_a = np.delete(np.arange(n), left_out)
        of_b = np.delete(np.arange(m), left_out)
        expected = direct(a[of_a].astype(float), b[of_b].astype(float))
        assert pair.distance(of_a, of_b) == pytest.approx(expected, rel=1e-6)
        parts = (Statistics.of(a[of_a]), Statistics.of(b[of_b]))
        assert frechet(*parts) == pytest.approx(expected, rel=1e-6)


def test_a_covariance_without_full_rank_has_a_factor():
    rows = correlated(10, 30, 0).astype(float)
    covariance = np.cov(rows, rowvar=False)
    found = factor(covariance - 1e-12 * np.eye(30))  # no longer positive
    np.testing.assert_allclose(found @ found.T, covariance, atol=1e-10)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).standard_normal(50)
    means = np.array([np.delete(x, k).mean() for k in range(50)])
    assert standard_error(means[:, None])[0] == pytest.approx(x.std(ddof=1) / np.sqrt(50), rel=1e-9)


def test_the_excess_has_the_scatter_of_fresh_samples_and_what_is_shared_cancels():
    """Generated images like the real ones, and a small reference that both distances share."""
    rng = np.random.default_rng(3)

    def sides():
        sizes = (400, 50, 400)
        return [Statistics.of(rng.normal(0.7 * (k != 1), 1, (n, 2))) for k, n in enumerate(sizes)]

    found = []
    for _ in range(300):
        mine, real, other = sides()
        found.append((frechet(mine, real), frechet(other, real)))
    distance, floor = np.array(found).T
    errors = [excess_errors(*sides()) for _ in range(60)]

    def rms(name):
        return np.sqrt(np.mean([getattr(one, name) ** 2 for one in errors]))

    assert rms("distance") == pytest.approx(distance.std(), rel=0.2)
    assert rms("floor") == pytest.approx(floor.std(), rel=0.2)
    assert rms("excess") == pytest.approx((distance - floor).std(), rel=0.2)
    apart = np.hypot(rms("distance"), rms("floor"))
    assert rms("excess") < 0.6 * apart  # the reference's own scatter is in both


def test_an_error_bar_needs_eight_rows_and_takes_smaller_groups_for_few():
    many = Statistics.of(correlated(50, 3, 0))
    few = Statistics.of(correlated(7, 3, 1))
    with pytest.raises(MetricError, match="7 kept rows on a side"):
        excess_errors(many, few, many)
    found = excess_errors(many, Statistics.of(correlated(9, 3, 1)), many)
    assert 0 < found.excess < found.distance + found.floor


def test_the_error_of_more_images_than_kept_rows_is_that_of_all_of_them():
    many = {}
    kept = {}
    for k in range(3):
        rows = correlated(4_096, 2, k, shift=0.3 * (k == 0))
        many[k] = Statistics.of(rows)
        kept[k] = Statistics.of(rows[: len(many[k].rows)])
    assert len(many[0].rows) == kept[0].n == 2_048
    whole, part, mixed = (
        excess_errors(*sides)
        for sides in (many.values(), kept.values(), (many[0], kept[1], many[2]))
    )
    for name in ("distance", "floor", "excess"):
        assert getattr(whole, name) == pytest.approx(getattr(part, name) / np.sqrt(2), rel=1e-9)
        assert getattr(mixed, name) == pytest.approx(getattr(part, name), rel=1e-9)
    halves = frechet_error(kept[0], kept[1])
    assert frechet_error(many[0], many[1]) == pytest.approx(halves / np.sqrt(2), rel=1e-9)


def test_a_paired_difference_has_the_scatter_of_fresh_samples_and_less_than_unpaired():
    """Two settings draw the same seeds: their images differ little, and share the reference."""
    rng = np.random.default_rng(4)

    def sides():
        images = rng.normal(0.7, 1, (400, 2))
        changed = images * 1.1 + rng.normal(0.2, 0.1, images.shape)
        return [Statistics.of(x) for x in (images, changed, rng.normal(0, 1, (400, 2)))]

    found = []
    for _ in range(300):
        one, two, real = sides()
        found.append(frechet(two, real) - frechet(one, real))
    paired = []
    alone = []
    for _ in range(60):
        one, two, real = sides()
        left = [without_groups(two, real), without_groups(one, real)]
        paired.append(standard_error((left[0] - left[1])[:, None])[0])
        alone.append(np.hypot(*(standard_error(values[:, None])[0] for values in left)))
    assert np.mean(paired) == pytest.approx(np.std(found), rel=0.15)
    assert np.mean(paired) < 0.7 * np.mean(alone)


def test_a_group_left_out_is_left_out_of_both_sides():
    a = Statistics.of(correlated(40, 6, 1, shift=0.3))
    b = Statistics.of(correlated(40, 6, 2))
    found = without_groups(a, b, 4)
    sides = (a.rows, b.rows)
    parts = zip(*shared_groups(sides, 4), strict=True)
    left = [[np.delete(x, out, 0) for x, out in zip(sides, part, strict=True)] for part in parts]
    assert [len(rows) for pair in left for rows in pair] == [30] * 8
    expected = [frechet(*map(Statistics.of, pair)) for pair in left]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(MetricError, match="7 kept rows"):
        without_groups(Statistics.of(correlated(7, 6, 1)), b)
    assert len(without_groups(Statistics.of(correlated(8, 6, 1)), b)) == 4

"""Frechet distance, its error bar and KID against closed forms, pytorch-fid and scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from toys_scores import Pooled, exact

from lensdiff.errors import MetricError
from lensdiff.scores import distances
from lensdiff.scores.distances import frechet, kid, precision_recall
from lensdiff.scores.statistics import Statistics, statistics


def covariance(width, seed):
    a = np.random.default_rng(seed).standard_normal((width, width))
    return a @ a.T / width + 0.1 * np.eye(width)


def test_frechet_is_the_closed_form_in_one_dimension_and_for_diagonals():
    assert frechet(exact([0.0], [[1.0]]), exact([3.0], [[4.0]])) == pytest.approx(10)
    a = np.array([1.0, 4.0, 9.0])
    b = np.array([4.0, 1.0, 16.0])
    expected = 3 * 0.5**2 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet(exact([0, 0, 0], np.diag(a)), exact([0.5] * 3, np.diag(b)))
    assert found == pytest.approx(expected)


def test_frechet_agrees_with_pytorch_fid_for_covariances_that_do_not_commute():
    from pytorch_fid.fid_score import calculate_frechet_distance

    one = covariance(24, 0)
    two = covariance(24, 1)
    means = np.random.default_rng(2).standard_normal((2, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its sqrtm call, gone in SciPy 1.18
        expected = calculate_frechet_distance(means[0], one, means[1], two)
    assert frechet(exact(means[0], one), exact(means[1], two)) == pytest.approx(expected, rel=1e-6)


def test_frechet_is_symmetric_zero_on_itself_and_finite_for_fewer_images_than_features():
    rng = np.random.default_rng(0)
    few = [Statistics(64) for _ in range(2)]
    for found in few:
        found.update(rng.standard_normal((20, 64)))
    assert frechet(few[0], few[0]) == pytest.approx(0, abs=1e-6)
    assert frechet(few[0], few[1]) == pytest.approx(frechet(few[1], few[0]), rel=1e-6)
    assert frechet(few[0], few[1]) > 10


def test_the_error_bar_is_the_scatter_of_repeated_samples():
    """In one dimension, where repeating is cheap.

    The jackknife's error is held against the std over fresh samples of both sides.
    """
    rng = np.random.default_rng(0)

    def pair():
        one = Statistics.of(rng.normal(0, 1, (400, 1)))
        return one, Statistics.of(rng.normal(1, 2, (400, 1)))

    truth = np.std([frechet(*pair()) for _ in range(400)])
    errors = [distances.frechet_error(*pair(), subsets=60, seed=k) for k in range(20)]
    assert np.mean(errors) == pytest.approx(truth, rel=0.15)
    with pytest.raises(MetricError, match="eight"):
        distances.frechet_error(Statistics.of(np.eye(4)), Statistics.of(np.eye(4)))


def test_kid_is_the_unbiased_estimate_of_binkowski():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 8))
    y = rng.standard_normal((40, 8)) + 0.5
    pairs = ((x, x), (y, y), (x, y))
    kernels = [polynomial_kernel(p, q, degree=3, gamma=1 / 8, coef0=1) for p, q in pairs]
    within = sum((k.sum() - np.trace(k)) / (40 * 39) for k in kernels[:2])
    value, spread = kid(Statistics.of(x), Statistics.of(y), subsets=3, size=40)
    assert value == pytest.approx(1000 * (within - 2 * kernels[2].mean()), rel=1e-4)
    assert spread < 1e-6 * value


def test_kid_of_two_samples_of_one_distribution_scatters_around_zero():
    rng = np.random.default_rng(1)
    a = Statistics.of(rng.standard_normal((2000, 8)))
    b = Statistics.of(rng.standard_normal((2000, 8)))
    value, spread = kid(a, b, subsets=50, size=500)
    assert abs(value) < 3 * spread


def test_features_of_unequal_widths_and_images_of_unequal_sizes_have_no_distance():
    with pytest.raises(MetricError, match="width 3 and 4"):
        frechet(exact([0] * 3, np.eye(3)), exact([0] * 4, np.eye(4)))
    small, large = (statistics(Pooled(), [torch.rand(20, 1, side, side)]) for side in (8, 16))
    with pytest.raises(MetricError, match=r"\(1, 8, 8\) and of \(1, 16, 16\)"):
        frechet(small, large)


def test_precision_and_recall_take_any_view_of_features():
    rows = np.random.default_rng(0).normal(size=(30, 3))[:, ::-1]
    assert precision_recall(rows, rows) == (1, 1)

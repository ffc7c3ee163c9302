"""Standard errors of a share and of a median."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lensdiff.errors import MetricError
from lensdiff.scores.spread import median_error, share_error


def test_a_share_has_the_scatter_of_fresh_counts():
    share, error = share_error(30, 200)
    assert share == 0.15
    assert error == pytest.approx(stats.binom(200, 0.15).std() / 200)
    assert share_error(0, 5) == (0.0, 0.0)


def test_a_median_has_the_scatter_of_fresh_samples():
    rng = np.random.default_rng(1)
    fresh = np.median(rng.exponential(size=(4_000, 101)), 1).std()
    found = [median_error(rng.exponential(size=101)) for _ in range(200)]
    assert np.mean([error for _, error in found]) == pytest.approx(fresh, rel=0.15)
    values = rng.normal(size=40)
    own = stats.bootstrap((values,), np.median, n_resamples=4_000, rng=2).standard_error
    median, error = median_error(list(values))
    assert median == np.median(values) and error == pytest.approx(own, rel=0.1)
    assert median_error(values) == (median, error)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0, 2.0]], [np.inf]])
def test_what_has_no_median_is_refused(values):
    with pytest.raises(MetricError, match="list of finite numbers"):
        median_error(values)


@pytest.mark.parametrize(("count", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(count, n):
    with pytest.raises(MetricError, match="a share needs trials"):
        share_error(count, n)

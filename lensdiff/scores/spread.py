"""Standard errors of what is counted or ranked: a share, a median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import MetricError

DRAWS = 2_000


def share_error(count: int, n: int) -> tuple[float, float]:
    """A share of n trials, and its binomial standard error, the root of p (1 - p) / n.

    Raises MetricError for a count that isn't from 0 to n, or for no trials.
    """
    if not 0 <= count <= n or not n:
        raise MetricError(f"{count} of {n}: a share needs trials, and a count of some of them.")
    share = count / n
    return share, (share * (1 - share) / n) ** 0.5


def median_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The median of values (n,), and its standard error.

    By the bootstrap: the standard deviation of the medians of `DRAWS` samples with replacement,
    always the same ones (Efron & Tibshirani 1993, section 6.2). Raises MetricError for no values,
    or for NaN or infinity among them.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise MetricError("A median needs a list of finite numbers.")
    again = np.random.default_rng(0).choice(x, (DRAWS, len(x)))
    return float(np.median(x)), float(np.median(again, 1).std())

"""The Frechet distance that infinitely many images would have, from its fall with their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import null_space

from ..errors import MetricError
from .distances import kernels, unbiased_mmd
from .jackknife import GROUPS, Pair, Rows, standard_covariance


@dataclass(frozen=True)
class Extrapolation:
    """The fit of d(N) = d_inf + b / N, with standard errors.

    `d_inf` is the distance at infinitely many images, `b` the slope in images; `chi2` is what of
    the distances no such line explains, squared in units of its covariance, with `degrees` =
    sizes - 2 degrees of freedom.
    """

    d_inf: float
    b: float
    d_inf_error: float
    b_error: float
    chi2: float
    degrees: int

    def at(self, n: float | np.ndarray) -> float | np.ndarray:
        """The fitted distance at `n` images."""
        return self.d_inf + self.b / n


def extrapolate(
    ns: Sequence[int], distances: Sequence[float], errors: Sequence[float]
) -> Extrapolation:
    """Weighted least-squares fit of d(N) = d_inf + b / N (Chong & Forsyth 2020, section 3).

    `distances` (k,) belong to the numbers of images `ns` (k,). `errors` are their standard errors
    (k,) where they are independent, else their covariance (k, k): the variances weight the fit, the
    whole covariance makes its standard errors and `chi2`. Where `chi2` lies far above `degrees`,
    terms beyond 1 / N matter: leave the smallest sizes out. Raises MetricError for fewer than three
    different sizes, for errors that are not positive, and for a covariance of too low a rank.
    """
    n, d, given = (np.asarray(x, np.float64) for x in (ns, distances, errors))
    # a negative error keeps its sign, and is refused below
    covariance = np.diag(given * np.abs(given)) if given.ndim == 1 else given
    if n.ndim != 1 or d.shape != n.shape or covariance.shape != 2 * n.shape:
        shapes = f"Sizes, distances and errors of shapes {n.shape}, {d.shape} and {given.shape}"
        raise MetricError(f"{shapes}: give as many of each.")
    if len(np.unique(n)) < 3:
        raise MetricError(f"Sizes {n.tolist()} say nothing of a line: give three sizes or more.")
    variance = np.diag(covariance)
    if not (np.isfinite(d).all() and (variance > 0).all() and (n > 0).all()):
        raise MetricError("Sizes and errors must be positive, and distances finite: look at them.")
    design = np.stack([np.ones_like(n), 1 / n], 1)
    weighted = design.T / variance
    solve = np.linalg.solve(weighted @ design, weighted)  # (2, k): distances to d_inf and b
    d_inf, b = solve @ d
    spread = np.sqrt(np.maximum(np.diag(solve @ covariance @ solve.T), 0))
    across = null_space((design * [1, n.min()]).T).T  # what no line in 1 / N can explain
    inner = across @ covariance @ across.T
    if np.linalg.matrix_rank(inner, hermitian=True) < len(inner):
        few = "Give each size once, and 15 or fewer"
        raise MetricError(f"The covariance has too low a rank for {len(n)} sizes. {few}.")
    chi2 = across @ d @ np.linalg.solve(inner, across @ d)
    numbers = (float(x) for x in (d_inf, b, *spread, chi2))
    return Extrapolation(*numbers, degrees=len(n) - 2)


def against_size(
    generated: np.ndarray, real: np.ndarray, sizes: Sequence[int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Squared Frechet distances (k,) of samples of the `sizes` (k,), and their covariance (k, k).

    `generated` (n, width) and `real` (m, width) are features, put in random order. At each size the
    distance is the mean over as many disjoint samples as the rows give. The sizes share rows: the
    covariance is that of a jackknife which leaves a twentieth of all rows out of every sample
    (Shao & Tu 1995, section 2.3), and belongs into `extrapolate`. Raises MetricError for sizes
    below 40 or above the number of rows.
    """
    sets = _shuffled(generated, real, sizes, seed)
    pair = Pair(*(Rows(rows) for rows in sets))
    return _by_size(len(sets[0]), sizes, lambda part: pair.distance(part, part))


def kid_against_size(
    generated: np.ndarray, real: np.ndarray, sizes: Sequence[int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """KID x 1000 (k,) of samples of the `sizes` (k,), and their covariance, as `against_size` does.

    The unbiased estimate (`unbiased_mmd`), whose mean is the same for every number. Raises
    MetricError for sizes below 40 or above the number of rows.
    """
    x, y = (rows.astype(np.float64) for rows in _shuffled(generated, real, sizes, seed))
    whole = kernels(x, y)

    def kid(part: np.ndarray) -> float:
        return 1000 * unbiased_mmd(*(kernel[np.ix_(part, part)] for kernel in whole))

    return _by_size(len(x), sizes, kid)


def _shuffled(
    generated: np.ndarray, real: np.ndarray, sizes: Sequence[int], seed: int
) -> list[np.ndarray]:
    """As many rows of both, in random order, if they are enough for the sizes."""
    sets = [np.asarray(x, np.float32) for x in (generated, real)]
    fewest = min(map(len, sets))
    if not len(sizes) or min(sizes) < 2 * GROUPS or max(sizes) > fewest:
        raise MetricError(
            f"Sizes {list(sizes)}: give {2 * GROUPS} to {fewest}, the rows there are."
        )
    rng = np.random.default_rng(seed)
    return [x[rng.permutation(len(x))[:fewest]] for x in sets]


def _by_size(
    rows: int, sizes: Sequence[int], score: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Means (k,) of `score` over disjoint samples of each size, and their covariance (k, k)."""

    def mean_score(size: int, left_out: int | None) -> float:
        samples = np.arange(rows // size * size).reshape(-1, size)
        parts = [part if left_out is None else part[part % GROUPS != left_out] for part in samples]
        return float(np.mean([score(part) for part in parts]))

    found = np.array([mean_score(size, None) for size in sizes])
    without = [[mean_score(size, group) for size in sizes] for group in range(GROUPS)]
    return found, standard_covariance(np.array(without))

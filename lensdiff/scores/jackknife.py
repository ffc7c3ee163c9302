"""Error bars of Frechet distances: one group of images left out at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import MetricError
from .statistics import Statistics

GROUPS = 20


def roots(matrix: np.ndarray) -> float:
    """The sum of the roots of the eigenvalues of a symmetric matrix; negative ones count as 0."""
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(matrix), 0, None)).sum())


def singular(matrix: np.ndarray) -> float:
    """The sum of the singular values of `matrix` (n, m), from its smaller Gram matrix."""
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    return roots(wide @ wide.T)


def factor(covariance: np.ndarray) -> np.ndarray:
    """L (width, width) with L L^T the covariance: Cholesky's, else from its eigenvectors."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.clip(values, 0, None))


class Rows:
    """Features (n, width) in float64, of which the statistics of any part are quickly had.

    They lie about the mean of all, so that sums of squares lose no digits.
    """

    def __init__(self, rows: np.ndarray):
        rows = np.asarray(rows, np.float64)
        self.origin = rows.mean(0)
        self.rows = rows - self.origin
        self.squares = (self.rows**2).sum(1)
        self.scatter = None

    def centre(self, keep: np.ndarray) -> np.ndarray:
        """Mean (width,) of the rows `keep`."""
        return self.origin + self.rows[keep].mean(0)

    def trace(self, keep: np.ndarray) -> float:
        """Trace of the unbiased covariance of the rows `keep`."""
        n = len(keep)
        mean = self.rows[keep].mean(0)
        return float((self.squares[keep].sum() - n * (mean @ mean)) / (n - 1))

    def covariance(self, keep: np.ndarray) -> np.ndarray:
        """Unbiased covariance (width, width) of the rows `keep`, from that of all less the rest."""
        if self.scatter is None:
            self.scatter = self.rows.T @ self.rows
        rest = np.delete(self.rows, keep, axis=0)
        mean = self.rows[keep].mean(0)
        inner = self.scatter - rest.T @ rest
        return (inner - len(keep) * np.outer(mean, mean)) / (len(keep) - 1)


class Pair:
    """The Frechet distance of any part of two sets of rows.

    With A and B the centred rows over the root of n - 1, the trace of (C_a C_b)^(1/2) is the sum of
    the singular values of A B^T. Where a part has fewer rows than features, that n x m matrix is a
    part of the sets' products, made once; else the width x width one of the covariances' factors
    is smaller.
    """

    def __init__(self, a: Rows, b: Rows):
        self.a = a
        self.b = b
        self.products = None

    def distance(
        self, of_a: np.ndarray, of_b: np.ndarray, factor_b: np.ndarray | None = None
    ) -> float:
        """Squared Frechet distance of the rows `of_a` from `of_b`, as `distances.frechet` has it.

        `factor_b` is the factor of the covariance of `of_b`, where it is at hand.
        """
        if min(len(of_a), len(of_b)) < self.a.rows.shape[1]:
            cross = self._by_rows(of_a, of_b)
        else:
            right = factor(self.b.covariance(of_b)) if factor_b is None else factor_b
            cross = roots(right.T @ self.a.covariance(of_a) @ right)
        shift = self.a.centre(of_a) - self.b.centre(of_b)
        spread = self.a.trace(of_a) + self.b.trace(of_b) - 2 * cross
        return float(max(shift @ shift + spread, 0.0))

    def _by_rows(self, of_a: np.ndarray, of_b: np.ndarray) -> float:
        if self.products is None:
            self.products = self.a.rows @ self.b.rows.T
        part = self.products[np.ix_(of_a, of_b)]
        part = part - part.mean(0)
        part = part - part.mean(1, keepdims=True)
        return singular(part) / np.sqrt((len(of_a) - 1) * (len(of_b) - 1))


@dataclass(frozen=True)
class Errors:
    """Standard errors of a distance, of its floor, and of the excess of the one over the other."""

    distance: float
    floor: float
    excess: float


def of_all_images(*sides: Statistics) -> float:
    """The factor that leads from an error of the kept rows to one of all images.

    A standard error falls with the root of their number: sqrt(rows / n), of the side of which the
    largest share is kept, so that no error is made too small; 1 where every row is kept.
    """
    return float(max(np.sqrt(len(side.rows) / side.n) for side in sides))


def groups(n: int, number: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`number` random groups of the rows 0 to n - 1, equal but for one row."""
    return np.array_split(rng.permutation(n), number)


def standard_covariance(values: np.ndarray) -> np.ndarray:
    """Covariance (k, k) of k estimates, from their values (groups, k) without one group each.

    The delete-a-group jackknife (Shao & Tu 1995, section 2.3): (g - 1) / g times the sum of
    products of deviations from the mean.
    """
    g = len(values)
    away = values - values.mean(0)
    return (g - 1) / g * away.T @ away


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard errors (k,) of k estimates, the roots of the diagonal of `standard_covariance`."""
    return np.sqrt(np.diag(standard_covariance(values)))


def without_groups(
    generated: Statistics, reference: Statistics, number: int = GROUPS
) -> np.ndarray:
    """Distances (groups,) with one group of the kept rows of both sets left out at a time.

    The groups are the same for every set of as many rows, so that two sets that share their seeds
    and the reference are compared pair by pair: `standard_error` of the difference of their
    distances leaves out what both share. It is the error of as many images as there are kept rows,
    too large where there were more images. Raises MetricError below 8 rows a side.
    """
    sides = (generated.rows, reference.rows)
    parts = shared_groups(sides, number)
    pair = Pair(*(Rows(rows) for rows in sides))
    found = []
    for group in zip(*parts, strict=True):
        keep = [np.delete(np.arange(len(x)), out) for x, out in zip(sides, group, strict=True)]
        found.append(pair.distance(*keep))
    return np.array(found)


def shared_groups(sides: Sequence[np.ndarray], number: int) -> list[list[np.ndarray]]:
    """The groups of each side: `number`, or fewer, so that each has two rows.

    Raises MetricError below 8 rows a side.
    """
    fewest = min(map(len, sides))
    if fewest < 8:
        raise MetricError(f"{fewest} kept rows on a side: an error bar needs 8 or more.")
    number = min(number, fewest // 2)
    rng = np.random.default_rng(0)
    return [groups(len(rows), number, rng) for rows in sides]


def excess_errors(
    generated: Statistics, reference: Statistics, floor: Statistics, number: int = GROUPS
) -> Errors:
    """Standard errors of d(generated, reference), d(floor, reference) and of their difference.

    The kept rows of each set are in `number` groups; one group of all three is left out at a time,
    the reference's from both distances, so that what they share cancels in the difference. Of more
    images than kept rows the errors are scaled, see `of_all_images`. Raises MetricError below 8
    rows a side; with fewer than two rows a group there are fewer groups.
    """
    sides = (generated.rows, reference.rows, floor.rows)
    parts = shared_groups(sides, number)
    mine, real, other = (Rows(rows) for rows in sides)
    pairs = (Pair(mine, real), Pair(other, real))
    found = []
    for group in zip(*parts, strict=True):
        keep = [np.delete(np.arange(len(x)), out) for x, out in zip(sides, group, strict=True)]
        full = min(map(len, keep)) >= real.rows.shape[1]
        shared = factor(real.covariance(keep[1])) if full else None
        both = (
            pairs[0].distance(keep[0], keep[1], shared),
            pairs[1].distance(*keep[:0:-1], shared),
        )
        found.append((*both, both[0] - both[1]))
    scale = of_all_images(generated, reference, floor)
    return Errors(*(float(x) * scale for x in standard_error(np.array(found))))

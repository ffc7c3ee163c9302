"""More simulated lenses than memory holds: parts of 10,000, each a cache of its own, read as one.

A lens depends on the seed and on its number alone, so independent jobs fill the parts in any order,
and the whole is the same whatever their number.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..lensing.survey import Survey
from ..storage import fingerprint_of
from .images import ImageSet, one_or_more, simulated

PART = 10_000  # lenses


class Joined:
    """Arrays (n_i, ...) in several files as one (n, ...), of which only rows asked for are read.

    It is indexed by a row, a slice, an array of rows, or the name of a field; after a row or a
    slice, further indices go to the rows, as in [3, 0]. Raises DataError for arrays that differ in
    more than their length.
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        shapes = {(array.shape[1:], array.dtype) for array in arrays}
        if len(shapes) != 1:
            raise DataError(f"Parts of one set must be alike, but these are of {sorted(shapes)}.")
        self.arrays = list(arrays)
        self.ends = np.cumsum([len(array) for array in arrays])
        self.shape = (int(self.ends[-1]), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | tuple | np.ndarray | str) -> np.ndarray:
        if isinstance(key, tuple):
            rows, *others = key
            if isinstance(rows, slice):
                return self[rows][(slice(None), *others)]
            return self[operator.index(rows)][tuple(others)]
        if isinstance(key, str):
            return np.concatenate([array[key] for array in self.arrays])
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        rows = np.asarray(key)
        if rows.dtype.kind not in "iu" and rows.size:
            raise IndexError(f"Rows must be whole numbers, not {rows.dtype}.")
        if rows.size and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"There is no row {rows.max()} or {rows.min()} of {len(self)}.")
        flat = rows.reshape(-1).astype(np.int64) % max(1, len(self))
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        which = np.searchsorted(self.ends, flat, side="right")
        for part in np.unique(which):
            mine = which == part
            first = self.ends[part] - len(self.arrays[part])
            found[mine] = self.arrays[part][flat[mine] - first]
        return found.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        whole = np.concatenate(self.arrays)
        return whole if dtype is None else whole.astype(dtype, copy=False)


def parts_of(n: int) -> list[range]:
    """The lenses of each part of `n`; the last may be smaller."""
    return [range(first, min(n, first + PART)) for first in range(0, n, PART)]


def simulated_part(
    survey: Survey,
    rows: range,
    seed: int,
    kind: str = "mixed",
    cache: Path | str | None = None,
    noiseless: bool = False,
) -> ImageSet:
    """The lenses of `rows`, simulated once, then read from a cache; their truth from there too."""
    one = simulated(survey, len(rows), seed, kind, cache, noiseless, first=rows.start)
    truth = np.load(one.folder / "truth.npy", mmap_mode="r", allow_pickle=False)
    return replace(one, truth=truth, labels=one.labels.copy())


def simulated_parts(
    survey: Survey,
    n: int,
    seed: int,
    kind: str = "mixed",
    cache: Path | str | None = None,
    noiseless: bool = False,
) -> ImageSet:
    """`n` lenses as `images.simulated` makes them, in parts; those that are missing are simulated.

    Pixels and truth stay on disk, labels and rows (8 bytes a lens each) are in memory. Raises
    ParameterError for no lens.
    """
    given = (seed, kind, cache, noiseless)
    parts = [simulated_part(survey, rows, *given) for rows in parts_of(one_or_more(n))]
    return replace(
        parts[0],
        pixels=Joined([part.pixels for part in parts]),
        truth=Joined([part.truth for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        fingerprint=fingerprint_of([part.fingerprint for part in parts]),
        folder=None,
    )

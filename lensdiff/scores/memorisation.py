"""Memorisation: the training image that is nearest to each of a set of images.

Nearest in pixels, and under the flips and turns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..data.images import ELEMENTS, symmetry
from ..errors import MetricError


@torch.no_grad()
def nearest(
    images: Tensor | np.ndarray, training: np.ndarray, symmetries: int = 1, batch: int = 1_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distance, index, element), each (n,), of the training image nearest to each of `images`.

    `images` are (n, C, H, W), `training` (m, C, H, W). The distance is the root-mean-square
    difference of pixels, in their units, and the smallest over the 1, 2 or 8 `symmetries` of the
    population: `symmetry(image, element)` is what lies so near. Training images are read `batch` at
    a time. Raises MetricError where the shapes differ.
    """
    x = torch.tensor(np.asarray(images), dtype=torch.float32)
    if x.ndim != 4 or x.shape[1:] != training.shape[1:] or symmetries not in ELEMENTS:
        shapes = f"Images of {tuple(x.shape)} and training images of {training.shape}"
        raise MetricError(
            f"{shapes} can't be compared in {symmetries} symmetries: give (n, C, H, W) of one "
            "size, and 1, 2 or 8."
        )
    # (symmetries, n, pixels)
    turns = torch.stack(
        [symmetry(x, torch.full((len(x),), k)).flatten(1) for k in ELEMENTS[symmetries]]
    )
    best = torch.full((len(x),), torch.inf)
    index = torch.zeros(len(x), dtype=torch.long)
    element = torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(training), batch):
        part = torch.from_numpy(np.asarray(training[start : start + batch], np.float32)).flatten(1)
        for k, turned in zip(ELEMENTS[symmetries], turns, strict=True):
            square = (turned**2).sum(1, keepdim=True) + (part**2).sum(1) - 2 * turned @ part.T
            found, where = square.min(1)
            better = found < best
            best = torch.where(better, found, best)
            index = torch.where(better, where + start, index)
            element = torch.where(better, torch.tensor(k), element)
    picked = torch.from_numpy(np.asarray(training[index.numpy()], np.float32))
    # the search's difference of large sums is coarse; the distance is not
    exact = symmetry(x, element) - picked
    return exact.square().mean((1, 2, 3)).sqrt().numpy(), index.numpy(), element.numpy()

"""Noiseless generated images, stored beside the weights: the telescope observes them anew."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import torch

from ..errors import MetricError
from ..model import Model
from ..storage import fingerprint_of, is_shipped, write_arrays
from .card import FIRST_SEED, images_key, stored_images

FILE = "light.npz"


def keep_light(model: Model, light: torch.Tensor) -> Path:
    """Write the noiseless images (n, C, H, W) in [0, 1] of the first n seeds, as bytes."""
    path = model.folder / FILE
    pixels = (light.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    write_arrays(path, pixels=pixels, key=fingerprint_of(images_key(model, model.sampling)))
    return path


def observed(model: Model, n: int | None = None) -> torch.Tensor:
    """The first `n` stored images as the model's telescope records them, in [0, 1], float32.

    Without noise they take a quarter of the room. Raises MetricError where they are missing,
    damaged, or of other weights or another sampling.
    """
    path = model.folder / FILE
    name = model.folder.name if is_shipped(model.folder) else shlex.quote(str(model.folder))
    cure = f"Make them again: python -m lensdiff study physics {name}"
    try:
        with np.load(path, allow_pickle=False) as saved:
            own = str(saved["key"])
            pixels = saved["pixels"][:n]
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise MetricError(f"{path}: can't be read ({error}). {cure}") from error
    if own != fingerprint_of(images_key(model, model.sampling)):
        raise MetricError(f"{path}: these are of other weights or another sampling. {cure}")
    light = torch.from_numpy(pixels.astype(np.float32) / 255)
    return model.telescope.observe(light, range(FIRST_SEED, FIRST_SEED + len(light)))


def stored(model: Model, n: int | None = None) -> np.ndarray:
    """The first `n` generated images that lie beside the weights, (n, C, H, W) in [0, 1].

    They are observed from its light, where that is kept. Raises MetricError where none are.
    """
    if model.telescope is not None and (model.folder / FILE).exists():
        return observed(model, n).numpy()
    return stored_images(model.folder, images_key(model, model.sampling))[:n].numpy()

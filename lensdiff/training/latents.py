"""Images as latents, for a diffusion model to learn: encoded once, then read from the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.images import ELEMENTS, ImageSet, symmetry
from ..errors import DataError, ParameterError
from ..networks.latent import Latent
from ..storage.cache import cached

BATCH = 256


def encoded(
    images: ImageSet,
    autoencoder: Latent,
    elements: tuple[int, ...] = (0,),
    cache: Path | str | None = None,
) -> ImageSet:
    """The latents of images, as a set of their own: `pixels` are (n, latent_channels, h, w).

    Latents do not turn with their image. A set with `elements` of the eight flips and turns
    (`data.images.symmetry`) has len(elements) * n rows: row k * n + i is image i, turned by the
    k-th; see `expanded`. Raises DataError for images of another size than the autoencoder learnt,
    ParameterError for elements that are no symmetries of the images.
    """
    _check(images, autoencoder, elements)
    description = {"autoencoder": autoencoder.sha256, "images": images.fingerprint}
    description["elements"] = list(elements)

    def batches() -> Iterator[np.ndarray]:
        for element in elements:
            for start in range(0, len(images), BATCH):
                part = np.array(images.pixels[start : start + BATCH], np.float32)
                turned = symmetry(torch.from_numpy(part), np.full(len(part), element))
                yield autoencoder.encode(turned).numpy()

    shape = (len(elements) * len(images), *autoencoder.shape)
    name = f"latents-{autoencoder.sha256[:8]}"
    folder, fingerprint, pixels = cached(name, description, shape, batches, cache)
    labels = None if images.labels is None else np.tile(images.labels, len(elements))
    return replace(
        images,
        name=f"{images.name}, as latents",
        pixels=pixels,
        fingerprint=fingerprint,
        labels=labels,
        truth=images.truth if tuple(elements) == (0,) else None,
        symmetries=1,
        folder=folder,
    )


def _check(images: ImageSet, autoencoder: Latent, elements: tuple[int, ...]) -> None:
    """Raise what `encoded` does."""
    own = ELEMENTS[images.symmetries]
    if not elements or not set(elements) <= set(own):
        reason = f"elements must be some of {own}, the symmetries of {images.name}"
        raise ParameterError(f"{reason}, not {elements}.")
    if tuple(images.pixels.shape[1:]) != autoencoder.image_shape:
        learnt = f"the autoencoder {autoencoder.folder.name} learnt {autoencoder.image_shape}"
        found = f"{images.name}: images of shape {tuple(images.pixels.shape[1:])}, but {learnt}"
        raise DataError(f"{found}. Take one that learnt such images.")


def expanded(
    rows: tuple[np.ndarray, np.ndarray], n: int, elements: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The (train, held-out) rows of `n` images in their encoded set.

    All turned versions of those to learn from; of those held out, the first.
    """
    train = np.concatenate([rows[0] + k * n for k in range(len(elements))])
    return train, rows[1]

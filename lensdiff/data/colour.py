"""Simulated lenses in colour, as a set of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..lensing import colour
from ..lensing.population import KINDS, sample_params
from ..lensing.simulate import VERSION
from ..lensing.survey import diverse
from ..storage.cache import cached
from .images import ImageSet, one_or_more, share_of

TRAIN_IMAGES = 4_000
TEST_IMAGES = 2_048
PIXELS = 128


def colour_lenses(
    split: str = "train",
    pixels: int = PIXELS,
    n: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """RGB pictures of `diverse` lenses with their galaxies' own light, (n, 3, H, W) in [0, 1].

    There are 4,000 to train on, and 2,048 with another seed to test on, or `n`; three classes in
    equal parts. They are simulated once, then read from the cache. Raises ParameterError for
    another split, or no lens.
    """
    count, seed = share_of(split, TRAIN_IMAGES, TEST_IMAGES)
    n = count if n is None else one_or_more(n)
    survey = diverse(pixels)
    description = {"simulator": VERSION, "colour": colour.VERSION, "survey": asdict(survey)}
    description |= {"n": n, "seed": seed}
    params = sample_params(n, "mixed", seed, survey)

    def batches() -> Iterator[np.ndarray]:
        return colour.simulate_colour(params, survey, seed)

    name = f"colour-{pixels}"
    shape = (n, 3, pixels, pixels)
    folder, fingerprint, images = cached(name, description, shape, batches, cache, truth=params)
    return ImageSet(
        name=name,
        pixels=images,
        fingerprint=fingerprint,
        classes=KINDS,
        labels=params["label"],
        truth=params,
        symmetries=8,
        folder=folder,
    )

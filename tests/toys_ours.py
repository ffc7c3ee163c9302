"""Our recipe of `study recipes` on 40 lenses of 16 pixels, for studies that begin with it."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
from toys_autoencoder import DIFFUSION

from lensdiff.data.images import lenses
from lensdiff.model import Sampling
from lensdiff.training import recipe
from lensdiff.training.published import PUBLISHED
from lensdiff.training.solution import Published

SIDE = 16
OURS = replace(DIFFUSION, name="ours", pixels=SIDE, noiseless=True, sampling=Sampling(steps=3))


def take_small(monkeypatch: pytest.MonkeyPatch, *studies: ModuleType) -> None:
    """Let `studies` know no other recipe and no other lenses."""

    def few(split: str, pixels: int, cache: object = None, noiseless: bool = False) -> object:
        return lenses(split, pixels, 40, noiseless=noiseless)

    ours = Published(OURS, OURS, PUBLISHED["ours"].says, 3)
    for study in studies:
        monkeypatch.setattr(study, "PUBLISHED", {"ours": ours})
        monkeypatch.setattr(study, "lenses", few)
    monkeypatch.setattr(recipe, "lenses", few)

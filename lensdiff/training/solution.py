"""What a published solution is: a recipe twice, and what its source says of itself."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

from torch import Tensor

from ..diffusion.process import ScheduleWarning, Uniform, schedule
from .recipe import AutoencoderRecipe, Recipe


@functools.cache
def table_of(sigmas: Uniform) -> Tensor:
    """The levels of a schedule, (T,), ascending.

    It does not warn where they end before the signal is gone: that is what is shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)
        return schedule(sigmas.schedule, sigmas.T, sigmas.rescale)


@dataclass(frozen=True)
class Says:
    """What a source says of itself: `fid` over `n` images at `pixels`, with `steps` network calls.

    None where it does not say. `reference` is what its FID is held against.
    """

    text: str
    pixels: int
    fid: float | None = None
    n: int | None = None
    steps: int | None = None
    reference: str = "not said"


@dataclass(frozen=True)
class Published:
    """A solution: `recipe` for thirty minutes of two cores, `whole` for a GPU, `says` its source.

    Its own sampler takes `steps` of its schedule's levels by DDIM with `eta`; 1 is ancestral.
    """

    recipe: Recipe
    whole: Recipe
    says: Says
    steps: int
    eta: float = 0.0
    autoencoder: AutoencoderRecipe | None = None

    @property
    def name(self) -> str:
        """Its name, by which `study recipes` knows it, and `train` where it is published."""
        return self.recipe.name

    @property
    def levels(self) -> Tensor | None:
        """The table of its schedule, ascending; None where sigma is continuous."""
        sigmas = self.recipe.train.sigmas
        return table_of(sigmas) if isinstance(sigmas, Uniform) else None

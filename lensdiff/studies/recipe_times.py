"""How long updates and network calls of the published solutions and ours take here."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace

import numpy as np
import torch

from ..diffusion.process import Denoiser
from ..runtime import best_device, machine
from ..training.fit import fit
from ..training.recipe import AutoencoderRecipe
from ..training.solution import Published
from .cost import TIMED_UPDATES, significant, update_seconds
from .paired import alternate

MINUTES = 30
CALLED = 16  # images of a timed call
CALLS = "calls in turn"  # the row of `study recipes` with them


def autoencoder_seconds(plan: AutoencoderRecipe) -> float:
    """Median seconds of an update of an autoencoder, of a few that are made and forgotten."""
    taken = []
    short = plan.scaled(steps=TIMED_UPDATES, held_out_every=0)
    with tempfile.TemporaryDirectory() as work:
        fit(short, plan.images("train"), work, each=lambda step: taken.append(step.seconds))
    return float(np.median(np.diff(taken)))


def untrained(solution: Published) -> tuple[Denoiser, tuple[int, int, int]]:
    """The solution's denoiser with random weights, and (channels, H, W) of what it denoises."""
    recipe = solution.recipe
    plan = solution.autoencoder
    shape = (3 if recipe.data == "colour" else 1, recipe.pixels, recipe.pixels)
    if plan is not None:
        net = plan.net()
        shape = (net.latent_channels, *net.grid(plan.pixels, plan.pixels))
    recipe = replace(recipe, network={**recipe.network, "image_channels": shape[0]})
    return recipe.denoiser(), shape


def time_all(solutions: dict[str, Published]) -> None:
    """Print what an update of each recipe takes, and how many fill thirty minutes."""
    for name, solution in solutions.items():
        plan = solution.autoencoder
        if plan is not None:
            print(f"{plan.name}: {autoencoder_seconds(plan):.3f} s an update")
        found = update_seconds(*untrained(solution), solution.recipe.as_dict())
        print(f"{name}: {found:.3f} s an update, {60 * MINUTES / found:,.0f} in {MINUTES} minutes")


def call_times(solutions: dict[str, Published]) -> dict:
    """Seconds of a network call of every solution, in turn, of `CALLED` images at once."""
    works = {}
    for name, solution in solutions.items():
        denoiser, shape = untrained(solution)
        denoiser = denoiser.to(best_device(), memory_format=torch.channels_last)
        x = torch.randn(CALLED, *shape, device=best_device())
        works[name] = functools.partial(denoiser, x, torch.ones(CALLED, device=x.device))
    with torch.no_grad():
        taken = alternate(works)
    seconds = {name: [significant(one, 4) for one in each] for name, each in taken.items()}
    return {"images": CALLED, "seconds": seconds, "machine": machine()}

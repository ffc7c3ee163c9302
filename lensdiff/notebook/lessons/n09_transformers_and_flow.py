"""Notebook 09, transformers and flow: its parameters and exercises."""

from __future__ import annotations

import math

import torch

from ..exercises import Exercise
from ..rules import SEED, Choice, Number

PARAMETERS = {
    "patch": Choice(2, 4, 8, 16),
    "own_updates": Number(0, 1_000_000, whole=True),
    "sampler_steps": Number(2, 1_000, whole=True),
    "shift": Number(0.1, 30),
    "pairs": Number(0, 1_000_000, whole=True),
    "seed": SEED,
    "width": Number(16, 1_024, whole=True, multiple=16),
    "depth": Number(1, 64, whole=True),
    "positions": Choice("rope", "learnt"),
}


def guess(x: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """x_t = x0 + t v, solved for x0."""
    return x - t * v


def guess_backwards(x: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """Towards the noise."""
    return x + t * v


def guess_of_one(x: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """As if t were 1."""
    return x - v


def guess_of_noise(x: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """The other end of the line."""
    return x + (1 - t) * v


def guess_of_sigma(x: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """As if x had to be brought to x_sigma first."""
    return x / (1 - t) - t * v


def guess_divided(x: torch.Tensor, v: torch.Tensor, t: float) -> torch.Tensor:
    """As if x0 were still scaled."""
    return (x - t * v) / (1 - t)


def of_two(answer: object) -> list[float]:
    """Guesses at two times."""
    x = torch.tensor([[1.5, -0.5], [0.2, 2.0]])
    v = torch.tensor([[0.4, 0.1], [-0.3, 0.6]])
    return [float(x0) for t in (0.3, 0.75) for x0 in answer(x.clone(), v.clone(), t).flatten()]


EXERCISES = {
    1: Exercise(
        answer=225,
        explanation="15 patches along a side, 15 · 15 in all.",
        mistakes=(
            (15, "that is how many there are along one side."),
            (100, "that is how many pixels a patch has."),
            (2250, "an image has 22,500 pixels; a patch has 100."),
            (22500, "that is how many pixels the image has."),
            (30, "patches lie in two dimensions: a product, not a sum."),
        ),
        hint="patches along a side, squared.",
    ),
    2: Exercise(
        answer=256,
        explanation="4 · 4 = 16 times as many patches, and 16² as many pairs.",
        mistakes=(
            (4, "that is the factor of the side."),
            (16, "that is how many more patches there are; the table has an entry for each pair."),
            (64, "pairs are the square of the number of patches: 16 squared."),
            (8, "the table has an entry for each pair of patches."),
            (1 / 256, "it grows."),
        ),
        hint="the number of patches is squared.",
    ),
    3: Exercise(
        answer=0.75,
        explanation="t = σ / (1 + σ) = 3 / 4.",
        mistakes=(
            (0.25, "that is 1 - t, the share of the data."),
            (3.0, "t lies between 0 and 1."),
            (1 / 3, "that is 1 / σ."),
            (-1.5, "σ = t / (1 - t), to be solved for t."),
            (0.9, "that is σ² / (1 + σ²), as of DDPM's schedules."),
        ),
        hint="solve σ = t / (1 - t) for t.",
    ),
    4: Exercise(
        answer=math.log(2),
        explanation="ln σ has mean 0, and the shift adds ln α = ln 2 = 0.693.",
        mistakes=(
            (2.0, "the shift multiplies σ by α: it adds to the logarithm."),
            (0.0, "that is before the shift."),
            (-math.log(2), "a shift of more than 1 goes to more noise."),
            (2 / 3, "that is the shifted t of t = 1/2; the question is for ln σ."),
            (math.log10(2), "the logarithm is to the base e."),
            (0.5, "that is t at σ = 1."),
        ),
        hint="ln of α σ is ln α + ln σ.",
    ),
    5: Exercise(
        answer=guess,
        explanation="x_t = (1 - t) x0 + t eps = x0 + t v, so x0 = x_t - t v.",
        mistakes=(
            (guess_backwards, "v points from the data to the noise."),
            (guess_of_one, "only at t = 1 is the way back as long as v."),
            (guess_of_noise, "that is the guess of the noise, the other end of the line."),
            (guess_of_sigma, "x is x_t already."),
            (guess_divided, "x_t = x0 + t v: nothing is left to divide by."),
        ),
        hint="write x_t with x0 and v = eps - x0 alone.",
        probe=of_two,
    ),
}

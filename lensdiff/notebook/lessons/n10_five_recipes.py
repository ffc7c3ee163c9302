"""Notebook 10, five recipes: its parameters and exercises."""

from __future__ import annotations

import math

from ..exercises import Exercise
from ..rules import SEED, Choice, Number, Place

RECIPES = (  # names of `training.published.PUBLISHED`
    "ddpm",
    "ddpm-cosine",
    "ddpm-wide",
    "sigmoid-ddim",
    "cosine-l1",
    "faces",
    "faces-T200",
    "faces-wide",
    "faces-colour",
    "vq-latents",
    "vq-latents-T200",
    "ours",
    "ours-observed",
    "ours-colour",
)
PARAMETERS = {
    "recipe": Choice(*RECIPES),
    "own_updates": Number(0, 1_000_000, whole=True),
    "pictures": Place(),
    "columns": Number(1, 8, whole=True),
    "seed": SEED,
    "gpu_tflops": Number(0.1, 100_000),
    "launch_ms": Number(0.0, 10_000),
    "level": Number(0.5, 0.999),
}


def decay_now(n: int, decay: float) -> float:
    """It grows towards 1, and stops at `decay`."""
    return min(decay, (1 + n) / (10 + n))


def decay_the_larger(n: int, decay: float) -> float:
    """The larger of the two."""
    return max(decay, (1 + n) / (10 + n))


def decay_unlimited(n: int, decay: float) -> float:
    """Without the limit."""
    return (1 + n) / (10 + n)


def decay_constant(n: int, decay: float) -> float:
    """The same from the start."""
    return decay


def decay_share(n: int, decay: float) -> float:
    """What the newest weights get."""
    return 1 - min(decay, (1 + n) / (10 + n))


def decay_power(n: int, decay: float) -> float:
    """The share of the first weights."""
    return decay**n


def of_three(answer: object) -> list[float]:
    """Decays early, late, and at the limit."""
    return [float(answer(*given)) for given in ((0, 0.9999), (700, 0.9999), (3_100, 0.995))]


EXERCISES = {
    1: Exercise(
        answer=1_800 / 0.117,
        explanation="1,800 s, and 0.117 s an image: about 15,400.",
        mistakes=(
            (1_800 / 0.039, "that is without the factor of three."),
            (30 / 0.117, "minutes have sixty seconds."),
            (1_800 * 0.117, "divide the time by what an image costs."),
            (1_800 / 0.078, "training takes three times as much, not twice."),
            (1.8 / 0.117, "milliseconds: a thousandth of a second."),
        ),
        hint="the seconds there are, over the seconds an image costs.",
        tolerance=0.01,
    ),
    2: Exercise(
        answer=10**0.6,
        explanation="10 to the power 0.4 · 1.5 = 3.98.",
        mistakes=(
            (1.5, "magnitudes are logarithms of flux."),
            (10**-0.6, "g - r is positive where r is brighter."),
            (10**1.5, "a magnitude is 0.4 of a power of ten."),
            (math.exp(1.5), "the logarithm is to the base 10, times 2.5."),
            (10**3.75, "the factor of 2.5 divides."),
        ),
        hint="g - r = -2.5 log10 of the ratio of fluxes.",
    ),
    3: Exercise(
        answer=0.999**1_000,
        explanation="0.999 to the power 1,000: 0.368, about 1 / e.",
        mistakes=(
            (0.001, "that is the share of the newest weights."),
            (1 - 0.999**1_000, "that is the share of all later ones."),
            (0.0, "a thousand updates are one length of the average, not many."),
            (0.999, "that is after one update."),
            (0.5, "the half-life is 693 updates."),
            (36.77, "that is in per cent; a number from 0 to 1 is asked for."),
        ),
        hint="each update multiplies the share by the decay.",
    ),
    4: Exercise(
        answer=2.4,
        explanation="6 over the root of 2² + 1.5², which is 2.5; not where scores share images.",
        mistakes=(
            (6 / 3.5, "errors of independent numbers add in squares."),
            (6 / 2, "both have an error."),
            (6 / 1.5, "both have an error."),
            (6.0, "that is the difference, not in standard errors."),
            (6 / 6.25, "that is over the variance: take its root."),
            (6 / 1.75, "the error of a difference is not the mean of both errors."),
        ),
        hint="the difference, over the root of the sum of squares of the errors.",
    ),
    5: Exercise(
        answer=decay_now,
        explanation="The smaller of both: after 700 updates 0.987, whatever larger decay is asked.",
        mistakes=(
            (decay_the_larger, "never more than `decay`: the smaller of the two."),
            (decay_unlimited, "it must stop growing at `decay`."),
            (decay_constant, "at the start it is a tenth, and grows."),
            (decay_share, "that is the share of the newest weights; the decay is the rest."),
            (decay_power, "that is what is left of the first weights."),
        ),
        hint="min of the decay and (1 + n) / (10 + n).",
        probe=of_three,
        tolerance=1e-6,
    ),
}

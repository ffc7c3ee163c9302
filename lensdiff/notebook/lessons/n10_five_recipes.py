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
    "faces-colour",
    "vq-latents",
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
    "level": Number(0.5, 0.999),
}


def images_seen(minutes: float, seconds_a_call: float, batch: int) -> int:
    """Whole updates of three calls for each image."""
    return int(60 * minutes / (3 * seconds_a_call * batch)) * batch


def images_one_call(minutes: float, seconds_a_call: float, batch: int) -> int:
    """With one call an image."""
    return int(60 * minutes / (seconds_a_call * batch)) * batch


def images_not_whole(minutes: float, seconds_a_call: float, batch: int) -> int:
    """Without rounding down to whole updates."""
    return int(60 * minutes / (3 * seconds_a_call))


def images_updates(minutes: float, seconds_a_call: float, batch: int) -> int:
    """Updates, not images."""
    return int(60 * minutes / (3 * seconds_a_call * batch))


def images_in_seconds(minutes: float, seconds_a_call: float, batch: int) -> int:
    """Minutes taken for seconds."""
    return int(minutes / (3 * seconds_a_call * batch)) * batch


def images_batch_free(minutes: float, seconds_a_call: float, batch: int) -> int:
    """As if a call took the whole batch."""
    return int(60 * minutes / (3 * seconds_a_call)) * batch


def of_three(answer: object) -> list[float]:
    """Images for three budgets."""
    return [float(answer(*given)) for given in ((30, 0.039, 32), (1, 0.5, 16), (10, 0.0071, 20))]


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
        ),
        hint="each update multiplies the share by the decay.",
    ),
    4: Exercise(
        answer=2.4,
        explanation="6 over the root of 2² + 1.5², which is 2.5.",
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
        answer=images_seen,
        explanation="An update takes 3 · batch calls; whole updates, times the batch.",
        mistakes=(
            (images_one_call, "forward and backward: three calls for each image."),
            (images_not_whole, "an update that is not finished counts for nothing."),
            (images_updates, "that is the number of updates; the question is for images."),
            (images_in_seconds, "the budget is in minutes."),
            (images_batch_free, "each image of a batch costs its calls."),
        ),
        hint="whole updates of 3 · batch calls, times the batch.",
        probe=of_three,
        tolerance=1e-6,
    ),
}

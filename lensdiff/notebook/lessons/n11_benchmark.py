"""Notebook 11, benchmark: its parameters and exercises."""

from __future__ import annotations

import math

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number

MEASURED = (
    "training",
    "folding",
    "frechet",
    "simulation",
    "reading",
    "calls",
    "drawing",
    "sixteen",
    "batches",
    "growth",
    "memory",
    "scores",
    "limits",
)
PARAMETERS = {
    "processor": Choice("", "bf16", "fp32"),
    "measured": Choice("", *MEASURED),
    "side": Number(16, 256, whole=True),
    "rounds": Number(3, 50, whole=True),
    "seed": SEED,
    "slowing": Number(0.0, 2.0),
}


def ratio_of_medians(slow: list[float], fast: list[float]) -> float:
    """The median of one over that of the other."""
    return float(np.median(slow) / np.median(fast))


def ratio_of_means(slow: list[float], fast: list[float]) -> float:
    """Means, which one disturbed round moves."""
    return float(np.mean(slow) / np.mean(fast))


def ratio_of_best(slow: list[float], fast: list[float]) -> float:
    """The least of each."""
    return min(slow) / min(fast)


def ratio_upside_down(slow: list[float], fast: list[float]) -> float:
    """The other way round."""
    return float(np.median(fast) / np.median(slow))


def median_of_ratios(slow: list[float], fast: list[float]) -> float:
    """Round by round, and then the median."""
    return float(np.median(np.divide(slow, fast)))


def difference_of_medians(slow: list[float], fast: list[float]) -> float:
    """Seconds, not times."""
    return float(np.median(slow) - np.median(fast))


def of_three(answer: object) -> list[float]:
    """Ratios of three pairs of contenders."""
    rounds = (
        ((3.0, 4.0, 8.0), (1.0, 2.0, 2.5)),
        ((2.0, 9.0, 2.2, 2.1), (1.0, 1.1, 0.9, 5.0)),
        ((1.0, 1.0, 1.0), (0.5, 0.4, 0.3)),
    )
    return [float(answer(list(slow), list(fast))) for slow, fast in rounds]


EXERCISES = {
    1: Exercise(
        answer=(4.0 / 16) / (1.5 / 32),
        explanation="0.25 s an image beside 0.047 s an image: 5.33 times.",
        mistakes=(
            (4.0 / 1.5, "batches differ: compare seconds an image."),
            ((1.5 / 32) / (4.0 / 16), "that is how much slower it is, upside down."),
            ((4.0 / 32) / (1.5 / 16), "each has its own batch: 4 s belong to 16 images."),
            (32 / 16, "that is the ratio of the batches; seconds differ, too."),
            (4.0 / 16 - 1.5 / 32, "that is a difference in seconds; a ratio is asked for."),
        ),
        hint="seconds over images for each, then one over the other.",
    ),
    2: Exercise(
        answer=1 / (0.4 + 0.6 / 3),
        explanation="What is left takes 0.4 + 0.6 / 3 = 0.6 of the time: 1.67 times (Amdahl 1967).",
        mistakes=(
            (3.0, "only a part of the time gets shorter."),
            (1.8, "a share of a speed-up is not the speed-up of a share: add what times are left."),
            (0.6, "that is the time that is left; the speed-up is one over it."),
            (1 / (0.6 + 0.4 / 3), "the convolutions have 60 % of the time."),
            (1 / 0.4, "convolutions still take a third of their time."),
        ),
        hint="what is left of the time: the rest, and a third of the convolutions' part.",
    ),
    3: Exercise(
        answer=math.log(18) / math.log(4),
        explanation="ln 18 over ln 4, as 36 s / 2 s = 18 at four times the side: 2.08.",
        mistakes=(
            (18.0, "that is the factor in time; the exponent is its logarithm over that of 4."),
            (4.5, "a power law is a line on log axes: take logarithms first."),
            (math.log(18), "divide by the logarithm of the factor in side."),
            (math.log(4) / math.log(18), "the other way round."),
            (math.log(34) / math.log(4), "a factor of time, not a difference."),
        ),
        hint="the logarithm of the factor in time over that of the factor in side.",
    ),
    4: Exercise(
        answer=0.4 * 1_000 / 250,
        explanation="0.4 s are 400 ms, over 250 images: 1.6 ms.",
        mistakes=(
            (0.4 / 250, "that is per image, in seconds; the question is for milliseconds."),
            (0.4, "that is for all."),
            (250 / 0.4, "that is images a second."),
            (0.4 * 250, "over the images, not times."),
            (0.4 * 1_000, "that is for all, in milliseconds."),
        ),
        hint="milliseconds for all, over the number of images.",
    ),
    5: Exercise(
        answer=ratio_of_medians,
        explanation="A median of each, then one over the other: one disturbed round moves neither.",
        mistakes=(
            (ratio_of_means, "a mean follows the one round that something disturbed."),
            (ratio_of_best, "the best round is the luckiest one; the median is asked for."),
            (ratio_upside_down, "of the first over the second."),
            (median_of_ratios, "first the medians, then their ratio."),
            (difference_of_medians, "a ratio says how many times, a difference how many seconds."),
        ),
        hint="np.median of each list, and the first over the second.",
        probe=of_three,
        tolerance=1e-6,
    ),
}

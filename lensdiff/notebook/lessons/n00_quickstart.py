"""Notebook 00, the quickstart: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number, Place

PARAMETERS = {
    "checkpoint": Place(),
    "data_folder": Place(),
    "seed": SEED,
    "samples": Number(1, 4096, whole=True),
    "recipe": Choice("tiny", "lens64", "lens150"),
    "train_minutes": Number(0, 10_000),
    "sampler": Choice("", "ddim", "heun", "dpmpp_2m"),
    "steps": Number(0, 1_000, whole=True, least=2),
    "card_images": Number(0, 2_048, whole=True, least=8),
}


def spaced(steps):
    """Levels with a constant ratio, and a final 0."""
    return np.append(np.geomspace(40, 0.01, steps), 0.0)


def spaced_evenly(steps):
    """Constant differences."""
    return np.append(np.linspace(40, 0.01, steps), 0.0)


def spaced_without_zero(steps):
    """The levels without the 0."""
    return np.geomspace(40, 0.01, steps)


def spaced_one_more(steps):
    """One level too many."""
    return np.append(np.geomspace(40, 0.01, steps + 1), 0.0)


def spaced_upwards(steps):
    """From low to high."""
    return np.append(0.0, np.geomspace(0.01, 40, steps))


def spaced_in_logs(steps):
    """The logarithms of the levels."""
    return np.append(np.linspace(np.log(40), np.log(0.01), steps), 0.0)


def levels_of(answer: object) -> object:
    """What an answer makes of ten and of four steps: logarithms, so that each level counts."""
    found = []
    for steps in (10, 4):
        levels = np.asarray(answer(steps), dtype=float)
        found += [np.log(np.maximum(levels[:-1], 1e-9)), 100 * levels[-1:]]  # the last is 0
    return np.concatenate(found)


EXERCISES = {
    1: Exercise(
        answer=39,
        explanation="Two calls in each of 19 steps, and one in the last, to σ = 0.",
        mistakes=(
            (40, "the last step goes to σ = 0 and needs only its first call."),
            (20, "that is one call a step; Heun's method corrects each step with a second."),
            (38, "the last step still has its first call."),
            (19, "count two calls in each step but the last."),
            (21, "all steps but the last have two calls, not only one of them."),
            (41, "the first step has no call more than the others; the last has one less."),
        ),
        hint="two calls a step, and the last step has one.",
        tolerance=1e-6,
    ),
    2: Exercise(
        answer=1 / 1601,
        explanation="ᾱ = 1 / (1 + 40²), less than a thousandth.",
        mistakes=(
            (1 / 40, "that is 1/σ, close to √ᾱ, the factor of the signal; square it."),
            (1600 / 1601, "that is the noise's share, 1 − ᾱ."),
            (1601.0, "that is 1 / ᾱ."),
            (0.01, "it is less than a percent: ᾱ = 1 / (1 + σ²)."),
            (0.001, "it is less than a thousandth: ᾱ = 1 / (1 + σ²)."),
        ),
        hint="ᾱ = 1 / (1 + σ²).",
        tolerance=0.05,
    ),
    3: Exercise(
        answer=10,
        explanation="In one dimension d² = (m₁ − m₂)² + (s₁ − s₂)² = 3² + 1².",
        mistakes=(
            (9, "the means are right; the widths differ too."),
            (10**0.5, "that is d; its square is asked."),
            (4, "both differences are squared before they are added."),
            (1, "that is the part of the widths; the means differ too."),
            (18, "C is a variance: C₁ + C₂ − 2 √(C₁ C₂) = 1 + 4 − 2 · 2."),
            (14, "the last term, −2 √(C₁ C₂), is missing."),
            (13, "the widths differ by 2 − 1."),
        ),
        hint="in one dimension the trace is (s₁ − s₂)².",
    ),
    4: Exercise(
        answer=3,
        explanation="d² is a squared distance: √(9 / 1).",
        mistakes=(
            (9, "that is the ratio of the squares; the distance is d."),
            (8, "that is the excess of d² over the floor."),
            (81, "the root, not the square."),
            (8**0.5, "that is the root of the excess; take the ratio."),
            (1 / 3, "that is the other way round: the drawn ones lie farther away."),
            (4.5, "halving isn't taking the root."),
        ),
        hint="the card's number is d²: take the root of the ratio.",
    ),
    5: Exercise(
        answer=spaced,
        explanation="A constant ratio is a constant difference of the logarithms.",
        mistakes=(
            (spaced_evenly, "that has constant differences; the ratio must be constant."),
            (spaced_without_zero, "the final 0 is missing."),
            (spaced_one_more, "with the final 0 there are `steps + 1` levels."),
            (spaced_upwards, "a sampler goes from high noise to low."),
            (spaced_in_logs, "those are logarithms; take their exponential."),
        ),
        hint="`np.geomspace` or `torch.logspace`, and a 0 at the end.",
        probe=levels_of,
    ),
}

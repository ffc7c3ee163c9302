"""Notebook 12, ablations: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number

PARAMETERS = {
    "choice": Choice(
        "x0",
        "eps",
        "v",
        "flow",
        "l1",
        "linear",
        "cosine",
        "sigmoid",
        "lower",
        "min-snr",
        "eps-weighted",
    ),
    "live_updates": Number(0, 1_000_000, whole=True),
    "live_seeds": Number(2, 20, whole=True),
    "live_width": Number(16, 512, whole=True, multiple=16),
    "columns": Number(1, 16, whole=True),
    "level": Number(0.5, 0.999),
    "seed": SEED,
}


def paired(one: list[float], other: list[float]) -> tuple[float, float]:
    """Mean and standard error of the differences, seed by seed."""
    gap = np.subtract(one, other)
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap)))


def paired_std(one: list[float], other: list[float]) -> tuple[float, float]:
    """The standard deviation of the differences, not of their mean."""
    gap = np.subtract(one, other)
    return float(gap.mean()), float(gap.std(ddof=1))


def paired_n(one: list[float], other: list[float]) -> tuple[float, float]:
    """With n in the denominator of the variance."""
    gap = np.subtract(one, other)
    return float(gap.mean()), float(gap.std() / np.sqrt(len(gap)))


def unpaired(one: list[float], other: list[float]) -> tuple[float, float]:
    """As if the two lists had nothing to do with each other."""
    error = np.sqrt(np.var(one, ddof=1) / len(one) + np.var(other, ddof=1) / len(other))
    return float(np.mean(one) - np.mean(other)), float(error)


def paired_backwards(one: list[float], other: list[float]) -> tuple[float, float]:
    """The second less the first."""
    return paired(other, one)


def paired_by_n(one: list[float], other: list[float]) -> tuple[float, float]:
    """Divided by n instead of its root."""
    gap = np.subtract(one, other)
    return float(gap.mean()), float(gap.std(ddof=1) / len(gap))


def compared(answer: object) -> list[float]:
    """What is made of two pairs of lists of scores."""
    pairs = (
        ([9.0, 14.0, 8.0, 12.0], [10.0, 17.0, 12.0, 12.5]),
        ([11.0, 8.5, 13.0], [10.0, 9.0, 9.5]),
    )
    return [float(part) for one, other in pairs for part in answer(one, other)]


EXERCISES = {
    1: Exercise(
        answer=1.7320508,
        explanation="Their standard deviation is 3 (n - 1 below the root), over √3.",
        mistakes=(
            (3.0, "that is the standard deviation of one difference; the mean of three has less."),
            (1.4142136, "the variance of a sample has n - 1 in its denominator."),
            (1.0, "divide by the root of the number of seeds, not by the number."),
            (2.4494897, "that is the deviation with n in its denominator, and not over √n yet."),
            (9.0, "that is the variance of the differences."),
            (5.0, "that is the mean, without its sign."),
            (-5.0, "that is the mean; the question is for its error."),
        ),
        hint="the standard deviation, with n - 1, over the root of n.",
    ),
    2: Exercise(
        answer="undecided",
        explanation="4.303 · 1.73 = 7.45 is more than the mean of -5 is away from 0.",
        mistakes=(
            ("lower", "all three are below 0, but the interval reaches 7.45 to each side of -5."),
            ("higher", "the mean is -5; and how far does the interval reach?"),
            ("equal", "an interval that holds 0 also holds -10: nothing says that they are equal."),
            ("significant", "one of the three words; compare 4.303 standard errors with 5."),
            ("better", "one of the three words; compare 4.303 standard errors with 5."),
            (7.4526, "that is how far it reaches; now the word, in quotes."),
        ),
        hint='"lower" if the whole interval is below 0, "higher" above, else "undecided".',
    ),
    3: Exercise(
        answer=1 - 0.95**20,
        explanation="1 - 0.95²⁰: none stands out with probability 0.95 each, 0.36 together.",
        mistakes=(
            (0.05, "that is the probability for one; there are twenty."),
            (1.0, "that is how many stand out on average; the probability that any does is less."),
            (0.95**20, "that is the probability that none does."),
            (0.95, "that is the probability that one given choice does not stand out."),
            (0.05**20, "that is the probability that all of them do."),
            (64.15, "that is in per cent; a number from 0 to 1 is asked for."),
            (20 * 0.05 * 0.95**19, "that is the probability of exactly one; at least one is more."),
        ),
        hint="one less the probability that none of them stands out.",
    ),
    4: Exercise(
        answer=paired,
        explanation="Differences first, then mean and standard deviation over √n.",
        mistakes=(
            (paired_std, "that is the deviation of one difference; divide by the root of n."),
            (paired_n, "the variance of a sample has n - 1 in its denominator (ddof=1)."),
            (unpaired, "take the differences first: what both share by seed then drops out."),
            (paired_backwards, "the first less the second, not the other way round."),
            (paired_by_n, "divide by the root of n, not by n."),
        ),
        hint="np.subtract(one, other), then its mean and its std(ddof=1) / sqrt(n).",
        probe=compared,
    ),
}

"""Notebook 07, the classifier: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number, Place, Text

PARAMETERS = {
    "checkpoint": Place(),
    "data_folder": Place(),
    "steps": Number(0, 1_000_000, whole=True),
    "head": Choice("attention", "plain"),
    "test_images": Number(0, 100_000, whole=True),
    "experiment_images": Number(0, 100_000, whole=True),
    "seed": SEED,
    "backbone_name": Text(),
    "size": Number(32, 1024, whole=True),
}


# ---- 07.3, the area under the ROC ----------------------------------------------------------------


def area(scores: np.ndarray, member: np.ndarray) -> float:
    """The share of pairs of a member and another in which the member has the higher score."""
    return float((scores[member][:, None] > scores[~member][None]).mean())


def area_means(scores: np.ndarray, member: np.ndarray) -> float:
    """How far the mean score of members lies above that of others."""
    return float(scores[member].mean() - scores[~member].mean())


def area_others_first(scores: np.ndarray, member: np.ndarray) -> float:
    """The share of pairs in which the other has the higher score."""
    return float((scores[~member][:, None] > scores[member][None]).mean())


def area_accuracy(scores: np.ndarray, member: np.ndarray) -> float:
    """The accuracy at the threshold 0.5."""
    return float(((scores > 0.5) == member).mean())


def area_hits(scores: np.ndarray, member: np.ndarray) -> float:
    """The true positive rate at the threshold 0.5."""
    return float((scores[member] > 0.5).mean())


def area_all_pairs(scores: np.ndarray, member: np.ndarray) -> float:
    """Members against all, themselves among them."""
    return float((scores[member][:, None] > scores[None]).mean())


def area_sum(scores: np.ndarray, member: np.ndarray) -> float:
    """The number of pairs, not their share."""
    return float((scores[member][:, None] > scores[~member][None]).sum())


def ranked(answer: object) -> list[float]:
    """Areas of 80 scores and of 50, of which two fifths belong to the class; the latter bad."""
    rng = np.random.default_rng(3)
    found = []
    for n, better in ((80, 0.3), (50, -0.4)):
        member = rng.random(n) < 0.4
        found.append(float(answer(rng.random(n) + better * member, member)))
    return found


# ---- 07.4, signal-to-noise -----------------------------------------------------------------------


def snr(difference: np.ndarray, sigma: np.ndarray) -> float:
    """The root of the sum over pixels of (difference / sigma)^2."""
    return float(np.sqrt((difference**2 / sigma**2).sum()))


def snr_squared(difference: np.ndarray, sigma: np.ndarray) -> float:
    """Without the root."""
    return float((difference**2 / sigma**2).sum())


def snr_absolute(difference: np.ndarray, sigma: np.ndarray) -> float:
    """The ratios added, not their squares."""
    return float(np.abs(difference / sigma).sum())


def snr_mean(difference: np.ndarray, sigma: np.ndarray) -> float:
    """The mean square ratio's root."""
    return float(np.sqrt((difference**2 / sigma**2).mean()))


def snr_signed(difference: np.ndarray, sigma: np.ndarray) -> float:
    """The sum of the signed ratios, in which red and blue cancel."""
    return float((difference / sigma).sum())


def snr_total(difference: np.ndarray, sigma: np.ndarray) -> float:
    """The norm of the difference over that of the noise."""
    return float(np.sqrt((difference**2).sum() / (sigma**2).sum()))


def snr_one_sigma(difference: np.ndarray, sigma: np.ndarray) -> float:
    """Divided by sigma, not by its square."""
    return float(np.sqrt((difference**2 / sigma).sum()))


def seen(answer: object) -> list[float]:
    """The ratios of a difference of 5 x 5 pixels and of one of 3 x 8."""
    rng = np.random.default_rng(4)
    shapes = ((5, 5), (3, 8))
    return [float(answer(rng.standard_normal(s), 0.5 + rng.random(s))) for s in shapes]


EXERCISES = {
    1: Exercise(
        answer=10,
        explanation="A hundred times the images, a tenth of the width: it goes as 1 over √n.",
        mistakes=(
            (100, "that is the ratio of the numbers of images; the width goes as one over √n."),
            (1, "the shares are equal, the numbers of trials are not."),
            (0.1, "the first has fewer images: its interval is the wider one."),
            (1000, "the width goes as one over the root of n, not as n to the power 3/2."),
            (2, "the width isn't logarithmic in n: it goes as one over √n."),
            (94, "the share is the same for both; only n matters."),
        ),
        hint="the width of the interval of a share goes as one over the root of n.",
        tolerance=0.05,
    ),
    2: Exercise(
        answer=1 / 3,
        explanation="exp(−1.0986) = 1/3: no better than a guess among three classes.",
        mistakes=(
            (1.0986, "that is the cross-entropy; the chance is exp of minus it."),
            (0.5, "exp(−1.0986) is less; how many classes are there?"),
            (3.0, "a chance is at most 1: mind the sign in exp(−1.0986)."),
            (2 / 3, "that is what is left for the other two classes."),
            (0.0, "then the cross-entropy would be infinite."),
            (1.0, "then the cross-entropy would be 0."),
            (100 / 3, "that is in per cent; a number from 0 to 1 is asked for."),
        ),
        hint="exp(−cross-entropy) of an image is the chance that was given to its class.",
    ),
    3: Exercise(
        answer=area,
        explanation="Each member against each other: the share of pairs in the right order.",
        mistakes=(
            (area_means, "means forget the order; compare every member with every other."),
            (area_others_first, "the member shall be ranked first, not the other."),
            (area_accuracy, "that is an accuracy at one threshold; an area has none."),
            (area_hits, "that is a point of the ROC, at one threshold."),
            (area_all_pairs, "compare members with the others only: `scores[~member]`."),
            (area_sum, "take the mean over pairs, so that it lies between 0 and 1."),
        ),
        hint="compare every member with every other, and take the mean.",
        probe=ranked,
    ),
    4: Exercise(
        answer=snr,
        explanation="Each pixel adds the square of its own ratio; the root of the sum.",
        mistakes=(
            (snr_squared, "that is its square: take the root."),
            (snr_absolute, "independent pixels add in squares."),
            (snr_mean, "more pixels say more: a sum, not a mean."),
            (snr_signed, "red and blue cancel: square before you add."),
            (snr_total, "each pixel has its own noise: divide before you add."),
            (snr_one_sigma, "the variance is `sigma ** 2`."),
        ),
        hint="square each pixel's ratio, sum, take the root.",
        probe=seen,
    ),
}

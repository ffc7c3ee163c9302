"""Notebook 05, distances between sets of images: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number, Place

PARAMETERS = {
    "checkpoint": Place(),
    "data_folder": Place(),
    "extractor_name": Choice("efficientnet", "inception"),
    "card_images": Number(0, 2048, whole=True, least=16),
    "corrupted_images": Number(0, 2048, whole=True, least=8),
    "most_images": Number(0, 2048, whole=True, least=16),
    "folder_minutes": Number(0, 10_000),
    "inception_weights": Place(),
    "seed": SEED,
}


def moved(x: np.ndarray, m1: float, s1: float, m2: float, s2: float) -> np.ndarray:
    """Where the cheapest plan takes the point x of the first Gaussian."""
    return m2 + (x - m1) * s2 / s1


def moved_shift(x: np.ndarray, m1: float, s1: float, m2: float, s2: float) -> np.ndarray:
    """The means alone."""
    return x + m2 - m1


def moved_mirror(x: np.ndarray, m1: float, s1: float, m2: float, s2: float) -> np.ndarray:
    """The right cloud, in the wrong order."""
    return m2 - (x - m1) * s2 / s1


def moved_inverse(x: np.ndarray, m1: float, s1: float, m2: float, s2: float) -> np.ndarray:
    """The inverse ratio of the standard deviations."""
    return m2 + (x - m1) * s1 / s2


def moved_variances(x: np.ndarray, m1: float, s1: float, m2: float, s2: float) -> np.ndarray:
    """The ratio of variances."""
    return m2 + (x - m1) * s2**2 / s1**2


def moved_not_centred(x: np.ndarray, m1: float, s1: float, m2: float, s2: float) -> np.ndarray:
    """Scaled about zero."""
    return m2 - m1 + x * s2 / s1


def frechet_1d(a: np.ndarray, b: np.ndarray) -> float:
    """The squared distance of two samples of one feature."""
    return float((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2)


def excess(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """Distance of the generated from the reference, less that of others."""

    def far(x: np.ndarray) -> float:
        apart = (x.mean() - reference.mean(), x.std(ddof=1) - reference.std(ddof=1))
        return float(apart[0] ** 2 + apart[1] ** 2)

    return far(generated) - far(other)


def excess_only_distance(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """The distance itself."""
    return frechet_1d(generated, reference)


def excess_ratio(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """The ratio to the floor."""
    return frechet_1d(generated, reference) / frechet_1d(other, reference)


def excess_floor(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """The floor alone."""
    return frechet_1d(other, reference)


def excess_backwards(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """The floor less the distance."""
    return -excess(generated, other, reference)


def excess_between(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """A distance from the images of the floor."""
    return frechet_1d(generated, other) - frechet_1d(other, reference)


def excess_of_roots(generated: np.ndarray, other: np.ndarray, reference: np.ndarray) -> float:
    """The difference of the roots."""
    return frechet_1d(generated, reference) ** 0.5 - frechet_1d(other, reference) ** 0.5


def places(answer: object) -> np.ndarray:
    """Where an answer takes some points, for two pairs of Gaussians."""
    x = np.array([-1.0, 0.0, 1.0, 2.5])
    pairs = ((1.0, 0.5, -2.0, 1.5), (-1.5, 2.0, 0.7, 0.6))
    return np.array([answer(x.copy(), *pair) for pair in pairs], float)


def excesses(answer: object) -> list[float]:
    """The excess of some made numbers, above the floor and below it."""
    rng = np.random.default_rng(2)
    made = []
    for drawn, other in (((1, 2, 60), (0.3, 1.6, 90)), ((0.1, 1.1, 50), (1, 2, 40))):
        reference = rng.normal(0, 1, 120)
        made.append(float(answer(rng.normal(*drawn), rng.normal(*other), reference)))
    return made


EXERCISES = {
    1: Exercise(
        answer=5,
        explanation="1 + (1 - 3)² = 5: in one dimension the second term is (s₁ - s₂)².",
        mistakes=(
            (10, "the deviations differ by 3 - 1, not by 3."),
            (3, "square the difference of the standard deviations."),
            (4, "that is what the deviations cost; the means differ, too."),
            (1, "that is what the means cost; the standard deviations differ, too."),
            (65, "those are variances: take their roots before you subtract."),
            (11, "s₁² + s₂² needs its third term, -2 s₁ s₂."),
            (5**0.5, "the quantity is d², without a root."),
        ),
        hint="(m₁ - m₂)² + (s₁ - s₂)².",
    ),
    2: Exercise(
        answer=4,
        explanation="b = 3 · 1,024, so d∞ = 7 - 3 = 4.",
        mistakes=(
            (3.5, "d doesn't halve; only its part b / N does."),
            (0, "infinitely many images take the bias away, not the distance."),
            (7, "at 1,024 images some bias is left: b / 1,024."),
            (3, "that is b / 1,024; take it away from 7."),
            (8.5, "a mean of the two is no extrapolation: solve for d∞ and b."),
            (6, "that is b / 512; d∞ is what is left of 10."),
            (5.5, "the bias falls as 1 / N, not by a step each time N grows."),
        ),
        hint="d∞ + b/512 = 10 and d∞ + b/1024 = 7.",
    ),
    3: Exercise(
        answer=moved,
        explanation="As many standard deviations from one mean as from the other.",
        mistakes=(
            (moved_shift, "the means are right; the standard deviation must change, too."),
            (moved_mirror, "that gives the right cloud at a higher price: keep the order."),
            (moved_inverse, "the ratio of the standard deviations is upside down."),
            (moved_variances, "lengths go with standard deviations, not with variances."),
            (moved_not_centred, "subtract the first mean before you scale."),
        ),
        hint="so many standard deviations from one mean, as many from the other.",
        probe=places,
    ),
    4: Exercise(
        answer=excess,
        explanation="Both distances are from the same reference, and have the same bias.",
        mistakes=(
            (excess_only_distance, "that distance has the bias of the number of images in it."),
            (excess_ratio, "a ratio depends on the number of images; take the difference."),
            (excess_floor, "that is the floor; what do drawn images have above it?"),
            (excess_backwards, "the drawn images' distance comes first."),
            (excess_between, "both distances must be from the same `reference`."),
            (excess_of_roots, "the quantity is d²; subtract without taking roots."),
        ),
        hint="d² of generated from reference, less d² of other from reference.",
        probe=excesses,
    ),
    5: Exercise(
        answer=299,
        explanation="(1 - 0.01)ⁿ < 0.05 from n = 299 on: three over the share, roughly.",
        mistakes=(
            (100, "with 100 images a share of one in a hundred is missed in 37 % of the cases."),
            (64, "64 images only exclude shares above 4.6 %."),
            (5, "0.05 is the chance to be wrong, not the share of copies."),
            (300, "nearly: the rule of three rounds up; one image less is enough."),
            (298, "one more: at 298 the chance is still just above 5 %."),
            (459, "that is for a level of 99 %."),
            (1, "one image says nothing of a share of one in a hundred."),
        ),
        hint="the chance to find none among n is (1 - share)ⁿ; it must be below 0.05.",
        tolerance=1e-6,
    ),
}

"""Notebook 01, the forward process: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number

PARAMETERS = {
    "seed": SEED,
    "pixels": Number(32, 256, whole=True),
    "schedule_name": Choice("linear", "cosine", "sigmoid"),
    "T": Number(100, 100_000, whole=True),
    "chain_T": Number(21, 2_000, whole=True),
    "chains": Number(0, 100_000, whole=True, least=2),
    "toy_steps": Number(50, 10_000, whole=True),
}


def jump(x, sigma, target, eps):
    """From noise level sigma to the higher level target."""
    return x + (target**2 - sigma**2) ** 0.5 * eps


def jump_by_difference(x, sigma, target, eps):
    """Standard deviations subtracted."""
    return x + (target - sigma) * eps


def jump_from_clean(x, sigma, target, eps):
    """As if x had no noise yet."""
    return x + target * eps


def jump_by_variance(x, sigma, target, eps):
    """The missing variance, without its root."""
    return x + (target**2 - sigma**2) * eps


def jump_shrinking(x, sigma, target, eps):
    """The textbook's step, which shrinks the image too."""
    return ((1 + sigma**2) / (1 + target**2)) ** 0.5 * x + (target**2 - sigma**2) ** 0.5 * eps


def jump_by_sum(x, sigma, target, eps):
    """Variances of both levels added."""
    return x + (target**2 + sigma**2) ** 0.5 * eps


def lens_equation(theta, einstein):
    """The source's position behind a round isothermal lens."""
    return theta - einstein * theta / np.hypot(*theta)


def lens_with_a_constant(theta, einstein):
    """The same number taken from both components."""
    return theta - einstein


def lens_with_plus(theta, einstein):
    """The deflection added."""
    return theta + einstein * theta / np.hypot(*theta)


def lens_by_point(theta, einstein):
    """The deflection of a point mass."""
    return theta - einstein**2 * theta / np.hypot(*theta) ** 2


def lens_without_direction(theta, einstein):
    """A deflection that grows with the angle."""
    return theta - einstein * theta


def lens_deflection(theta, einstein):
    """The deflection alone."""
    return einstein * theta / np.hypot(*theta)


def jumped(answer: object) -> np.ndarray:
    """What jumps from 0.5 to 1.3, and from 1 to 2, make of five numbers."""
    x = np.array([3.0, -1.0, 0.0, 2.0, 0.5])
    eps = np.array([1.0, -0.5, 2.0, 0.0, 0.3])
    return np.array([answer(x.copy(), *pair, eps.copy()) for pair in ((0.5, 1.3), (1.0, 2.0))])


def traced(answer: object) -> np.ndarray:
    """Where three rays come from, each with an Einstein radius of its own."""
    rays = np.array([[2.0, 0.0], [0.0, -0.5], [-0.6, 0.8]])
    return np.array([answer(*pair) for pair in zip(rays, (1.5, 1.0, 0.7), strict=True)])


EXERCISES = {
    1: Exercise(
        answer=-0.11,
        explanation="Noise hides all, so the mean of the data is left: "
        "0.3 · (−1.2) + 0.5 · 0.1 + 0.2 · 1.0.",
        mistakes=(
            (0.0, "that is the mean of the noise; what is the mean of the data?"),
            (-0.1 / 3, "the three parts aren't equally probable: weigh each centre with its π."),
            (0.1, "that is the most probable part; a mean takes all three."),
            (0.11, "the sum of the three terms is negative."),
            (-0.36, "that is the first part's term alone; add the other two."),
            (0.61, "the first centre is negative."),
        ),
        hint="at large σ all weights w are nearly the shares π, and s²/(s² + σ²) is nearly 0.",
        tolerance=0.08,
    ),
    2: Exercise(
        answer=0.13218,
        explanation="The last entry of `process.alpha_bar('linear', 200, rescale=False)`.",
        mistakes=(
            (0.3633, "that is the square root, the factor of the signal; its variance is asked."),
            (4.0e-5, "that is for 1,000 steps."),
            (3.03e-5, "that is with β rescaled by 1000/T; leave it unchanged."),
            (0.02, "that is the last β, the variance added in one step."),
            (0.868, "that is the noise's share; the signal has the rest."),
            (13.2, "that is in per cent; a number from 0 to 1 is asked for."),
            (2.564, "that is σ at the end; ᾱ = 1 / (1 + σ²)."),
        ),
        hint="multiply 1 − β over all 200 steps; `unchanged` has the products.",
        tolerance=0.01,
    ),
    3: Exercise(
        answer=(0.5, 0.8),
        explanation="Noise has variance σ², data have ¼, so σ = ½, and ᾱ = 1 / (1 + ¼).",
        mistakes=(
            ((1.0, 0.5), "there SNR = 1, as if data had variance 1; ours have a quarter."),
            ((0.5, 0.5), "σ is right; ᾱ = 1 / (1 + σ²)."),
            ((0.25, 0.8), "the variances are equal, so σ is the root of a quarter; ᾱ is right."),
            ((0.5, 0.2), "σ is right; that is the noise's share 1 − ᾱ."),
            ((0.25, 16 / 17), "that takes σ for the data's variance; σ² is the noise's."),
            ((2.0, 0.2), "that is where the noise has sixteen times the data's variance."),
            ((0.8, 0.5), "the order is (σ, ᾱ)."),
        ),
        hint="noise has variance σ²; data have variance ¼; ᾱ = 1 / (1 + σ²).",
    ),
    4: Exercise(
        answer=jump,
        explanation="Variances add, so what is missing is target² − sigma².",
        mistakes=(
            (jump_by_difference, "variances add, standard deviations don't."),
            (jump_from_clean, "x has noise of level sigma already; only the rest is missing."),
            (jump_by_variance, "that is the missing variance; noise is multiplied by its root."),
            (jump_shrinking, "in our variables nothing shrinks: x keeps its factor 1."),
            (jump_by_sum, "the new level's variance is the sum of the old one's and the added."),
        ),
        hint="how much variance is missing between sigma² and target²?",
        probe=jumped,
    ),
    5: Exercise(
        answer=lens_equation,
        explanation="θ − θ_E θ/|θ|: on the Einstein ring the source is right behind the lens.",
        mistakes=(
            (lens_with_a_constant, "the deflection is a vector: it points along θ."),
            (lens_with_plus, "the source is at θ minus the deflection."),
            (lens_by_point, "that is a point mass; an isothermal lens deflects by θ_E everywhere."),
            (lens_without_direction, "the deflection's size is θ_E; divide θ by its length."),
            (lens_deflection, "that is the deflection; the lens equation subtracts it from θ."),
        ),
        hint="β = θ − θ_E θ/|θ|, with `np.hypot` for the length.",
        probe=traced,
    ),
}

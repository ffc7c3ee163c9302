"""Notebook 06, lenses on request: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Choice, Number, Place

PARAMETERS = {
    "data_folder": Place(),
    "steps": Number(0, 1_000_000, whole=True),
    "guidance": Number(0, 20),
    "images": Number(0, 100_000, whole=True),
    "fits": Number(0, 100_000, whole=True),
    "seed": SEED,
    "checkpoint": Place(),
    "numbers_checkpoint": Place(),
    "judge_checkpoint": Place(),
    "symmetries": Choice(1, 2, 8),
}


def guided(null: np.ndarray, given: np.ndarray, w: float) -> np.ndarray:
    """The guess without a label, and w times the way to the one with it."""
    return null + w * (given - null)


def guided_from_given(null: np.ndarray, given: np.ndarray, w: float) -> np.ndarray:
    """Ho and Salimans's w, which counts from the conditional model."""
    return given + w * (given - null)


def guided_scaled(null: np.ndarray, given: np.ndarray, w: float) -> np.ndarray:
    """The conditional guess times w."""
    return w * given


def guided_backwards(null: np.ndarray, given: np.ndarray, w: float) -> np.ndarray:
    """Away from the class."""
    return null - w * (given - null)


def guided_swapped(null: np.ndarray, given: np.ndarray, w: float) -> np.ndarray:
    """The two guesses exchanged."""
    return w * null + (1 - w) * given


def guided_difference(null: np.ndarray, given: np.ndarray, w: float) -> np.ndarray:
    """The difference alone."""
    return w * (given - null)


def mirrored(values: np.ndarray) -> np.ndarray:
    """The values (7,) of the lens whose image is mirrored, x to -x."""
    return values * np.array([1, 1, -1, -1, 1, 1, -1])


def mirrored_source(values: np.ndarray) -> np.ndarray:
    """Only the source."""
    return values * np.array([1, 1, 1, -1, 1, 1, 1])


def mirrored_all(values: np.ndarray) -> np.ndarray:
    """All signs but the radius's."""
    return values * np.array([1, -1, -1, -1, -1, -1, -1])


def mirrored_upside_down(values: np.ndarray) -> np.ndarray:
    """y to -y."""
    return values * np.array([1, 1, -1, 1, -1, 1, -1])


def mirrored_first(values: np.ndarray) -> np.ndarray:
    """The first components of ellipticity and shear."""
    return values * np.array([1, -1, 1, -1, 1, -1, 1])


def mirrored_no_shear(values: np.ndarray) -> np.ndarray:
    """The shear forgotten."""
    return values * np.array([1, 1, -1, -1, 1, 1, 1])


def ring(b: float, s: float) -> float:
    """The positive root of theta^2 - b theta - s^2 = 0."""
    return (b + (b**2 + 4 * s**2) ** 0.5) / 2


def ring_sum(b: float, s: float) -> float:
    """The radii added."""
    return b + s


def ring_squares(b: float, s: float) -> float:
    """The squares of the radii added."""
    return (b**2 + s**2) ** 0.5


def ring_first_order(b: float, s: float) -> float:
    """The first term of the expansion in s."""
    return b + s**2 / b


def ring_other_root(b: float, s: float) -> float:
    """The negative root."""
    return (b - (b**2 + 4 * s**2) ** 0.5) / 2


def ring_without_four(b: float, s: float) -> float:
    """The 4 of the discriminant forgotten."""
    return (b + (b**2 + s**2) ** 0.5) / 2


def made_of_guesses(answer: object) -> np.ndarray:
    """What a rule of guidance makes of two guesses, at three scales."""
    rng = np.random.default_rng(1)
    null = rng.normal(size=5)
    given = rng.normal(size=5)
    scales = (0.0, 1.0, 3.5)
    return np.stack([np.asarray(answer(null.copy(), given.copy(), w), float) for w in scales])


def made_of_values(answer: object) -> np.ndarray:
    """What a mirror makes of seven values, and of the same with other signs."""
    values = np.random.default_rng(2).normal(size=7)
    return np.array([answer(values.copy()), answer(-values)], float)


def rings(answer: object) -> np.ndarray:
    """The rings of four pairs of lens and string."""
    pairs = ((1.0, 0.0), (1.3, 0.3), (0.5, 1.0), (2.0, 0.7))
    return np.array([float(answer(b, s)) for b, s in pairs])


EXERCISES = {
    1: Exercise(
        answer=40,
        explanation="Each step needs the guess with the label and the one without.",
        mistakes=(
            (20, "that is without guidance: a guided step needs two guesses."),
            (60, "the scale doesn't count: it multiplies a difference that is there already."),
            (80, "DPM-Solver++(2M) keeps the last guess and calls the denoiser once a step."),
            (21, "the unconditional guess is needed at every step, not once."),
            (41, "20 steps have 20 guesses of each kind; there is no further one at the end."),
            (120, "neither the scale nor the order of the solver multiplies the calls."),
        ),
        hint="how many denoisers are called in a step, and how many steps are there?",
        tolerance=1e-6,
    ),
    2: Exercise(
        answer=guided,
        explanation="A straight line in w through `null` at 0 and `given` at 1.",
        mistakes=(
            (guided_from_given, "at w = 1 it must be `given`; your w counts from there."),
            (guided_scaled, "at w = 0 it must be `null`; yours is 0."),
            (guided_backwards, "that leads away from the class: the sign is wrong."),
            (guided_swapped, "the two guesses are exchanged: at w = 1 it must be `given`."),
            (guided_difference, "that is the way from `null`; where does it start?"),
        ),
        hint="it is `null` at w = 0, `given` at w = 1, and a straight line in w.",
        probe=made_of_guesses,
    ),
    3: Exercise(
        answer=mirrored,
        explanation="x changes its sign, and so do e₂ and γ₂, which go with sin 2φ.",
        mistakes=(
            (mirrored_source, "the source is right; ellipticity and shear are mirrored, too."),
            (mirrored_all, "a mirror leaves y as it is, and cos 2φ, so e₁ and γ₁."),
            (mirrored_upside_down, "that is the mirror of y; here x changes its sign."),
            (mirrored_first, "e₁ goes with cos 2φ, which a mirror leaves; e₂ with sin 2φ."),
            (mirrored_no_shear, "shear has spin 2 as ellipticity has."),
            (np.negative, "a radius can't become negative, and y stays."),
        ),
        hint="which of cos φ, sin φ, cos 2φ, sin 2φ change their sign for φ to π − φ?",
        probe=made_of_values,
    ),
    4: Exercise(
        answer=ring,
        explanation="θ² − bθ − s² = 0 has one positive root; for small s it is b + s²/b.",
        mistakes=(
            (ring_sum, "put it into θ = b + s²/θ: radii don't add."),
            (ring_squares, "that would be two point masses, whose squares add; here one is not."),
            (ring_first_order, "right for small s; solve the quadratic equation for all."),
            (ring_other_root, "a radius is positive: take the other root."),
            (ring_without_four, "the discriminant of θ² − bθ − s² is b² + 4 s²."),
        ),
        hint="multiply by θ: it is a quadratic equation.",
        probe=rings,
    ),
    5: Exercise(
        answer=0.64,
        explanation="p(x) p(y|x)^w against p(x) p(y|x): the factor is 0.8 to the power w − 1 = 2.",
        mistakes=(
            (0.8, "that is w = 2; each unit of w is one more factor."),
            (0.512, "that is against w = 0; compare with the conditional density, w = 1."),
            (0.2, "the other class isn't subtracted: p(y|x) is raised to a power."),
            (1.5625, "that is the ratio upside down: divide w = 3 by w = 1."),
            (2.4, "w is an exponent here; it multiplies only the logarithm."),
        ),
        hint="write the ratio of the two densities at w = 3 and at w = 1.",
    ),
}

"""Notebook 13, the physics of generated lenses: its parameters and exercises."""

from __future__ import annotations

import numpy as np

from ..exercises import Exercise
from ..rules import SEED, Number, Place

PARAMETERS = {
    "checkpoint": Place(),
    "compared": Place(),
    "data_folder": Place(),
    "pixel_arcsec": Number(0, 10),
    "test_images": Number(0, 5_000, whole=True, least=32),
    "drawn_images": Number(0, 2_048, whole=True, least=16),
    "fit_rounds": Number(0, 200, whole=True),
    "seed": SEED,
}


def opposite(bright: np.ndarray) -> np.ndarray:
    """Index of the ray opposite to the brightest of each image's rays (n, 72)."""
    return (bright.argmax(1) + 36) % 72


def opposite_no_wrap(bright: np.ndarray) -> np.ndarray:
    """Without the turn beyond the last ray."""
    return bright.argmax(1) + 36


def opposite_faintest(bright: np.ndarray) -> np.ndarray:
    """The faintest ray."""
    return bright.argmin(1)


def opposite_brightest(bright: np.ndarray) -> np.ndarray:
    """The brightest ray itself."""
    return bright.argmax(1)


def opposite_degrees(bright: np.ndarray) -> np.ndarray:
    """180 rays on, as if each were a degree."""
    return (bright.argmax(1) + 180) % 360


def opposite_mirror(bright: np.ndarray) -> np.ndarray:
    """Mirrored in an axis."""
    return (72 - bright.argmax(1)) % 72


def opposite_quarter(bright: np.ndarray) -> np.ndarray:
    """A quarter turn on."""
    return (bright.argmax(1) + 18) % 72


def axis_ratio(e: np.ndarray) -> np.ndarray:
    """q of an ellipticity (1 - q) / (1 + q)."""
    return (1 - e) / (1 + e)


def ratio_of_one_minus(e: np.ndarray) -> np.ndarray:
    """As if e were 1 - q."""
    return 1 - e


def ratio_upside_down(e: np.ndarray) -> np.ndarray:
    """The inverse."""
    return (1 + e) / (1 - e)


def ratio_of_squares(e: np.ndarray) -> np.ndarray:
    """As if e were (1 - q^2) / (1 + q^2)."""
    return np.sqrt((1 - e) / (1 + e))


def ratio_of_eccentricity(e: np.ndarray) -> np.ndarray:
    """As if e were an orbit's eccentricity."""
    return np.sqrt(1 - e**2)


def ratio_itself(e: np.ndarray) -> np.ndarray:
    """The ellipticity itself."""
    return e


def rays_of(answer: object) -> np.ndarray:
    """The rays an answer finds in six made images, some next to half a turn."""
    bright = np.random.default_rng(0).random((6, 72))
    bright[np.arange(6), [3, 35, 36, 37, 55, 70]] = 2
    return np.asarray(answer(bright), float)


def ratios_of(answer: object) -> np.ndarray:
    """The axis ratios an answer finds."""
    return np.asarray(answer(np.array([0.0, 0.1, 0.3, 0.6])), float)


EXERCISES = {
    1: Exercise(
        answer=2.4,
        explanation="θ_E + s and θ_E - s, on opposite sides: 1.5 + 0.9 = 2 θ_E for every s.",
        mistakes=(
            (1.2, "that is the Einstein radius: the images lie on opposite sides of the lens."),
            (1.5, "that is where the brighter image is; where is the other, on the other side?"),
            (0.9, "that is where the fainter image is, on the other side of the brighter one."),
            (0.6, "the images lie on opposite sides: add their distances from the lens."),
            (3.0, "the fainter image is nearer to the lens than the brighter one."),
            (1.8, "the brighter image is farther from the lens than the fainter one."),
        ),
        hint="the ridge crosses the line through lens and source at θ_E + s and at θ_E - s.",
    ),
    2: Exercise(
        answer=3.2367,
        explanation="0.11 / √(0.12 · 0.88 / 100 + 0.01 · 0.99 / 100): both rates scatter.",
        mistakes=(
            (3.385, "the simulated rate has an error, too: add both variances."),
            (0.11, "that is the difference; divide it by its standard error."),
            (0.034, "that is the standard error; how often does it go into the difference?"),
            (3.693, "the difference is 0.11, and the simulated rate has an error, too."),
            (3.531, "that is the generated rate over the error; take the difference."),
            (0.3236, "a rate from 100 images has the variance p (1 - p) / 100."),
            (2.586, "errors add in squares."),
            (3.155, "that pools both rates; here each has a variance of its own."),
        ),
        hint="the variance of a rate p from n images is p (1 - p) / n, and variances add.",
        tolerance=3e-3,
    ),
    3: Exercise(
        answer=opposite,
        explanation="Half of 72 rays on, and beyond the last one it begins again.",
        mistakes=(
            (opposite_no_wrap, "beyond ray 71 comes ray 0: take the remainder."),
            (opposite_faintest, "the faintest ray needn't be opposite to the brightest."),
            (opposite_brightest, "that is the brightest ray itself; go half a turn on."),
            (opposite_degrees, "72 rays make a turn, not 360: a ray is five degrees."),
            (opposite_mirror, "that mirrors the angle; a half turn adds to it."),
            (opposite_quarter, "that is a quarter of a turn."),
        ),
        hint="argmax over the rays, half a turn added, modulo their number.",
        probe=rays_of,
    ),
    4: Exercise(
        answer=axis_ratio,
        explanation="Solve e (1 + q) = 1 - q for q.",
        mistakes=(
            (ratio_of_one_minus, "that is right for e = 1 - q, another definition."),
            (ratio_upside_down, "an axis ratio is at most 1: minor over major axis."),
            (ratio_of_squares, "that belongs to (1 - q²) / (1 + q²), yet another definition."),
            (ratio_of_eccentricity, "that belongs to an orbit's eccentricity, √(1 - q²)."),
            (ratio_itself, "a circle has e = 0, but q = 1."),
        ),
        hint="solve e = (1 - q) / (1 + q) for q.",
        probe=ratios_of,
    ),
    5: Exercise(
        answer=0.0004,
        explanation="By Parseval the mean power is the variance, and white noise has it evenly.",
        mistakes=(
            (0.02, "power goes with the square of the noise."),
            (9.0, "the power is divided by the number of pixels."),
            (0.04, "0.02 · 0.02 is smaller than that by a hundred."),
            (0, "noise has power at every frequency; only its mean is 0."),
            (0.0008, "once the variance, not twice."),
            (0.0004 / 22_500, "divided by the pixels once, as it is in the definition, not twice."),
        ),
        hint="the mean of |FFT|² / pixels over all frequencies is the variance (Parseval).",
        tolerance=1e-2,
    ),
}

"""What no lens does, by rules that count: each is held against simulated lenses as well.

A rule is a threshold on an image alone; its rate among simulated lenses is the share that it gets
wrong, and only what a model has above that is the model's.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from ..errors import MetricError
from . import measure

FAINT = 0.05  # of the peak: a counter-image is brighter
OPPOSITE = 60  # degrees either side of the direction opposite to the brightest image
CENTRAL_ARCSEC = 0.15  # a lens's own centre shows no image of a source behind it
CENTRAL_LIGHT = 0.3  # of the peak: mean light within that radius, or of the innermost pixels
JUMP_ARCSEC = 0.35  # of the ridge, from one ray to the next, 5 degrees on
LIT = 0.1  # of the peak: rays that are brighter have a ridge
MANY_PIECES = 3

WORDS = {
    "one_image": "one bright image alone",
    "three_images": "three bright images",
    "no_counter_image": "no counter-image",
    "central_light": "light in the centre",
    "broken_ridge": "spiral or spur: the ridge jumps",
    "many_pieces": "three pieces or more",
}


def opposite_light(rays: np.ndarray) -> np.ndarray:
    """Brightest light (n,) opposite to the brightest image; `rays` are (n, angles, radii).

    A source at beta behind an isothermal lens has images at theta_E + beta and, on the other side,
    theta_E - beta (notebook 13 derives it), or none where it lies outside the caustic's cut.
    """
    bright = rays.max(2)
    angles = bright.shape[1]
    away = (np.arange(angles) - bright.argmax(1)[:, None]) % angles
    half = angles // 2
    near = np.abs(away - half) <= round(OPPOSITE / 360 * angles)
    return np.where(near, bright, 0).max(1)


def largest_jump(rays: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Largest step (n,) in arcsec of the ridge between neighbouring rays that both have light."""
    ridge = radii[rays.argmax(2)]
    lit = rays.max(2) > LIT
    both = lit & np.roll(lit, -1, 1)
    return np.where(both, np.abs(np.roll(ridge, -1, 1) - ridge), 0).max(1)


def _radius(shape: tuple[int, int], pixel_arcsec: float) -> np.ndarray:
    """Distance (H, W) in arcsec of each pixel of an image (H, W) from its centre."""
    y, x = (np.arange(side) - (side - 1) / 2 for side in shape)
    return np.hypot(y[:, None], x) * pixel_arcsec


def defects(images: np.ndarray, pixel_arcsec: float) -> dict[str, np.ndarray]:
    """Whether each of images (n, 1, H, W) breaks each rule of `WORDS`, (n,) bool.

    Raises MetricError for images that can't be measured (`measure.measure`).
    """
    light, noise = measure.above_sky(images, pixel_arcsec)
    bright = measure.smooth(light, pixel_arcsec)
    rays, radii = measure.polar(bright, pixel_arcsec)
    radius = _radius(light.shape[1:], pixel_arcsec)
    central = (radius < CENTRAL_ARCSEC) | (
        radius == radius.min()
    )  # of coarse pixels none is within
    count = measure.bright_images(light, noise, pixel_arcsec)
    return {
        "one_image": count == 1,
        "three_images": count == 3,
        "no_counter_image": opposite_light(rays) < FAINT,
        "central_light": bright[:, central].mean(1) > CENTRAL_LIGHT,
        "broken_ridge": largest_jump(rays, radii) > JUMP_ARCSEC,
        "many_pieces": measure.pieces(light, noise, pixel_arcsec) >= MANY_PIECES,
    }


def rate(broken: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Share of True in (n,), and the ends of its interval (Clopper & Pearson 1934)."""
    found = binomtest(int(np.sum(broken)), len(broken))
    ends = found.proportion_ci(level, method="exact")
    return float(np.mean(broken)), float(ends.low), float(ends.high)


def interval(broken: np.ndarray) -> str:
    """`rate` of (n,) in words: the share of True, and in brackets its 95 % interval."""
    share, low, high = rate(broken)
    return f"{share:.1%} [{low:.1%}, {high:.1%}]"


def outer_light(images: np.ndarray, pixel_arcsec: float, beyond_arcsec: float = 2.5) -> np.ndarray:
    """Mean light (n,), in peaks, of images (n, 1, H, W) beyond a radius.

    Raises MetricError for images that end within it.
    """
    light, _ = measure.above_sky(images, pixel_arcsec)
    outer = _radius(light.shape[1:], pixel_arcsec) > beyond_arcsec
    if not outer.any():
        height, width = light.shape[1:]
        reason = (
            f"{width} x {height} pixels of {pixel_arcsec:g} arcsec end within {beyond_arcsec:g}"
        )
        raise MetricError(f"{reason} arcsec of the centre. Lower beyond_arcsec.")
    return light[:, outer].mean(1)


def saturated(images: np.ndarray, above: float = 63 / 64) -> np.ndarray:
    """Share (n,) of the pixels above a value, of images (n, 1, H, W) that span [0, 1] each.

    By default, those that are nearly as bright as the image's brightest one.
    """
    return (np.asarray(images) > above).mean((1, 2, 3))

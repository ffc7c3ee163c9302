"""Drawings of lenses: their geometry, and their parameters under the eight symmetries."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse

from ...lensing import parameters
from . import style
from .style import BLUE, GREEN, GREY, INK, ORANGE, Canvas

EYE = (0.62, 1.32)
TO_LENS = 2.2
TO_SOURCE = 4.2
BETA = 0.14  # of the source, as a slope; angles are drawn some 40,000 times too large
EINSTEIN = 0.28


def _at(distance: float, slope: float) -> tuple[float, float]:
    return EYE[0] + distance, EYE[1] + distance * slope


def lens_geometry() -> Figure:
    """Observer, lens and source with the angles theta, beta and alpha, and what is seen.

    The light of a singular isothermal sphere: alpha = theta_E on both sides of the lens (Narayan &
    Bartelmann 1996, section 3.1), to scale but for the size of the angles. The picture is a
    simulated lens with the same beta / theta_E.
    """
    canvas = Canvas()
    source = _at(TO_SOURCE, BETA)
    canvas.arrow(EYE, _at(TO_SOURCE + 0.25, 0), GREY, head="-", width=0.9, line=(0, (6, 4)))
    canvas.arrow(EYE, source, GREY, head="-", width=1.1, line=(0, (2, 2)))
    for slope, width in ((BETA - EINSTEIN, 1.1), (BETA + EINSTEIN, 2.0)):
        seen = _at(TO_LENS, slope)
        canvas.arrow(source, seen, ORANGE, head="-", width=width)
        canvas.arrow(seen, EYE, ORANGE, width=width)
    theta = BETA + EINSTEIN
    image = _at(TO_SOURCE, theta)
    canvas.arrow(_at(TO_LENS, theta), image, ORANGE, head="-", width=1.1, line=(0, (2, 2)))
    _planes(canvas, source, image)
    _angles(canvas)
    _seen(canvas)
    return canvas.figure


def _planes(canvas: Canvas, source: tuple, image: tuple) -> None:
    """Observer, lens, source and image with their names."""
    for distance in (TO_LENS, TO_SOURCE):
        x = EYE[0] + distance
        canvas.arrow((x, 0.62), (x, 3.2), "#cbd2d9", head="-", width=0.9)
    lens = Ellipse(_at(TO_LENS, 0), 0.16, 0.44, facecolor=style.GROUND[GREEN], edgecolor=GREEN)
    canvas.ax.add_patch(lens)
    canvas.ax.plot(*EYE, "o", color=INK, markersize=8)
    canvas.ax.plot(*source, "*", color=BLUE, markersize=15)
    canvas.ax.plot(*image, "*", color="white", markersize=14, markeredgecolor=ORANGE)
    canvas.text(EYE[0] + 0.12, 0.45, "observer")
    canvas.text(EYE[0] + TO_LENS, 0.45, "lens", GREEN)
    canvas.text(EYE[0] + TO_SOURCE, 0.45, "source", BLUE)
    canvas.text(image[0] + 0.12, image[1], "image", ORANGE, ha="left")
    canvas.text(1.62, 2.95, r"$\beta = \theta - \alpha(\theta)$", fontsize=15)


def _angles(canvas: Canvas) -> None:
    beta = np.degrees(np.arctan(BETA))
    theta = np.degrees(np.arctan(BETA + EINSTEIN))
    style.angle(canvas.ax, EYE, 0.95, 0, theta, ORANGE)
    style.angle(canvas.ax, EYE, 1.75, 0, beta, BLUE)
    style.angle(canvas.ax, EYE, 1.75, beta, theta, GREEN)
    canvas.text(EYE[0] + 0.78, EYE[1] + 0.42, r"$\theta$", ORANGE, fontsize=14)
    canvas.text(EYE[0] + 1.9, EYE[1] + 0.13, r"$\beta$", BLUE, fontsize=14)
    canvas.text(EYE[0] + 1.83, EYE[1] + 0.50, r"$\alpha$", GREEN, fontsize=14)


def _seen(canvas: Canvas) -> None:
    """The picture that the observer sees, in arcsec, with the source where it would be."""
    radius = 1.5
    beta = radius * BETA / EINSTEIN
    light = style.lens_light((radius, 0, 0, 0, -beta, 0, 0), 96)[0]
    ax = canvas.picture(light, 5.75, 0.72, 1.95, extent=(-3.75, 3.75, 3.75, -3.75))
    ring = Circle((0, 0), radius, fill=False, edgecolor="white", linestyle=(0, (2, 2)))
    ax.add_patch(ring)
    ax.plot(0, 0, "+", color="white")
    ax.plot(0, -beta, "*", color="#8ec0ff", markersize=9)
    style.write(ax, 2.15, 0.1, r"$\theta_E$", "white", fontsize=12)
    canvas.text(6.72, 2.88, "what is seen")
    canvas.text(6.72, 0.49, r"$|\alpha| = \theta_E$, isothermal sphere", fontsize=10)


SPIN_TWO = (1.5, 0.17, -0.09, 0.42, 0.25, 0.03, 0.02)
TURNS = ("as it is", "quarter turn", "half turn", "three quarters")
MIRRORED = ("mirror", "quarter, mirror", "half, mirror", "three, mirror")


def condition_symmetries(values: tuple[float, ...] = SPIN_TWO) -> Figure:
    """A simulated lens under the eight symmetries, each with its parameters.

    `values` (7,) are those of `parameters.NAMES`; `parameters.turned` turns them, and each picture
    is simulated anew from the turned values, with a round source. x grows to the right and y
    downwards, as the pixels do.
    """
    turned = parameters.turned(np.repeat([values], 8, 0), np.arange(8))
    canvas = Canvas(8.0, 4.95)
    canvas.text(4, 4.62, "The image turns, and its condition turns with it", fontsize=12)
    for k, (light, row) in enumerate(zip(style.lens_light(turned), turned, strict=True)):
        x = 0.72 + 1.79 * (k % 4)
        y = 3.18 - 2.03 * (k // 4)
        _turned_lens(canvas, light, row, x, y)
        canvas.text(x + 0.6, y - 0.13, (*TURNS, *MIRRORED)[k], GREY, fontsize=9)
        e = _pair(row[1], row[2])
        canvas.text(x + 0.6, y - 0.33, f"$e$ = {e}", GREEN, fontsize=9)
        canvas.text(x + 0.6, y - 0.53, f"source {_pair(row[3], row[4])}", BLUE, fontsize=9)
    rule = "spin 0: radius.  spin 1: source.  spin 2: $e$ and the shear, the same after a half turn"
    canvas.text(4, 0.33, rule, fontsize=9)
    return canvas.figure


def _pair(first: float, second: float) -> str:
    return f"({first:+.2f}, {second:+.2f})".replace("-", "−")


def _turned_lens(canvas: Canvas, light: np.ndarray, row: np.ndarray, x: float, y: float) -> None:
    """The middle of a lens, with the direction of its mass and the place of its source."""
    ax = canvas.picture(light, x, y, 1.2, extent=(-3.75, 3.75, 3.75, -3.75))
    ax.set(xlim=(-2.6, 2.6), ylim=(2.6, -2.6))
    angle = np.degrees(np.arctan2(row[2], row[1]) / 2)
    mass = Ellipse((0, 0), 1.5, 0.8, angle=angle, fill=False, edgecolor="#7ddba4", linewidth=1.3)
    ax.add_patch(mass)
    ax.plot(row[3], row[4], "*", color="#8ec0ff", markersize=8)

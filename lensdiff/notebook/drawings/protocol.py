"""A drawing of how recipes are compared: what is their own, and what is the same for all."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...storage import studies_folder
from . import style
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

RECIPE = "sigmoid-ddim"  # whose images are shown
SIDE = 64  # pixels a side of these
OWN = ("network", "noise levels", "loss", "optimiser", "sampler")


def one_protocol() -> Figure:
    """One protocol for many recipes: the same lenses, minutes, sampler and score.

    The lenses are simulated; the images drawn are those of the stored study of recipes, of one of
    them. Raises FileNotFoundError where its pictures are missing.
    """
    canvas = Canvas(8.0, 3.8)
    for k, image in enumerate(style.some_lenses(4, SIDE) ** 0.6):
        canvas.picture(image, 0.5 + 0.64 * (k % 2), 2.3 - 0.64 * (k // 2), 0.6, GREEN)
    canvas.text(1.12, 3.1, "the same lenses", GREEN, fontsize=10)
    canvas.arrow((1.83, 2.28), (2.15, 2.28))
    _recipes(canvas)
    canvas.arrow((3.72, 2.28), (4.15, 2.28))
    canvas.text(3.93, 1.1, "the same minutes", GREY, fontsize=10)
    canvas.arrow((3.93, 1.25), (3.93, 2.15), GREY, width=1.0)
    canvas.box(4.65, 2.28, "a denoiser\n" + r"$D(x, \sigma)$", 1.0, 0.72, BLUE)
    _drawn(canvas, 2.95, "the same\nsampler", f"{RECIPE}.png", 0.32)
    _drawn(canvas, 1.65, "its own\nsampler", f"{RECIPE}-own.png", -0.32)
    canvas.box(5.0, 0.58, "the same score: distance to the same test lenses", 4.9, 0.4, PURPLE)
    canvas.arrow((6.9, 1.28), (6.9, 0.8), PURPLE)
    canvas.ax.plot([7.56, 7.7, 7.7], [2.95, 2.95, 0.58], color=PURPLE, linewidth=1.6)
    canvas.arrow((7.7, 0.58), (7.47, 0.58), PURPLE)
    return canvas.figure


def _recipes(canvas: Canvas) -> None:
    """A pile of recipes, the first with what it decides."""
    for k in (2, 1, 0):
        x = 2.82 + 0.09 * k
        canvas.box(x, 2.28 + 0.09 * k, "", 1.25, 1.75, ORANGE)
    canvas.text(2.82, 2.98, "a recipe", ORANGE, fontsize=12)
    for k, word in enumerate(OWN):
        canvas.text(2.82, 2.68 - 0.26 * k, word, fontsize=10)


def _drawn(canvas: Canvas, y: float, words: str, name: str, rise: float) -> None:
    """A sampler in a box at height `y`, and two images that it drew."""
    canvas.arrow((5.15, 2.28 + 0.4 * rise), (5.38, y - 0.4 * rise))
    canvas.box(5.75, y, words, 0.82, 0.6, GREEN if rise > 0 else ORANGE)
    canvas.arrow((6.17, y), (6.3, y))
    with Image.open(studies_folder() / "recipes" / name) as picture:
        images = np.asarray(picture) / 255
    for k in range(2):
        one = images[:SIDE, k * SIDE : (k + 1) * SIDE]
        canvas.picture(one**0.6, 6.33 + 0.63 * k, y - 0.3, 0.6, BLUE)

"""A drawing of a diffusion transformer: patches, blocks, patches."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from . import style
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

SIDE = 8  # patches a side
SIGMA = 0.12  # of the noise, in stds of the lens


def dit() -> Figure:
    """A DiT: a noisy lens is cut into patches, each becomes a vector, blocks mix them, and back.

    Peebles & Xie 2023, figure 3. The lens is simulated.
    """
    canvas = Canvas(8.0, 4.2)
    lens = style.lens_light()[0] ** 0.6  # the faint light raised
    noise = np.random.default_rng(0).standard_normal(lens.shape)
    noisy = lens + SIGMA * noise
    _patches(canvas, noisy, 0.42, 1.55, BLUE)
    canvas.text(1.17, 1.3, "a noisy image in patches", GREY, fontsize=9)
    canvas.arrow((2.02, 2.3), (2.3, 2.3))
    canvas.text(2.16, 2.52, "linear", fontsize=9)
    _vectors(canvas, noisy, 2.4)
    canvas.text(2.62, 1.3, "vectors", GREY, fontsize=9)
    canvas.arrow((2.9, 2.3), (3.2, 2.3))
    _block(canvas)
    canvas.arrow((5.6, 2.3), (5.9, 2.3))
    canvas.text(5.75, 2.52, "linear", fontsize=9)
    _patches(canvas, lens, 6.0, 1.55, GREEN)
    canvas.text(6.75, 1.3, "what it is to answer", GREY, fontsize=9)
    return canvas.figure


def _patches(canvas: Canvas, image: np.ndarray, x: float, y: float, edge: str) -> None:
    """The patches of an image apart from each other, in a square of one and a half inches."""
    fold = len(image) // SIDE
    step = 1.5 / SIDE
    for row, column in np.ndindex(SIDE, SIDE):
        part = image[row * fold : (row + 1) * fold, column * fold : (column + 1) * fold]
        place = (x + step * column, y + 1.5 - step * (row + 1))
        canvas.picture(part, *place, 0.86 * step, edge)


def _vectors(canvas: Canvas, image: np.ndarray, x: float) -> None:
    """Six patches as columns of their own pixels, beside each other."""
    fold = len(image) // SIDE
    rows = image.reshape(SIDE, fold, SIDE, fold).transpose(0, 2, 1, 3).reshape(SIDE**2, -1)
    for k, number in enumerate((9, 18, 27, 36, 45, 54)):
        ax = canvas.panel(x + 0.075 * k, 1.55, 0.06, 1.5)
        ax.imshow(rows[number][:, None], cmap=style.CMAP, vmin=0, vmax=1, aspect="auto")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=BLUE, linewidth=0.8)


def _block(canvas: Canvas) -> None:
    """One block of many, with what the noise level does to it."""
    canvas.text(4.4, 3.82, "block, several times", fontsize=11)
    canvas.ax.plot(
        [3.25, 5.55, 5.55, 3.25, 3.25], [1.2, 1.2, 3.62, 3.62, 1.2], color=GREY, linewidth=1.0
    )
    for y, words, color in ((2.95, "attention", BLUE), (1.85, "perceptron", ORANGE)):
        canvas.box(4.78, y, words, 1.15, 0.44, color)
        canvas.text(3.72, y + 0.13, r"scale, shift $\to$", PURPLE, fontsize=9)
        canvas.text(3.72, y - 0.13, r"$\leftarrow$ gate", PURPLE, fontsize=9)
    canvas.text(4.7, 3.35, "each vector looks at all", GREY, fontsize=9)
    canvas.text(4.78, 1.45, "each vector by itself", GREY, fontsize=9)
    canvas.box(4.4, 0.62, r"embedding of $\sigma$", 1.6, 0.4, PURPLE)
    canvas.arrow((3.72, 0.82), (3.72, 1.62), PURPLE)
    canvas.ax.plot([3.72, 3.72], [2.14, 2.66], color=PURPLE, linewidth=1.6)

"""A drawing of a diffusion transformer: patches, blocks, patches."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from . import style
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

SIDE = 8  # patches a side
SIGMA = 0.12  # of the noise, in pixel values


def dit() -> Figure:
    """A DiT: a noisy lens is cut into patches, each becomes a vector, blocks mix them, and back.

    Peebles & Xie 2023, figure 3. The lens is simulated.
    """
    canvas = Canvas(9.6, 3.6)
    lens = style.lens_light()[0] ** 0.6  # the faint light raised
    noise = np.random.default_rng(0).standard_normal(lens.shape)
    noisy = lens + SIGMA * noise
    _patches(canvas, noisy, 0.42, 0.9, BLUE)
    canvas.text(1.17, 0.65, "a noisy image in patches", GREY, fontsize=9)
    canvas.arrow((2.02, 1.65), (2.3, 1.65))
    canvas.text(2.16, 1.87, "linear", fontsize=9)
    _vectors(canvas, noisy, 2.4)
    canvas.text(2.62, 0.65, "vectors", GREY, fontsize=9)
    canvas.arrow((2.9, 1.25), (3.2, 1.25))
    _block(canvas)
    canvas.arrow((7.0, 1.25), (7.5, 1.25))
    canvas.text(7.26, 1.45, "linear", fontsize=9)
    _patches(canvas, lens, 7.6, 0.9, GREEN)
    canvas.text(8.35, 0.65, "what it is to answer", GREY, fontsize=9)
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
        ax = canvas.panel(x + 0.075 * k, 0.9, 0.06, 1.5)
        ax.imshow(rows[number][:, None], cmap=style.CMAP, vmin=0, vmax=1, aspect="auto")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=BLUE, linewidth=0.8)


def _block(canvas: Canvas) -> None:
    """One block of many: a line goes through it, and each part adds to it what its gate lets."""
    left = 3.2
    right = 7.0
    line = 1.25
    canvas.text(5.1, 0.47, "block, several times", fontsize=11)
    edges = ([left, right, right, left, left], [0.65, 0.65, 2.65, 2.65, 0.65])
    canvas.ax.plot(*edges, color=GREY, linewidth=1.0)
    canvas.ax.plot([left, right], [line, line], color=style.INK, linewidth=1.6)
    canvas.box(5.1, 3.2, r"embedding of $\sigma$", 1.6, 0.4, PURPLE)
    parts = (("attention", "each looks at all", BLUE), ("perceptron", "each by itself", ORANGE))
    for x, (words, below, color) in zip((3.45, 5.25), parts, strict=True):
        gate = x + 1.5
        canvas.ax.plot([x, x], [line, 2.1], color=style.INK, linewidth=1.6)
        canvas.arrow((x, 2.1), (x + 0.15, 2.1))
        canvas.box(x + 0.7, 2.1, words, 1.05, 0.4, color)
        canvas.text(x + 0.7, 1.73, below, GREY, fontsize=9)
        canvas.ax.plot([x + 1.24, gate], [2.1, 2.1], color=style.INK, linewidth=1.6)
        canvas.arrow((gate, 2.1), (gate, line + 0.06))
        for y, sign, edge in ((2.1, r"$\times$", PURPLE), (line, "$+$", style.INK)):
            canvas.ax.plot(gate, y, "o", ms=12, mfc="white", mec=edge, zorder=5)
            canvas.text(gate, y, sign, edge, fontsize=11, zorder=6)
        canvas.arrow((x + 0.7, 2.9), (x + 0.7, 2.33), PURPLE)
        canvas.arrow((gate, 2.9), (gate, 2.23), PURPLE)
        canvas.text(x + 0.66, 2.77, "scale, shift", PURPLE, fontsize=9, ha="right")
        canvas.text(gate - 0.04, 2.77, "gate", PURPLE, fontsize=9, ha="right")
    canvas.ax.plot([4.15, 6.75], [2.9, 2.9], color=PURPLE, linewidth=1.6)

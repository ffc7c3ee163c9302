"""Drawings of training: one step of it, and the same step shared by several processes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from . import style
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

SIGMA = 0.6


def training_step() -> Figure:
    """One update: noise a lens, guess it, compare, follow the gradient, average the weights.

    Algorithm 1 of Ho et al. 2020 in the package's x = x0 + sigma eps, `Denoiser.loss`. Lens and
    noise are a simulated lens in units of its std and its very noise, with sigma = 0.6.
    """
    lens = style.lens_light()[0]
    lens = (lens - lens.mean()) / lens.std()
    eps = np.random.default_rng(0).standard_normal(lens.shape)
    canvas = Canvas(8.0, 4.1)
    scale = {"vmin": -1.5, "vmax": 3.5}
    canvas.picture(lens, 0.5, 2.45, 1.0, GREEN, **scale)
    canvas.picture(eps, 0.5, 0.92, 1.0, ORANGE, **scale)
    canvas.picture(lens + SIGMA * eps, 2.3, 1.7, 1.0, **scale)
    canvas.text(1.0, 3.6, r"$x_0$, a lens", GREEN)
    canvas.text(1.0, 2.08, r"$\varepsilon$, noise", ORANGE)
    canvas.text(1.0, 0.6, r"$\sigma \sim p(\sigma)$", ORANGE, fontsize=12)
    canvas.text(2.8, 2.86, r"$x = x_0 + \sigma\,\varepsilon$", fontsize=12)
    canvas.arrow((1.53, 2.8), (2.26, 2.4), GREEN)
    canvas.arrow((1.53, 1.45), (2.26, 1.95), ORANGE)
    _update(canvas)
    return canvas.figure


def _update(canvas: Canvas) -> None:
    """Network, loss, and what becomes of the gradient."""
    canvas.arrow((3.34, 2.2), (3.78, 2.2))
    canvas.box(4.52, 2.2, "network\n" + r"$D_\theta(x, \sigma)$", 1.42, 0.78, BLUE)
    canvas.arrow((5.24, 2.2), (5.78, 2.2))
    canvas.box(6.63, 2.2, "loss, weighted\n" + r"$\|D_\theta - x_0\|^2$", 1.66, 0.78, PURPLE)
    canvas.ax.plot([1.53, 6.63], [3.25, 3.25], color=GREEN, linewidth=1.6)
    canvas.arrow((6.63, 3.25), (6.63, 2.62), GREEN)
    canvas.text(4.6, 3.42, "what it should have guessed", GREEN, fontsize=10)
    canvas.arrow((6.63, 1.79), (6.63, 1.13), PURPLE)
    canvas.text(7.05, 1.47, r"$\nabla_\theta$", PURPLE, fontsize=13)
    canvas.box(6.63, 0.86, "AdamW", 1.3, 0.5, PURPLE)
    canvas.arrow((5.96, 0.86), (5.2, 0.86), BLUE)
    canvas.box(4.52, 0.86, "new weights " + r"$\theta$", 1.36, 0.5, BLUE)
    canvas.arrow((4.52, 1.12), (4.52, 1.79), BLUE)
    canvas.arrow((3.82, 0.86), (3.3, 0.86), GREY)
    canvas.box(2.62, 0.86, "their average\n(EMA)", 1.32, 0.6, GREY)
    canvas.text(2.62, 0.4, "draws the lenses", GREY, fontsize=10)


def several_processes() -> Figure:
    """One update shared by two processes: each has its part of the batch, all the same weights.

    The gradients' mean is that of the whole batch, and so is the loss that is reported
    (`training.loop.Run`). The batch is eight simulated lenses.
    """
    canvas = Canvas(8.0, 3.9)
    lenses = style.some_lenses(8, 48) ** 0.6
    for process, y in enumerate((2.92, 1.42)):
        color = (BLUE, ORANGE)[process]
        canvas.text(1.05, y + 0.56, f"process {process}", color)
        for k in range(4):
            image = lenses[4 * process + k]
            canvas.picture(image, 0.53 + 0.52 * (k % 2), y - 0.12 - 0.52 * (k // 2), 0.5, color)
        middle = y - 0.12
        canvas.arrow((1.63, middle), (2.0, middle), color)
        canvas.box(2.62, middle, "network\n" + r"weights $\theta$", 1.2, 0.72, color)
        canvas.arrow((3.24, middle), (3.6, middle), color)
        canvas.box(4.2, middle, f"loss $L_{process}$\ngradient $g_{process}$", 1.16, 0.72, color)
        canvas.arrow((4.8, middle), (5.26, 2.25 if process == 0 else 1.85), color)
    mean = r"$g = (g_0 + g_1)\,/\,2$" + "\n" + r"$L = (L_0 + L_1)\,/\,2$"
    canvas.box(6.33, 2.05, mean, 2.06, 0.95, PURPLE)
    canvas.text(6.33, 2.7, "mean over processes", PURPLE)
    canvas.ax.plot([6.33, 6.33, 2.62], [1.57, 0.55, 0.55], color=PURPLE, linewidth=1.6)
    canvas.arrow((2.62, 0.55), (2.62, 0.92), PURPLE)
    canvas.ax.plot([7.24, 7.24, 2.62], [2.53, 3.5, 3.5], color=PURPLE, linewidth=1.6)
    canvas.arrow((2.62, 3.5), (2.62, 3.18), PURPLE)
    for y in (0.38, 3.66):
        canvas.text(4.5, y, r"the same update of $\theta$", PURPLE, fontsize=10)
    return canvas.figure

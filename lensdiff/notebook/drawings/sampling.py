"""Drawings of sampling: one step of three samplers in the plane, and guidance.

Both are computed on toys in the plane whose denoiser is known exactly, with the package's samplers.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from torch import Tensor

from ...diffusion import sampling
from . import style
from .style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, Canvas

SPREAD = torch.tensor([1.2, 0.15], dtype=torch.float64)  # of the toy's data, a flat Gaussian
START = torch.tensor([[2.2, 2.2]], dtype=torch.float64)
SIGMA = 2.0
NEXT = 0.8


def flat(x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
    """E[x0 | x] of x (n, 2) where x0 is Gaussian with mean 0 and the spreads `SPREAD`."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def path(sigma: np.ndarray) -> np.ndarray:
    """The flow ODE's exact solution through START, (n, 2), at levels sigma (n,)."""
    ratio = (SPREAD.numpy() ** 2 + sigma[:, None] ** 2) / (SPREAD.numpy() ** 2 + SIGMA**2)
    return START.numpy() * np.sqrt(ratio)


def step(sampler: str, **options: object) -> np.ndarray:
    """Where a sampler's first step from START goes, (2,)."""
    levels = torch.tensor([SIGMA, NEXT, 0.0], dtype=torch.float64)
    return next(sampling.SAMPLERS[sampler](flat, START, levels, **options))[0].numpy()


def sampler_step() -> Figure:
    """One step from sigma = 2 to sigma' = 0.8 by Euler (DDIM), Heun and the ancestral sampler.

    The data are a flat Gaussian in the plane, for which denoiser and path of the flow ODE are
    exact. Song et al. 2021, eq. 12 and 16; Karras et al. 2022, algorithm 1.
    """
    canvas = Canvas(8.0, 3.6)
    for i, draw in enumerate((_euler, _heun, _ancestral)):
        left = 0.35 + 2.5 * i
        ax = style.plane(canvas.panel(left, 0.62, 2.32, 2.32), (-0.85, 2.6), (-0.72, 2.73))
        _scene(ax)
        draw(ax)
        name = ("Euler (DDIM): one guess", "Heun: two guesses", "ancestral: guess, noise")[i]
        canvas.text(left + 1.16, 3.13, name, fontsize=11)
    below = "grey: where the data lie, and the exact path of the flow ODE"
    canvas.text(4, 0.38, below, GREY, fontsize=10)
    return canvas.figure


def _scene(ax: Axes) -> None:
    """Data, exact path, the noisy point, and the guess there."""
    for times in (1, 2):
        wide, high = (2 * times * SPREAD).tolist()
        ax.add_patch(Ellipse((0, 0), wide, high, color="#d5dce3", alpha=0.6, zorder=0))
    exact = path(np.linspace(0, SIGMA, 60))
    ax.plot(*exact.T, color=GREY, linewidth=1.4, linestyle=(0, (4, 2)))
    ax.plot(*path(np.array([NEXT]))[0], "o", color="white", markeredgecolor=GREY, markersize=7)
    x = START[0].numpy()
    guess = flat(START, SIGMA)[0].numpy()
    ax.plot([x[0], guess[0]], [x[1], guess[1]], color=GREEN, linewidth=1, linestyle=(0, (1, 2)))
    ax.plot(*x, "o", color=INK, markersize=7)
    ax.plot(*guess, "o", color=GREEN, markersize=7)
    style.write(ax, 2.2, 2.46, r"$x_\sigma$", fontsize=13)
    style.write(ax, 0.12, -0.37, r"$D(x_\sigma)$", GREEN, fontsize=12)


def _euler(ax: Axes) -> None:
    end = step("ddim")
    style.arrow(ax, tuple(START[0].tolist()), tuple(end), ORANGE, width=2)
    style.write(ax, end[0] - 0.33, end[1] + 0.1, r"$x_{\sigma'}$", ORANGE, fontsize=13)


def _heun(ax: Axes) -> None:
    trial = step("ddim")
    second = flat(torch.from_numpy(trial)[None], NEXT)[0].numpy()
    end = step("heun")
    ax.plot([trial[0], second[0]], [trial[1], second[1]], color=BLUE, lw=1, ls=(0, (1, 2)))
    ax.plot(*trial, "o", color="white", markeredgecolor=BLUE, markersize=7)
    ax.plot(*second, "o", color=BLUE, markersize=7)
    style.arrow(ax, tuple(START[0].tolist()), tuple(end), ORANGE, width=2)
    style.write(ax, trial[0] - 0.38, trial[1] + 0.1, "trial", BLUE, fontsize=10)
    style.write(ax, second[0] + 0.78, second[1] - 0.38, r"$D(\mathrm{trial})$", BLUE)
    style.write(ax, end[0] + 0.38, end[1], r"$x_{\sigma'}$", ORANGE, fontsize=13)


def _ancestral(ax: Axes) -> None:
    mean, added = sampling.posterior(START, flat(START, SIGMA), SIGMA, NEXT)
    mean = mean[0].numpy()
    end = step("ddim", eta=1.0, seeds=[12])
    ring = Circle(tuple(mean), added, fill=False, edgecolor=PURPLE, linestyle=(0, (2, 2)))
    ax.add_patch(ring)
    style.arrow(ax, tuple(START[0].tolist()), tuple(mean), ORANGE, width=2)
    style.arrow(ax, tuple(mean), tuple(end), PURPLE, width=2)
    style.write(ax, -0.1, 1.35, "+ fresh noise", PURPLE, fontsize=10)
    style.write(ax, *_beyond(mean, end, 0.25), r"$x_{\sigma'}$", PURPLE, fontsize=13)


def _beyond(start: np.ndarray, end: np.ndarray, by: float) -> np.ndarray:
    """The point that lies `by` behind `end`, seen from `start`."""
    way = end - start
    return end + by * way / np.hypot(*way)


# ---- guidance ------------------------------------------------------------------------------------

CENTRES = torch.tensor([[0.0, 1.3], [-1.15, -0.65], [1.15, -0.65]], dtype=torch.float64)
WIDTH = 0.55  # of each class
SCALES = (0.0, 1.0, 2.5)


def classes(x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
    """E[x0 | x, label] of x (n, 2) for three Gaussian classes; without label, of their mixture."""
    total = WIDTH**2 + sigma**2
    each = CENTRES[:, None] + WIDTH**2 / total * (x - CENTRES[:, None])  # (3, n, 2)
    if label is not None:
        return each[label, torch.arange(len(x))]
    share = torch.softmax(-((x - CENTRES[:, None]) ** 2).sum(-1) / (2 * total), 0)
    return (share[..., None] * each).sum(0)


def guided_points(scale: float, n: int = 250) -> np.ndarray:
    """`n` samples (n, 2) of class 2, by Heun's method under guidance `scale`."""
    levels = sampling.karras_levels(24, 10.0, 0.02)
    x = levels[0] * sampling.noise(range(n), (2,)).double()
    label = torch.full((n,), 2)
    *_, last = sampling.heun(sampling.guided(classes, scale), x, levels, label)
    return last.numpy()


def guidance() -> Figure:
    """Guidance as an extrapolation D = D_u + w (D_c - D_u), and what it does to samples.

    Three Gaussian classes in the plane, whose denoisers are exact (Ho & Salimans 2022, eq. 6).
    """
    canvas = Canvas(8.0, 3.6)
    ax = style.plane(canvas.panel(0.35, 0.62, 2.75, 2.42), (-1.5, 2.65), (-2.3, 1.35))
    _vectors(ax)
    canvas.text(1.72, 3.2, "the guess at one noisy point")
    for i, scale in enumerate(SCALES):
        left = 3.32 + 1.48 * i
        ax = style.plane(canvas.panel(left, 0.98, 1.38, 1.7), (-2.6, 2.6), (-3.2, 3.2))
        for centre in CENTRES.tolist():
            ax.add_patch(Circle(centre, 2 * WIDTH, facecolor="#dfe5ea", zorder=0))
        ax.plot(*guided_points(scale).T, ".", color=PURPLE, markersize=2.5)
        canvas.text(left + 0.69, 2.83, f"$w$ = {scale:g}")
    canvas.text(5.5, 3.2, "samples of the class at the right")
    canvas.text(4, 0.38, r"$D = D_u + w\,(D_c - D_u)$", fontsize=13)
    return canvas.figure


def _vectors(ax: Axes) -> None:
    x = torch.tensor([[0.2, 0.75]], dtype=torch.float64)
    sigma = 1.2
    null = classes(x, sigma)[0].numpy()
    given = classes(x, sigma, torch.tensor([2]))[0].numpy()
    for centre in CENTRES.tolist():
        ax.add_patch(Circle(centre, WIDTH, facecolor="#e8edf1", zorder=0))
    ax.plot(*x[0].tolist(), "o", color=INK, markersize=7)
    style.write(ax, 0.2, 1.05, r"$x$", fontsize=13)
    for end, color in ((null, BLUE), (given, GREEN)):
        style.arrow(ax, tuple(x[0].tolist()), tuple(end), GREY, head="-", line=(0, (1, 2)))
        ax.plot(*end, "o", color=color, markersize=7, zorder=4)
    end = sampling.guided(classes, 2.5)(x, sigma, torch.tensor([2]))[0].numpy()
    style.arrow(ax, tuple(null), tuple(end), PURPLE, width=2)
    style.write(ax, null[0] - 0.33, null[1] - 0.1, r"$D_u$", BLUE, fontsize=13)
    style.write(ax, given[0] + 0.35, given[1] + 0.1, r"$D_c$", GREEN, fontsize=13)
    style.write(ax, end[0] - 0.75, end[1] - 0.3, r"$D$,  $w$ = 2.5", PURPLE, fontsize=11)

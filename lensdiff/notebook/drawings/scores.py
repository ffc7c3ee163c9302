"""Drawings of the scores: the Fréchet distance of two Gaussians, and precision and recall."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse

from . import style
from .style import GREEN, GREY, ORANGE, PURPLE, Canvas

POINTS = 200


def terms(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The two terms of the Fréchet distance of points (n, 2) and (m, 2): of means and covariances.

    |mu_a - mu_b|^2 and Tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al. 2017, eq. 6).
    """
    shift = a.mean(0) - b.mean(0)
    first = np.cov(a.T)
    second = np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    return float(shift @ shift), float(np.trace(first) + np.trace(second) - 2 * root)


def _whitened(x: np.ndarray) -> np.ndarray:
    """Points with mean 0 and covariance 1 exactly."""
    x = x - x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


def clouds(seed: int = 0) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(words, real points, generated points) of three cases, each set (200, 2)."""
    rng = np.random.default_rng(seed)
    real, other = (_whitened(rng.standard_normal((POINTS, 2))) for _ in range(2))
    turn = 2 * np.pi * rng.random(POINTS)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1) * (1 + 0.06 * rng.standard_normal((POINTS, 1)))
    shape = np.array([[1.35, 0.75], [0.0, 0.45]])
    return [
        ("the means differ", real, other + np.array([1.6, 0.7])),
        ("the covariances differ", real, other @ shape),
        ("only the shapes differ", real, _whitened(ring)),
    ]


def frechet_distance() -> Figure:
    """The Fréchet distance of two sets of features: each is a Gaussian to it, here an ellipse.

    Means apart, covariances apart, and a ring beside a Gaussian with the same mean and covariance,
    which it can't tell apart. The points are drawn, the numbers computed from them by `terms`.
    """
    canvas = Canvas(8.0, 3.95)
    for i, (words, real, drawn) in enumerate(clouds()):
        left = 0.35 + 2.5 * i
        ax = style.plane(canvas.panel(left, 1.07, 2.3, 2.3), (-3.4, 4.2), (-3.6, 4.0))
        for points, color in ((real, GREEN), (drawn, PURPLE)):
            ax.plot(*points.T, ".", color=color, markersize=3, alpha=0.6)
            _ellipse(ax, points, color)
        canvas.text(left + 1.15, 3.58, words)
        mean, spread = (abs(round(term, 2)) for term in terms(real, drawn))
        total = mean + spread
        canvas.text(left + 1.15, 0.87, f"{mean:.2f} + {spread:.2f} = {total:.2f}")
    rule = r"$|\mu_1-\mu_2|^2 + \mathrm{Tr}\,(\Sigma_1+\Sigma_2-2\,(\Sigma_1\Sigma_2)^{1/2})$"
    canvas.text(4.9, 0.45, rule, fontsize=12)
    for x, word, color in ((0.55, "data", GREEN), (1.35, "generated", PURPLE)):
        canvas.ax.plot(x, 0.45, "o", color=color, markersize=7)
        canvas.text(x + 0.13, 0.44, word, color, ha="left")
    return canvas.figure


def _ellipse(ax: Axes, points: np.ndarray, color: str) -> None:
    """Mean and 2-sigma ellipse of points (n, 2)."""
    values, vectors = np.linalg.eigh(np.cov(points.T))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    size = 4 * np.sqrt(values)
    ellipse = Ellipse(
        tuple(points.mean(0)), size[1], size[0], angle=angle, fill=False, edgecolor=color, lw=2
    )
    ax.add_patch(ellipse)
    ax.plot(*points.mean(0), "+", color=color, markersize=11, markeredgewidth=2.2, zorder=4)


# ---- precision and recall ------------------------------------------------------------------------

NEIGHBOUR = 3


def reach(points: np.ndarray, k: int = NEIGHBOUR) -> np.ndarray:
    """Distance of each of the points (n, 2) to its k-th neighbour among them, (n,)."""
    apart = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    return np.sort(apart, 1)[:, k]  # the first is the point itself


def inside(points: np.ndarray, balls: np.ndarray) -> np.ndarray:
    """Which of the points (n, 2) lie in one of the balls around (m, 2) that have their `reach`."""
    apart = np.hypot(*(points[:, None] - balls[None]).transpose(2, 0, 1))
    return (apart <= reach(balls)).any(1)


def two_sets(n: int = 20, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Real points in two clusters and generated ones that miss one of them, (n, 2) each."""
    rng = np.random.default_rng(seed)
    centres = np.array([[-1.2, 0.5], [1.5, -0.5]])[np.arange(n) % 2]
    real = centres + 0.42 * rng.standard_normal((n, 2))
    drawn = np.array([-1.0, 0.3]) + 0.55 * rng.standard_normal((n, 2))
    return real, drawn


def precision_recall() -> Figure:
    """Precision and recall by balls that reach to the third neighbour (Kynkaanniemi et al. 2019).

    Left, generated points in the balls of data; right, points of the data in those of generated
    ones. The generator misses one of two clusters; the shares are computed.
    """
    real, drawn = two_sets()
    canvas = Canvas(8.0, 3.7)
    cases = (
        ("precision", drawn, PURPLE, real, GREEN, "generated in balls of data"),
        ("recall", real, GREEN, drawn, PURPLE, "data in balls of generated"),
    )
    for i, (name, points, color, balls, ground, words) in enumerate(cases):
        left = 0.4 + 3.7 * i
        ax = style.plane(canvas.panel(left, 0.72, 3.5, 2.4), (-3.2, 3.2), (-2.2, 2.19))
        for centre, radius in zip(balls, reach(balls), strict=True):
            ax.add_patch(Circle(tuple(centre), radius, facecolor=ground, alpha=0.13))
            ax.plot(*centre, ".", color=ground, markersize=4)
        found = inside(points, balls)
        ax.plot(*points[found].T, "o", color=color, markersize=6)
        ax.plot(*points[~found].T, "X", color=ORANGE, markersize=8)
        share = f"{found.sum()} of {len(points)}"
        canvas.text(left + 1.75, 3.34, f"{name}: {share}", fontsize=12)
        canvas.text(left + 1.75, 0.54, words, color, fontsize=10)
    canvas.ax.plot(3.45, 0.32, "X", color=ORANGE, markersize=8)
    canvas.text(3.6, 0.32, "in no ball", GREY, fontsize=10, ha="left")
    return canvas.figure

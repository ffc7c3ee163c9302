"""Drawings of the noise process: the chain in both directions, and what a network may predict."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from ...diffusion.process import alpha_bar
from . import style
from .style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, Canvas

SHOWN = (0, 60, 160, 320, 560, 1000)  # steps of the chain of T = 1000


def noised(x0: np.ndarray, shown: tuple[int, ...] = SHOWN, seed: int = 0) -> list[np.ndarray]:
    """x_t at the steps `shown` of one chain of T = 1000 from x0 (H, W), every step of it drawn.

    x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps, linear schedule (Ho et al. 2020, eq. 2).
    """
    table = np.concatenate([[1.0], alpha_bar("linear").numpy()])
    rng = np.random.default_rng(seed)
    x = x0
    states = {0: x}
    for t in range(1, len(table)):
        keep = table[t] / table[t - 1]
        x = np.sqrt(keep) * x + np.sqrt(1 - keep) * rng.standard_normal(x.shape)
        if t in shown:
            states[t] = x
    return [states[t] for t in shown]


def chain(image: np.ndarray | None = None) -> Figure:
    """A chain x_0 ... x_T of a simulated lens, or of `image` (H, W) in [0, 1], and both its arrows.

    The states are those of one chain of 1,000 steps, each drawn from the one before it.
    """
    image = style.lens_light()[0] if image is None else np.asarray(image)
    states = noised((image - image.mean()) / image.std())
    canvas = Canvas()
    side = 0.98
    names = [r"$x_0$", *(f"$x_{{{t}}}$" for t in SHOWN[1:-1]), r"$x_T$"]
    for i, (x, name) in enumerate(zip(states, names, strict=True)):
        left = 0.45 + 1.223 * i
        canvas.picture(x, left, 1.28, side, vmin=-1.5, vmax=3.5)
        canvas.text(left + side / 2, 2.44, name, fontsize=14)
    canvas.arrow((0.6, 2.74), (7.4, 2.74), ORANGE)
    canvas.arrow((7.4, 1.02), (0.6, 1.02), BLUE)
    forward = r"$q(x_t\,|\,x_{t-1}) = \mathcal{N}(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I)$"
    backward = r"$p_\theta(x_{t-1}\,|\,x_t) = \mathcal{N}(\mu_\theta(x_t, t),\ \sigma_t^2 I)$"
    canvas.text(4, 3.05, "noise is added:   " + forward, ORANGE, fontsize=12)
    canvas.text(4, 0.66, "learnt, from noise to lens:   " + backward, BLUE, fontsize=12)
    return canvas.figure


# ---- targets -------------------------------------------------------------------------------------

PHI = np.radians(35)  # the angle of x_t: cos = sqrt(alpha_bar), sin = sqrt(1 - alpha_bar)
TIME = 0.4  # of the flow's straight path


def targets() -> Figure:
    """What a network may predict, as vectors in the plane of x0 and eps.

    Left, the circle that keeps the variance: x_t = cos(phi) x0 + sin(phi) eps, with eps, x0, and
    v = cos(phi) eps - sin(phi) x0, its tangent (Salimans & Ho 2022, appendix D). Right, the flow's
    straight path x_t = (1 - t) x0 + t eps, with the velocity eps - x0 (Lipman et al. 2023).
    """
    canvas = Canvas(8.0, 3.7)
    _circle(_axes(canvas, 0.35))
    _path(_axes(canvas, 4.25))
    canvas.text(2.0, 3.38, r"on the circle: $\varepsilon$, $x_0$ or $v$", fontsize=12)
    canvas.text(5.95, 3.38, "on the straight path: the flow", fontsize=12)
    canvas.text(4, 0.32, r"$x_t$ is known: any one of them gives the others", GREY, fontsize=10)
    return canvas.figure


def _axes(canvas: Canvas, left: float) -> Axes:
    """The plane with x0 along its first axis and eps along its second."""
    ax = canvas.panel(left, 0.45, 3.5, 2.75)
    ax.set(xlim=(-0.55, 1.6), ylim=(-0.2, 1.45), aspect="equal")
    ax.set_axis_off()
    style.arrow(ax, (0, 0), (1, 0), GREEN, width=2.2)
    style.arrow(ax, (0, 0), (0, 1), ORANGE, width=2.2)
    style.write(ax, 1.05, -0.13, r"$x_0$", GREEN, fontsize=14)
    style.write(ax, -0.15, 1.0, r"$\varepsilon$", ORANGE, fontsize=15)
    return ax


def _circle(ax: Axes) -> None:
    x = np.array([np.cos(PHI), np.sin(PHI)])
    v = np.array([-np.sin(PHI), np.cos(PHI)])
    ax.add_patch(Arc((0, 0), 2, 2, theta1=0, theta2=90, color=GREY, linestyle=(0, (4, 3))))
    style.arrow(ax, (0, 0), tuple(x), INK)
    style.arrow(ax, tuple(x), tuple(x + v), PURPLE, width=2.2)
    style.angle(ax, (0, 0), 0.3, 0, np.degrees(PHI), GREY)
    style.write(ax, 0.4, 0.12, r"$\varphi$", GREY, fontsize=13)
    style.write(ax, x[0] + 0.12, x[1], r"$x_t$", INK, fontsize=14)
    tangent = r"$v = \cos\varphi\;\varepsilon - \sin\varphi\;x_0$"
    style.write(ax, 0.52, 1.22, tangent, PURPLE, ha="left")
    for foot in ((x[0], 0), (0, x[1])):
        ax.plot([x[0], foot[0]], [x[1], foot[1]], color=GREY, linestyle=(0, (1, 2)), linewidth=1)
    style.write(ax, 0.62, -0.13, r"$\sqrt{\bar\alpha_t}$", GREY)
    style.write(ax, -0.27, x[1], r"$\sqrt{1-\bar\alpha_t}$", GREY)


def _path(ax: Axes) -> None:
    x = np.array([1 - TIME, TIME])
    style.arrow(ax, (1, 0), (0, 1), BLUE, width=2.2)
    style.arrow(ax, (0, 0), tuple(x), INK)
    style.write(ax, x[0] + 0.1, x[1] + 0.05, r"$x_t = (1-t)\,x_0 + t\,\varepsilon$", ha="left")
    style.write(ax, 0.3, 0.95, r"velocity $u = \varepsilon - x_0$", BLUE, ha="left")

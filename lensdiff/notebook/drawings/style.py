"""What the drawings share: a white card, colours, boxes, arrows, angles, panels, and lenses."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text

from ...lensing import parameters
from ...lensing.population import sample_params
from ...lensing.simulate import render
from ...lensing.survey import diverse
from ...lensing.telescope import min_max
from ..plots import CMAP

INK = "#1f2933"
GREY = "#7b8794"
PALE = "#eef2f6"
BLUE = "#1f5fa8"
ORANGE = "#c65d07"
GREEN = "#2b7a4b"
PURPLE = "#7a3e9d"
# the pale ground of a box, by the colour of its edge
GROUND = {BLUE: "#e3edf8", ORANGE: "#fcecdc", GREEN: "#e1f1e7", PURPLE: "#f1e6f6", GREY: PALE}
SIZE = 11.0  # points of ordinary text; none is below 9

# Einstein radius, e1, e2, source x and y, shear 1 and 2: an ordinary lens of `diverse`
LENS = (1.6, 0.10, -0.08, 0.35, 0.22, 0.03, 0.02)


class Canvas:
    """A white card with rounded corners, opaque on a transparent ground, measured in inches."""

    def __init__(self, width: float = 8.0, height: float = 3.5):
        self.width = width
        self.height = height
        self.figure: Figure = plt.figure(figsize=(width, height), facecolor="none")
        self.ax = self.panel(0, 0, width, height)
        self.ax.set_axis_off()
        self.ax.set(xlim=(0, width), ylim=(0, height))
        card = FancyBboxPatch(
            (0.16, 0.16),
            width - 0.32,
            height - 0.32,
            boxstyle="round,pad=0.12,rounding_size=0.16",
            facecolor="white",
            edgecolor="#cbd2d9",
            zorder=-10,
        )
        self.ax.add_patch(card)

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose lower left corner lies at (x, y), all in inches."""
        across = (x / self.width, y / self.height, width / self.width, height / self.height)
        ax = self.figure.add_axes(across)
        ax.patch.set_alpha(0)
        ax.tick_params(labelsize=9)
        return ax

    def picture(
        self, image: np.ndarray, x: float, y: float, side: float, edge: str = INK, **options: object
    ) -> Axes:
        """An image (H, W) in [0, 1] as a square of `side` inches."""
        ax = self.panel(x, y, side, side)
        shown = {"cmap": CMAP, "vmin": 0, "vmax": 1, "interpolation": "nearest"} | options
        ax.imshow(image, **shown)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=edge, linewidth=1.2)
        return ax

    def box(
        self, x: float, y: float, words: str, width: float, height: float = 0.42, color: str = BLUE
    ) -> tuple[float, float]:
        """A rounded box with words, centred at (x, y); returns its centre."""
        ground = FancyBboxPatch(
            (x - width / 2 + 0.06, y - height / 2 + 0.06),
            width - 0.12,
            height - 0.12,
            boxstyle="round,pad=0.06,rounding_size=0.08",
            facecolor=GROUND[color],
            edgecolor=color,
            linewidth=1.2,
        )
        self.ax.add_patch(ground)
        self.text(x, y, words)
        return x, y

    def text(self, x: float, y: float, words: str, color: str = INK, **options: object) -> Text:
        """Words centred at (x, y)."""
        return write(self.ax, x, y, words, color, **options)

    def arrow(
        self, start: tuple, end: tuple, color: str = INK, bend: float = 0.0, **options: object
    ) -> None:
        """An arrow from `start` to `end`; `bend` is the height of its arc over its length."""
        arrow(self.ax, start, end, color, bend, **options)


def write(ax: Axes, x: float, y: float, words: str, color: str = INK, **options: object) -> Text:
    """Words centred at (x, y) of axes."""
    how = {"ha": "center", "va": "center", "fontsize": SIZE, "linespacing": 1.35} | options
    return ax.text(x, y, words, color=color, **how)


def arrow(
    ax: Axes,
    start: tuple,
    end: tuple,
    color: str = INK,
    bend: float = 0.0,
    width: float = 1.6,
    head: str = "-|>",
    line: str = "-",
) -> None:
    """An arrow from `start` to `end` in the coordinates of axes."""
    patch = FancyArrowPatch(
        start,
        end,
        arrowstyle=head,
        connectionstyle=f"arc3,rad={bend}",
        mutation_scale=13,
        shrinkA=0,
        shrinkB=0,
        color=color,
        linewidth=width,
        linestyle=line,
        zorder=3,
    )
    ax.add_patch(patch)


def angle(ax: Axes, at: tuple, radius: float, first: float, last: float, color: str = INK) -> None:
    """The arc of an angle at a point, from `first` to `last` degrees."""
    ax.add_patch(Arc(at, 2 * radius, 2 * radius, theta1=first, theta2=last, color=color, lw=1.6))


def plane(ax: Axes, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    """Axes as an empty plane: equal scales, thin frame, no ticks."""
    ax.set(xlim=x, ylim=y, aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color="#cbd2d9", linewidth=0.8)
    return ax


def lens_light(values: tuple[float, ...] | np.ndarray = LENS, pixels: int = 64) -> np.ndarray:
    """Simulated noiseless lenses with a round source, of values (7,) or (n, 7).

    The values are those of `parameters.NAMES`. Returns (n, pixels, pixels), each scaled to span
    [0, 1].
    """
    survey = diverse(pixels)
    values = np.atleast_2d(np.asarray(values, float))
    like = sample_params(1, "no_sub", 0, survey)
    like["source_radius_arcsec"] = 0.25
    like["source_axis_ratio"] = 1.0
    return min_max(render(parameters.lens(values, like), survey).numpy())


def some_lenses(n: int, pixels: int = 64, seed: int = 4) -> np.ndarray:
    """The first `n` simulated noiseless lenses of a seed, (n, pixels, pixels) in [0, 1]."""
    survey = diverse(pixels)
    return min_max(render(sample_params(n, "mixed", seed, survey), survey).numpy())

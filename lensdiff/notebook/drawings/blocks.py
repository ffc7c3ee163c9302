"""Drawings of the network's parts: both residual blocks, and attention on a feature map."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from . import style
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

# the boxes of `networks.unet.ResidualBlock` from its input to its output, and each box's width;
# "noise" is where the embedding comes in
ORDER = {
    "scale_shift": ("norm1", "silu", "conv1", "norm2", "noise", "silu", "dropout", "conv2"),
    "add": ("norm1", "silu", "conv1", "noise", "norm2", "silu", "dropout", "conv2"),
}
WORDS = {
    "norm1": ("norm", 0.62, BLUE),
    "norm2": ("norm", 0.62, BLUE),
    "silu": ("SiLU", 0.6, GREY),
    "conv1": ("3×3", 0.55, ORANGE),
    "conv2": ("3×3", 0.55, ORANGE),
    "dropout": ("dropout", 0.84, GREY),
}
ENTRY = {"scale_shift": (r"$(1+s)\,h + b$", 1.08), "add": (r"$h + e$", 0.7)}
NAMES = {"scale_shift": "scales and shifts", "add": "is added"}


def residual_blocks() -> Figure:
    """Both residual blocks of the package: the embedding scales and shifts, or is added.

    `networks.unet.ResidualBlock`; Dhariwal & Nichol 2021, section 3.1; Ho et al. 2020, appendix B.
    """
    canvas = Canvas(8.0, 4.4)
    for embedding, y in (("scale_shift", 3.35), ("add", 1.32)):
        _block(canvas, embedding, y)
    canvas.ax.plot([0.4, 7.6], [2.26, 2.26], color="#cbd2d9", linewidth=0.8)
    return canvas.figure


def _block(canvas: Canvas, embedding: str, y: float) -> None:
    order = ORDER[embedding]
    entry, entry_width = ENTRY[embedding]
    widths = [entry_width if part == "noise" else WORDS[part][1] for part in order]
    gap = (6.4 - sum(widths)) / len(order)
    x = 0.62
    canvas.text(0.47, y, r"$x$", fontsize=14)
    for part, width in zip(order, widths, strict=True):
        canvas.arrow((x, y), (x + gap, y), width=1.2)
        middle = x + gap + width / 2
        if part == "noise":
            canvas.box(middle, y, entry, width, 0.42, PURPLE)
            _embedding(canvas, embedding, middle, y)
        else:
            words, _, color = WORDS[part]
            canvas.box(middle, y, words, width, 0.42, color)
        x += gap + width
    canvas.arrow((x, y), (7.28, y), width=1.2)
    canvas.text(7.4, y, "+", fontsize=17)
    canvas.ax.plot([0.47, 0.47, 7.4], [y + 0.15, y + 0.5, y + 0.5], color=GREEN, linewidth=1.4)
    canvas.arrow((7.4, y + 0.5), (7.4, y + 0.12), GREEN)
    canvas.text(4.0, y + 0.65, "the input, by 1×1 where the channels change", GREEN, fontsize=10)


def _embedding(canvas: Canvas, embedding: str, x: float, y: float) -> None:
    """The embedding of the noise level, through SiLU and a linear layer, into the box at x."""
    low = y - 0.68
    given = r"$s,\ b$" if embedding == "scale_shift" else r"$e$"
    words = f"the noise level's embedding {NAMES[embedding]}"
    canvas.text(7.55, low - 0.02, words, PURPLE, ha="right", fontsize=10)
    canvas.text(x - 1.93, low, r"$\sigma$", PURPLE, fontsize=14)
    canvas.arrow((x - 1.8, low), (x - 1.55, low), PURPLE, width=1.2)
    canvas.box(x - 1.25, low, "SiLU", 0.6, 0.36, GREY)
    canvas.arrow((x - 0.95, low), (x - 0.71, low), PURPLE, width=1.2)
    canvas.box(x - 0.37, low, "linear", 0.68, 0.36, PURPLE)
    canvas.ax.plot([x - 0.03, x + 0.14], [low, low], color=PURPLE, linewidth=1.2)
    canvas.arrow((x + 0.14, low), (x + 0.14, y - 0.21), PURPLE, width=1.2)
    canvas.text(x + 0.42, y - 0.45, given, PURPLE, fontsize=12)


# ---- attention -----------------------------------------------------------------------------------

SIDE = 16  # of the feature map
QUERIES = ((7, 5), (2, 12))  # row and column of a pixel on the ring, and of one of the sky


def features(image: np.ndarray) -> np.ndarray:
    """Pixels of a feature map, (16 * 16, d), from an image (H, H): each patch as a vector.

    The square root of the light, folded as the U-Net's stem folds images, so that d = (H / 16)^2,
    less its mean; then each vector is scaled to the length sqrt(d), as networks with normalised
    queries and keys do it (Henry et al. 2020).
    """
    fold = len(image) // SIDE
    patches = np.sqrt(image).reshape(SIDE, fold, SIDE, fold).transpose(0, 2, 1, 3)
    x = patches.reshape(SIDE**2, -1) - patches.mean()
    return x / np.sqrt((x**2).mean(1, keepdims=True))


def weights(x: np.ndarray, query: tuple[int, int]) -> np.ndarray:
    """Attention weights (16, 16) of one pixel of x (256, d) over all: softmax(q.k / sqrt(d)).

    Queries and keys are x itself (Vaswani et al. 2017, eq. 1, without its learnt matrices).
    """
    scores = x @ x[query[0] * SIDE + query[1]] / np.sqrt(x.shape[1])
    scores = np.exp(scores - scores.max())
    return (scores / scores.sum()).reshape(SIDE, SIDE)


def attention() -> Figure:
    """Self-attention on the feature map of a simulated lens: two queries and their weights.

    Computed by `weights`, with queries and keys that are the features themselves: nothing is
    learnt here, and still a pixel of the ring looks at the ring.
    """
    image = style.lens_light()[0]
    x = features(image)
    canvas = Canvas(8.0, 3.6)
    mean = image.reshape(SIDE, 4, SIDE, 4).mean((1, 3))
    ax = canvas.picture(mean, 0.5, 0.85, 1.95, vmax=float(mean.max()))
    canvas.text(1.47, 3.05, "a feature map, two queries")
    for i, (query, color) in enumerate(zip(QUERIES, (ORANGE, BLUE), strict=True)):
        found = weights(x, query)
        left = 3.2 + 2.35 * i
        panel = canvas.picture(found, left, 0.85, 1.95, color, cmap="viridis", vmax=found.max())
        _pixel(ax, query, color)
        _pixel(panel, query, color)
        where = ("a pixel of the ring", "a pixel of the sky")[i]
        canvas.text(left + 0.97, 3.05, f"weights of {where}", color)
        canvas.text(left + 0.97, 0.66, f"largest: {found.max():.3f}", GREY, fontsize=9)
    canvas.text(1.47, 0.66, f"{SIDE}² = {SIDE**2} pixels", GREY, fontsize=9)
    rule = r"softmax$(q\cdot k\,/\sqrt{d})$ over all pixels, then the mean of their values $v$"
    canvas.text(4, 0.36, rule, fontsize=11)
    return canvas.figure


def _pixel(ax: Axes, place: tuple[int, int], color: str) -> None:
    """A frame around the pixel at (row, column)."""
    corner = (place[1] - 0.5, place[0] - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=3.5))
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=color, linewidth=2))

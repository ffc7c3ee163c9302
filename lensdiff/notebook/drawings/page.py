"""The whole project on one page."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...errors import DataError
from ...storage import read_json, root, shipped
from ..files import series
from . import style
from .process import noised
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

MODEL = "lens150"
STAGES = ("simulate", "train", "sample", "score")
COLORS = (GREEN, ORANGE, BLUE, PURPLE)
ROOMS = ("lensing, data", "networks, diffusion,\ntraining", "diffusion, model", "scores, studies")
# the column of each notebook; those without one show the whole
COLUMNS = {"01": 0, "02": 1, "03": 1, "09": 1, "04": 2, "06": 2, "08": 2, "05": 3, "07": 3, "13": 3}
CURE = "It comes with the repository: git checkout -- data/checkpoints"


def lessons() -> list[str]:
    """The notebooks there are, "00 quickstart" and so on."""
    return [path.stem.replace("_", " ") for path in series(root() / "notebooks")]


def drawn(n: int = 4) -> np.ndarray:
    """The first `n` stored images that the shipped model drew, (n, 150, 150) in [0, 1]."""
    path = shipped(MODEL) / "drawn.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["pictures"][:n, 0] / 255
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}). {CURE}.") from error


def project() -> Figure:
    """The whole project: simulate, train, sample, score, and the lessons about each.

    The lenses are simulated, the others drawn by the shipped model `lens150`, whose stored curve
    and card are shown too. Raises DataError where the model's files are missing.
    """
    canvas = Canvas(8.0, 4.4)
    title = "Learn diffusion models by building one for gravitational lenses"
    canvas.text(4, 4.08, title, fontsize=13)
    for i, (stage, color) in enumerate(zip(STAGES, COLORS, strict=True)):
        x = 1.15 + 1.9 * i
        canvas.box(x, 3.62, f"{i + 1}  {stage}", 1.45, 0.38, color)
        if i:
            canvas.arrow((x - 1.14, 3.62), (x - 0.75, 3.62))
        canvas.text(x, 1.71, ROOMS[i], GREY, fontsize=10)
    _four(canvas, style.some_lenses(4, 64), 1.15, GREEN)
    _training(canvas, 3.05)
    _four(canvas, drawn(), 4.95, BLUE)
    _score(canvas, 6.85)
    _lessons(canvas)
    return canvas.figure


def _four(canvas: Canvas, images: np.ndarray, x: float, edge: str) -> None:
    """Four images in a square, the faint light raised (to the power 0.6)."""
    for k, image in enumerate(images**0.6):
        canvas.picture(image, x - 0.67 + 0.68 * (k % 2), 2.67 - 0.68 * (k // 2), 0.65, edge)


def _training(canvas: Canvas, x: float) -> None:
    """A noised lens, and the held-out loss of the shipped model against the images seen."""
    lens = style.lens_light()[0]
    noisy = noised((lens - lens.mean()) / lens.std(), (160, 320))
    for k, image in enumerate(noisy):
        canvas.picture(image, x - 0.67 + 0.68 * k, 2.67, 0.65, ORANGE, vmin=-1.5, vmax=3.5)
    spec = read_json(shipped(MODEL) / "spec.json", CURE)
    ax = canvas.panel(x - 0.67, 2.0, 1.33, 0.62)
    seen = [row["images_seen"] for row in spec["curve"]]
    ax.plot(seen, [row["held_out"] for row in spec["curve"]], color=ORANGE, linewidth=2)
    ax.set_yscale("log")
    ax.set(xticks=[], yticks=[])
    ax.minorticks_off()
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    style.write(ax, 0.96, 0.75, "held-out loss", transform=ax.transAxes, ha="right", fontsize=9)


def _score(canvas: Canvas, x: float) -> None:
    """The distance of the shipped model beside the floor, from its card."""
    card = read_json(shipped(MODEL) / "card.json", CURE)
    ax = canvas.panel(x - 0.67, 2.15, 1.33, 1.17)
    values = (card["distance"], card["floor"])
    ax.bar((0, 1), values, 0.62, color=(BLUE, GREEN))
    ax.set(xlim=(-0.6, 1.6), ylim=(0, 1.25 * max(values)), xticks=[], yticks=[])
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    style.write(ax, 1.04, 0.9, "$d^2$", transform=ax.transAxes, ha="right", fontsize=9)
    for place, (value, word) in enumerate(zip(values, ("model", "floor"), strict=True)):
        style.write(ax, place, value + 0.05 * max(values), f"{value:.1f}", fontsize=9, va="bottom")
        style.write(ax, place, -0.04 * max(values), word, fontsize=9, va="top")


def _lessons(canvas: Canvas) -> None:
    """Every notebook under the stage that it teaches."""
    whole = []
    count = [0, 0, 0, 0]
    for name in lessons():
        column = COLUMNS.get(name[:2])
        if column is None:
            whole.append(name)
            continue
        y = 1.27 - 0.29 * count[column]
        place = canvas.box(1.15 + 1.9 * column, y, "", 1.78, 0.25, COLORS[column])
        canvas.text(*place, name, fontsize=11 if len(name) < 22 else 9)
        count[column] += 1
    canvas.text(4, 0.36, "the notebooks of each step; of the whole: " + ", ".join(whole))

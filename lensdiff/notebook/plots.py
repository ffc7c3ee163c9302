"""Figures and widgets: grids, curves, the film of sampling, and sliders.

Each slider has a static twin for pages where no kernel runs.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from ..storage import atomic

CMAP = "magma"  # black sky, bright light; readable in grey and by colour-blind readers


def to_array(images) -> np.ndarray:
    """Images (n, C, H, W), (n, H, W) or (H, W) to (n, H, W) or (n, H, W, 3), for imshow."""
    images = np.asarray(images)
    if images.ndim == 2:
        return images[None]
    if images.ndim == 4:
        return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    return images


def show(
    ax: Axes, image: np.ndarray, title: str = "", limits: tuple[float, float] | None = (0.0, 1.0)
) -> None:
    """One image without axes.

    `limits` are the values shown black and bright; None takes the image's own.
    """
    low, high = limits or (None, None)
    ax.imshow(image, cmap=CMAP, vmin=low, vmax=high, interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=9, pad=3)


def grid(
    images,
    columns: int = 8,
    titles: Sequence[str] | None = None,
    heading: str = "",
    size: float = 1.15,
    limits: tuple[float, float] | None = (0.0, 1.0),
) -> Figure:
    """Images in rows of `columns`; each is `size` inches wide."""
    images = to_array(images)
    rows = -(-len(images) // columns)
    room = 0.22 if titles else 0.0
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(columns * size, rows * (size + room) + (0.3 if heading else 0)),
        layout="constrained",
        squeeze=False,
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(images):
            show(ax, images[i], titles[i] if titles else "", limits)
    if heading:
        figure.suptitle(heading, fontsize=11)
    return figure


def side_by_side(
    left, right, names: tuple[str, str], columns: int = 4, size: float = 1.15
) -> Figure:
    """Two sets of images as two blocks of `columns`, each under its name."""
    left = to_array(left)
    right = to_array(right)
    rows = -(-max(len(left), len(right)) // columns)
    figure = plt.figure(
        figsize=(2 * columns * size + 0.4, rows * size + 0.35), layout="constrained"
    )
    for part, images, name in zip(
        figure.subfigures(1, 2, wspace=0.04), (left, right), names, strict=True
    ):
        axes = part.subplots(
            rows, columns, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03}
        )
        part.suptitle(name, fontsize=11)
        for i, ax in enumerate(axes.flat):
            ax.set_axis_off()
            if i < len(images):
                show(ax, images[i])
    return figure


def table_of_images(
    images,
    row_names: Sequence[str],
    column_names: Sequence[str],
    heading: str = "",
    size: float = 1.25,
) -> Figure:
    """Images (rows, columns, ...) with a name for each row and each column."""
    figure, axes = plt.subplots(
        len(row_names),
        len(column_names),
        figsize=(len(column_names) * size + 0.9, len(row_names) * size + 0.55),
        layout="compressed",  # square images leave no bands between rows
        squeeze=False,
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for r, row in enumerate(images):
        for c, image in enumerate(to_array(row)):
            show(axes[r, c], image, column_names[c] if r == 0 else "")
        axes[r, 0].text(
            -0.08,
            0.5,
            row_names[r],
            transform=axes[r, 0].transAxes,
            ha="right",
            va="center",
            fontsize=9,
        )
    if heading:
        figure.suptitle(heading, fontsize=11)
    return figure


def curve(rows: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Training and held-out loss against the images seen.

    `rows` have `loss`, `held_out` and `images_seen`, as a checkpoint's spec stores them. The
    held-out loss is of the weights that are saved: their average, where there is one.
    """
    ax = ax or plt.subplots(figsize=(5.5, 3.2), layout="constrained")[1]
    seen = [row["images_seen"] / 1000 for row in rows]
    ax.plot(seen, [row["loss"] for row in rows], label="training (current weights)", color="0.55")
    ax.plot(seen, [row["held_out"] for row in rows], label="held out (saved weights)", color="C1")
    ax.set(xlabel="images seen (thousands)", ylabel="loss")
    log_axis(ax)
    ax.legend(frameon=False)
    return ax


def log_axis(ax: Axes) -> Axes:
    """Logarithmic y with plain numbers at 1, 2 and 5 times the powers of ten, and a grid."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.25)
    return ax


def _tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, H, W) or (n, H, W, 3) in rows of `columns`: one picture (H', W', 3), uint8."""
    columns = min(columns, len(images))
    gap = np.zeros((-len(images) % columns, *images.shape[1:]), images.dtype)
    images = np.concatenate([images, gap])
    starts = range(0, len(images), columns)
    rows = [np.concatenate(list(images[start : start + columns]), 1) for start in starts]
    tiled = np.clip(np.concatenate(rows, 0), 0, 1)
    if tiled.ndim == 2:
        tiled = plt.get_cmap(CMAP)(tiled)[..., :3]
    return (tiled * 255).round().astype(np.uint8)


def film(
    frames,
    path: Path | str,
    seconds: float = 4.0,
    columns: int = 4,
    enlarge: int = 2,
    hold: float = 1.5,
) -> Path:
    """Write a GIF of `frames` (steps, n, C, H, W) in [0, 1], tiled; the last is held.

    C is 1 or 3; where the last row has no image it is black. Written under a temporary name, then
    renamed.
    """
    path = Path(path)
    pictures = []
    for frame in frames:
        picture = Image.fromarray(_tiled(to_array(frame), columns))
        picture = picture.resize(
            (picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST
        )
        pictures.append(picture.quantize(64, dither=Image.Dither.NONE))
    each = max(20, round(1000 * seconds / len(pictures)))
    durations = [each] * (len(pictures) - 1) + [round(1000 * hold)]
    with atomic(path) as part:
        pictures[0].save(
            part, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )
    return path


class Explorer(ipywidgets.VBox):
    """Sliders, the picture they make, and a sentence; where no kernel runs, its first picture.

    The picture is a PNG in a widget of its own: an `Output` widget would send messages while a
    notebook is executed headless, and the reply of the cell can be lost among them.
    """

    _ipython_display_ = None  # ipywidgets 7, Colab's, would show itself so, without the picture

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        theirs = getattr(super(), "_repr_mimebundle_", None)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        own = {"text/plain": repr(self), "application/vnd.jupyter.widget-view+json": view}
        bundle = theirs(**kwargs) or {} if theirs else own
        image = self.children[-2]
        still = {"image/png": base64.b64encode(image.value).decode()} if image.value else {}
        return {**bundle, **still}


def pictured(draw: Callable[[], object]) -> tuple[bytes, str]:
    """The first new figure that `draw` makes, as a PNG, and what it prints; new figures are closed.

    A ValueError is what it prints.
    """
    known = set(plt.get_fignums())
    words = io.StringIO()
    with redirect_stdout(words):
        try:
            draw()
        except ValueError as error:
            print(error)
        except BaseException:
            for number in set(plt.get_fignums()) - known:
                plt.close(number)
            raise
    png = io.BytesIO()
    for count, number in enumerate(sorted(set(plt.get_fignums()) - known)):
        if count == 0:
            plt.figure(number).savefig(png, format="png", dpi=100)
        plt.close(number)
    return png.getvalue(), words.getvalue().strip()


def explorer(draw: Callable[..., object], **controls: ipywidgets.Widget) -> Explorer:
    """Sliders over the arguments of `draw`, which makes a figure each time a slider is let go.

    What it prints, and the message of a ValueError that it raises, stand below the figure. On a
    page without a kernel the first figure is shown.
    """
    image = ipywidgets.Image(format="png")
    words = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        arguments = {name: control.value for name, control in controls.items()}
        image.value, text = pictured(lambda: draw(**arguments))
        image.layout.display = None if image.value else "none"
        words.value = f"<pre>{html.escape(text)}</pre>" if text else ""

    for name, control in controls.items():
        control.description = control.description or name
        if hasattr(control, "continuous_update"):
            control.continuous_update = False
        control.observe(redraw, "value")
    redraw()
    return Explorer([*controls.values(), image, words])

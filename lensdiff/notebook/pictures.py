"""PNG pictures as they are stored: few colours, and not again where they look the same."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # each kernel imports this module, and that one takes a second
    from nbformat import NotebookNode

PNG = "image/png"
ALIKE = 24.0  # levels of 255: what a palette or rounding may move the mean of 2 x 2 pixels by


def few(image: Image.Image, colours: int) -> Image.Image:
    """The image with so many colours, chosen to be far apart, so that rare ones keep their hue."""
    far = Image.Quantize.MAXCOVERAGE
    return image.quantize(colours, far, kmeans=1, dither=Image.Dither.NONE)


def _flat(png: bytes) -> Image.Image:
    """A PNG on white, without transparency."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def palette(png: bytes) -> bytes:
    """A PNG with at most 256 colours, a third of the size, if that is smaller than what came."""
    small = io.BytesIO()
    few(_flat(png), 256).save(small, "PNG", optimize=True)
    return small.getvalue() if len(small.getvalue()) < len(png) else png


def alike(one: bytes, other: bytes) -> bool:
    """Whether two PNGs look the same: as large, and no square's mean colour is another.

    A moved line or point, another hue and even another digit of a small number change some square
    of 2 x 2 pixels, or one that lies between them, by more than `palette` or rounding do.
    """
    first = _flat(one)
    second = _flat(other)
    if first.size != second.size:
        return False
    apart = np.asarray(first, np.float32) - np.asarray(second, np.float32)
    apart = np.pad(apart, ((0, 2), (0, 2), (0, 0)))
    rows = apart[:-1] + apart[1:]  # sums of every square of 2 x 2
    return bool(np.abs(rows[:, :-1] + rows[:, 1:]).max() <= 4 * ALIKE)


# ---- of notebooks --------------------------------------------------------------------------------


def _of(cell: NotebookNode) -> list[NotebookNode]:
    """The data of a cell's outputs that have a PNG."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [one for one in data if PNG in one]


def shrink(cell: NotebookNode) -> None:
    """Store the PNGs of a cell's outputs with a palette, in place."""
    for data in _of(cell):
        png = palette(base64.b64decode(data[PNG]))
        data[PNG] = base64.b64encode(png).decode()


def keep_alike(cell: NotebookNode, stored: NotebookNode) -> None:
    """Give a cell the stored cell's PNGs where its own look the same, in place.

    So a page that ran again adds to the repository only what has changed. PNGs are paired by their
    order; where there are more or fewer of them, all stay.
    """
    new = _of(cell)
    old = _of(stored)
    for mine, theirs in zip(new, old, strict=True) if len(new) == len(old) else ():
        if alike(base64.b64decode(mine[PNG]), base64.b64decode(theirs[PNG])):
            mine[PNG] = theirs[PNG]

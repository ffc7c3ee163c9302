"""Pictures as they are stored: few colours, and those that look the same are not stored again."""

from __future__ import annotations

import base64
import io

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from PIL import Image

from lensdiff.notebook import pictures


def png_of(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)


def test_a_palette_makes_a_figure_smaller_and_keeps_its_size_and_colours(figure: bytes) -> None:
    small = pictures.palette(figure)
    assert len(small) < 0.6 * len(figure)
    with Image.open(io.BytesIO(small)) as image:
        assert image.mode == "P"
    before = pixels(figure)
    after = pixels(small)
    assert after.shape == before.shape
    far = np.abs(after - before).max(-1)
    assert far.mean() < 2
    assert np.quantile(far, 0.999) < 16
    assert (after[0, 0] == 255).all()


def test_a_rare_colour_keeps_its_hue() -> None:
    """A small patch of red and blue in a large dark picture of many shades."""
    dark = np.linspace(0, 90, 300)[:, None] + np.linspace(0, 60, 300)
    many = np.stack([dark, dark / 2, 1.5 * dark], -1)
    many[:12, :100] = 255 * plt.get_cmap("RdBu_r")(np.linspace(0, 1, 100))[:, :3]
    picture = many.clip(0, 255).astype(np.uint8)
    small = pixels(pictures.palette(png_of(Image.fromarray(picture))))
    assert np.abs(small - picture).max(-1)[:12, :100].max() < 25


def test_transparent_pixels_become_white() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (40, 40, 4), np.uint8)
    values[..., 3] = 255
    values[:20, :, 3] = 0
    small = pictures.palette(png_of(Image.fromarray(values)))
    assert np.abs(pixels(small)[:20] - 255).max() <= 2


def test_a_picture_that_a_palette_would_not_shrink_stays_as_it_is(figure: bytes) -> None:
    once = pictures.palette(figure)
    assert len(pictures.palette(once)) <= len(once)
    tiny = png_of(Image.new("L", (1, 1)))
    assert pictures.palette(tiny) == tiny


# ---- what looks the same -------------------------------------------------------------------------


def chart(y: float = 0.5, digits: str = "5.48", color: str = "C0", width: float = 4) -> bytes:
    """A chart with one point and a number."""
    made, ax = plt.subplots(figsize=(width, 3), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.8")
    ax.plot([0.3], [y], "o", ms=3, color=color)
    ax.text(0.6, 0.1, digits, fontsize=8)
    data = io.BytesIO()
    made.savefig(data, format="png")
    plt.close(made)
    return data.getvalue()


def test_a_picture_looks_like_itself_with_a_palette_and_with_rounding(figure: bytes) -> None:
    assert pictures.alike(figure, pictures.palette(figure))
    assert pictures.alike(chart(), pictures.palette(chart()))
    rounded = pixels(figure) + np.random.default_rng(0).integers(-3, 4, pixels(figure).shape)
    assert pictures.alike(figure, png_of(Image.fromarray(rounded.clip(0, 255).astype(np.uint8))))


@pytest.mark.parametrize(
    "change",
    [
        {"y": 0.51},
        {"digits": "5.46"},
        {"digits": "5.49"},
        {"color": "C4"},
        {"color": "C1"},
        {"width": 4.1},
    ],
)
def test_a_moved_point_another_digit_or_colour_is_another_picture(change: dict) -> None:
    assert not pictures.alike(pictures.palette(chart()), chart(**change))
    assert not pictures.alike(pictures.palette(chart()), pictures.palette(chart(**change)))


@pytest.mark.parametrize("direction", ["h", "v"])
def test_a_line_that_moves_by_a_pixel_is_seen(direction: str) -> None:
    """Also within one square, and in pale grey."""
    for place in (40, 41, 42, 43):
        pictures_of = []
        for at in (place, place + 1):
            page = np.full((100, 100, 3), 255, np.uint8)
            line = page[at] if direction == "h" else page[:, at]
            line[:] = 200
            pictures_of.append(png_of(Image.fromarray(page)))
        assert not pictures.alike(*pictures_of)


def cell_of(*pngs: bytes) -> nbformat.NotebookNode:
    """An executed cell with these pictures, and a line of text before them."""
    new = nbformat.v4.new_output
    outputs = [new("stream", text="a line")]
    for png in pngs:
        outputs.append(new("display_data", {"image/png": base64.b64encode(png).decode()}))
    return nbformat.v4.new_code_cell(outputs=outputs)


def test_a_cell_keeps_stored_pictures_that_look_the_same_and_no_others() -> None:
    old = [pictures.palette(chart()), pictures.palette(chart(0.2))]
    cell = cell_of(chart(), chart(0.7))
    pictures.keep_alike(cell, cell_of(*old))
    kept = [base64.b64decode(output.data["image/png"]) for output in cell.outputs[1:]]
    assert kept == [old[0], chart(0.7)]


def test_more_pictures_than_before_all_stay() -> None:
    cell = cell_of(chart(), chart())
    pictures.keep_alike(cell, cell_of(pictures.palette(chart())))
    assert base64.b64decode(cell.outputs[1].data["image/png"]) == chart()

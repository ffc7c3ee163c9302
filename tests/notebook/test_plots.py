"""Figures and widgets."""

import base64
import io

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from lensdiff.notebook import plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plots.plt.close("all")


def test_a_grid_shows_every_image_once_and_leaves_the_rest_empty():
    images = torch.rand(5, 1, 8, 8)
    figure = plots.grid(images, columns=3, titles=list("abcde"), heading="five")
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(figure.axes) == 6
    assert len(shown) == 5
    np.testing.assert_array_equal(shown[4], images[4, 0])
    assert [ax.get_title() for ax in figure.axes] == [*"abcde", ""]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 9), (1, 8, 9)),
        ((3, 8, 9), (3, 8, 9)),
        ((2, 1, 8, 9), (2, 8, 9)),
        ((2, 3, 8, 9), (2, 8, 9, 3)),
    ],
)
def test_images_of_all_shapes(shape, expected):
    assert plots.to_array(np.zeros(shape)).shape == expected


def test_side_by_side_and_table():
    names = ("real", "generated")
    figure = plots.side_by_side(torch.zeros(3, 1, 8, 8), torch.ones(4, 1, 8, 8), names, columns=2)
    values = [float(ax.images[0].get_array().mean()) for ax in figure.axes if ax.images]
    assert sorted(values) == [0] * 3 + [1] * 4
    table = plots.table_of_images(torch.rand(2, 3, 1, 8, 8), ["r0", "r1"], ["c0", "c1", "c2"])
    assert len([ax for ax in table.axes if ax.images]) == 6


def test_the_film_has_every_frame_and_holds_the_last(tmp_path):
    frames = torch.rand(6, 4, 1, 8, 8)
    path = plots.film(frames, tmp_path / "film.gif", seconds=1.2, columns=2, enlarge=2, hold=2)
    with Image.open(path) as gif:
        assert gif.n_frames == 6
        assert gif.size == (32, 32)
        gif.seek(5)
        assert gif.info["duration"] == 2000
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("n", "size"), [(2, (16, 8)), (3, (24, 8)), (5, (24, 16)), (6, (24, 16))])
def test_a_film_shows_every_image_in_its_own_colours(tmp_path, channels, n, size):
    levels = torch.linspace(0.2, 1, n)[:, None, None, None] * torch.ones(n, channels, 8, 8)
    levels[:, 1:] = 0  # red, where there are colours
    path = plots.film(levels[None], tmp_path / "film.gif", columns=3, enlarge=1)
    with Image.open(path) as gif:
        assert gif.size == size
        shown = np.asarray(gif.convert("RGB")) / 255
    for k in range(6):
        row, column = divmod(k, 3)
        tile = shown[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        value = float(levels[k, 0, 0, 0]) if k < n else 0.0
        wanted = (value, 0, 0) if channels == 3 else plots.plt.get_cmap(plots.CMAP)(value)[:3]
        if tile.size:
            np.testing.assert_allclose(tile, np.broadcast_to(wanted, tile.shape), atol=0.02)


def test_the_curve_shows_both_losses():
    rows = [{"images_seen": 1000 * i, "loss": 1 / i, "held_out": 2 / i} for i in (1, 2, 3)]
    ax = plots.curve(rows)
    lines = ax.get_lines()
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["training (current weights)", "held out (saved weights)"]
    training = [1 / i for i in (1, 2, 3)]
    held_out = [2 / i for i in (1, 2, 3)]
    assert [list(line.get_ydata()) for line in lines] == [training, held_out]


def test_a_slider_redraws_and_an_error_is_a_sentence():
    seen = []

    def draw(seed):
        seen.append(seed)
        if seed == 3:
            raise ValueError("three < five is too few")
        plots.plt.subplots(figsize=(seed, 1))
        plots.plt.subplots()  # the first counts
        print(f"seed {seed}")

    before = plots.plt.get_fignums()
    slider = ipywidgets.IntSlider(1, 0, 5)
    box = plots.explorer(draw, seed=slider)
    image, words = box.children[-2:]
    assert Image.open(io.BytesIO(image.value)).size == (100, 100)
    slider.value = 2
    assert Image.open(io.BytesIO(image.value)).size == (200, 100)
    assert words.value == "<pre>seed 2</pre>"
    slider.value = 3
    assert seen == [1, 2, 3] and image.value == b"" and image.layout.display == "none"
    assert words.value == "<pre>three &lt; five is too few</pre>"
    assert slider.continuous_update is False
    assert plots.plt.get_fignums() == before


def test_a_page_without_a_kernel_shows_the_first_picture_of_sliders():
    box = plots.explorer(lambda seed: plots.plt.subplots(), seed=ipywidgets.IntSlider(1, 0, 5))
    bundle = box._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == box.children[-2].value != b""
    assert "application/vnd.jupyter.widget-view+json" in bundle
    empty = plots.explorer(lambda seed: print("none"), seed=ipywidgets.IntSlider(1, 0, 5))
    assert "image/png" not in empty._repr_mimebundle_()


def test_sliders_have_their_picture_under_an_older_ipywidgets(monkeypatch):
    """Version 7, which Colab has, knows no bundle and shows a widget by another method."""
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")
    monkeypatch.setattr(ipywidgets.VBox, "_ipython_display_", lambda self: None, raising=False)
    box = plots.explorer(lambda a: plots.plt.subplots(), a=ipywidgets.IntSlider(1, 0, 5))
    data, _ = InteractiveShell.instance().display_formatter.format(box)
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == box.model_id
    assert base64.b64decode(data["image/png"]) == box.children[-2].value


def test_no_widget_sends_messages_while_a_notebook_runs_headless():
    """An Output widget does, and the reply of a cell was lost among them: the run stood still."""
    box = plots.explorer(lambda seed: plots.plt.subplots(), seed=ipywidgets.IntSlider(1, 0, 5))
    assert not [child for child in box.children if isinstance(child, ipywidgets.Output)]

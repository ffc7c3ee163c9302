"""The drawings: nothing clipped, nothing on top of another, and what is computed is right."""

from __future__ import annotations

import argparse
from itertools import combinations
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lensdiff.data import images
from lensdiff.lensing import parameters
from lensdiff.model import Sampling
from lensdiff.networks.unet import ResidualBlock, UNet
from lensdiff.notebook import drawings
from lensdiff.notebook.drawings import (
    blocks,
    latents,
    lens,
    network,
    page,
    process,
    sampling,
    scores,
    style,
)
from lensdiff.scores import distances
from lensdiff.scores.statistics import Statistics
from lensdiff.storage import root
from lensdiff.studies import drawings as study

matplotlib.use("Agg")
each = pytest.mark.parametrize("name", sorted(study.DRAWINGS))


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def boxes(figure: Figure) -> list[tuple[str, float, object]]:
    """(words, points, bounding box in pixels) of every text that is shown."""
    figure.canvas.draw()
    found = []
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible():
            found.append((text.get_text(), text.get_fontsize(), text.get_window_extent()))
    return found


def overlap(one: object, other: object) -> bool:
    """Whether two boxes share more than a pixel in both directions."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 1 and high > 1


@each
def test_its_words_are_legible_inside_and_apart(name):
    figure = study.DRAWINGS[name]()
    assert isinstance(figure, Figure)
    width, height = figure.bbox.size
    texts = boxes(figure)
    assert len(texts) >= 4
    for words, points, box in texts:
        assert points >= 9, words
        assert box.x0 > 0 and box.y0 > 0 and box.x1 < width and box.y1 < height, words
    for (words, _, box), (others, _, other) in combinations(texts, 2):
        assert not overlap(box, other), f"{words!r} lies on {others!r}"


def test_the_check_of_words_sees_a_clipped_one_and_two_that_overlap():
    canvas = style.Canvas()
    canvas.text(7.9, 1, "too far to the right")
    canvas.text(7.5, 1.02, "on top")
    (_, _, first), (_, _, second) = boxes(canvas.figure)
    assert first.x1 > canvas.figure.bbox.width
    assert overlap(first, second)


def test_every_drawing_of_the_package_is_written():
    public = {name for name in drawings.__all__ if callable(getattr(drawings, name))}
    assert public == set(study.DRAWINGS)


def test_the_command_writes_small_pictures_on_an_opaque_card(tmp_path):
    study.run(argparse.Namespace(out=tmp_path / "new"))
    written = sorted((tmp_path / "new").iterdir())
    assert [path.stem for path in written] == sorted(study.DRAWINGS)
    for path in written:
        assert path.stat().st_size < 120_000
        with Image.open(path) as picture:
            assert picture.mode == "P"
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        assert alpha[0, 0] == 0 and (alpha[12:-12, 12:-12] == 255).all()


@each
def test_it_lies_in_the_repository(name):
    with Image.open(root() / "figures" / "drawings" / f"{name}.png") as picture:
        wide, high = 100 * study.DRAWINGS[name]().get_size_inches()
        assert picture.size == (round(wide), round(high))


# ---- lenses --------------------------------------------------------------------------------------


def test_the_image_lies_where_the_lens_equation_has_it():
    # the source at beta, half an Einstein radius above the lens: images at theta = beta +- theta_E
    radius = 1.5
    beta = radius * lens.BETA / lens.EINSTEIN
    light = style.lens_light((radius, 0, 0, 0, -beta, 0, 0), 96)[0]
    rows = np.arange(96) - 47.5
    column = light[:, 47:49].mean(1)
    above = rows[rows < 0][column[rows < 0].argmax()] * 7.5 / 96
    below = rows[rows > 0][column[rows > 0].argmax()] * 7.5 / 96
    assert above == pytest.approx(-(beta + radius), abs=0.12)
    assert below == pytest.approx(radius - beta, abs=0.12)


def test_the_eight_pictures_are_the_eight_symmetries_of_the_first():
    turned = parameters.turned(np.repeat([lens.SPIN_TWO], 8, 0), np.arange(8))
    light = torch.from_numpy(style.lens_light(turned))[:, None]
    first = light[:1].repeat(8, 1, 1, 1)
    torch.testing.assert_close(light, images.symmetry(first, np.arange(8)), atol=2e-3, rtol=0)
    assert (light[0] - light[1]).abs().max() > 0.5


# ---- process and sampling ------------------------------------------------------------------------


def test_the_chain_keeps_the_variance_and_ends_in_noise():
    x0 = np.random.default_rng(1).standard_normal((64, 64))
    states = process.noised(x0)
    table = process.alpha_bar("linear").numpy()
    for t, x in zip(process.SHOWN[1:], states[1:], strict=True):
        assert x.std() == pytest.approx(1, abs=0.05)
        kept = np.corrcoef(x0.ravel(), x.ravel())[0, 1]
        assert kept == pytest.approx(np.sqrt(table[t - 1]), abs=0.05)


def test_the_toys_path_solves_the_flow_ode_and_heun_is_nearer_to_it():
    levels = np.linspace(sampling.SIGMA, 0.01, 400)
    exact = sampling.path(levels)
    slope = np.gradient(exact, levels, axis=0)[200]
    at = torch.from_numpy(exact[200:201])
    guess = sampling.flat(at, levels[200])
    np.testing.assert_allclose(slope, ((at - guess) / levels[200])[0], rtol=1e-3)
    end = sampling.path(np.array([sampling.NEXT]))[0]
    euler = np.hypot(*(sampling.step("ddim") - end))
    heun = np.hypot(*(sampling.step("heun") - end))
    assert heun < 0.7 * euler


def test_guidance_moves_samples_away_from_the_other_classes():
    centre = sampling.CENTRES[2].numpy()
    outwards = centre / np.hypot(*centre)
    plain, strong = (sampling.guided_points(scale) for scale in (1.0, 2.5))
    np.testing.assert_allclose(plain.mean(0), centre, atol=0.12)
    assert plain.std(0) == pytest.approx([sampling.WIDTH] * 2, rel=0.15)
    assert (strong.mean(0) - centre) @ outwards > 0.1
    assert strong.std(0).mean() < 0.9 * plain.std(0).mean()


# ---- network -------------------------------------------------------------------------------------


def test_the_unets_maps_are_those_of_the_network():
    net = UNet((16, 32), blocks=1, attention_levels=(1,), unshuffle=2)
    found = [(one.kind, one.channels, one.side, one.skip) for one in network.maps(net, 32)]
    assert found == [
        ("plain", 16, 16, None),
        ("residual", 16, 16, None),
        ("side", 16, 8, None),
        ("attention", 32, 8, None),
        ("attention", 32, 8, None),
        ("residual", 32, 8, None),
        ("attention", 32, 8, 3),
        ("attention", 32, 8, 2),
        ("side", 32, 16, None),
        ("residual", 16, 16, 1),
        ("residual", 16, 16, 0),
        ("plain", 4, 16, None),
    ]


def test_the_unets_drawing_changes_with_the_network_and_leaves_it_as_it_was():
    net = UNet((16, 32), blocks=1, attention_levels=(), unshuffle=1).train()
    before = [words for words, _, _ in boxes(drawings.unet(net, 32))]
    assert "32 × 32" in before and "16 × 16" in before and "8 × 8" not in before
    after = [words for words, _, _ in boxes(drawings.unet(UNet((48, 64, 80), blocks=1), 64))]
    assert {"48", "64", "80", "8 × 8"} <= set(after)
    assert net.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("channels", [(32,), (48, 96, 144, 192)])
def test_a_unet_of_any_depth_is_legible(channels):
    texts = boxes(drawings.unet(UNet(channels, image_channels=3), 128))
    for (words, _, box), (others, _, other) in combinations(texts, 2):
        assert not overlap(box, other), f"{words!r} lies on {others!r}"


@pytest.mark.parametrize("embedding", ["scale_shift", "add"])
def test_the_residual_blocks_parts_are_drawn_in_the_order_of_their_calls(embedding):
    block = ResidualBlock(16, 32, 8, embedding)
    called = []
    for name, module in block.named_children():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    block(torch.randn(1, 16, 4, 4), torch.randn(1, 8))
    drawn = [part for part in blocks.ORDER[embedding] if part != "silu"]
    assert set(drawn) == {name for name in called if name != "shortcut"}
    # the linear layer of the noise is called before what it enters
    without = [name for name in called if name not in ("noise", "shortcut")]
    assert [part for part in drawn if part != "noise"] == without
    before = blocks.ORDER[embedding].index("norm2") < blocks.ORDER[embedding].index("noise")
    assert before == block.scale_shift


def test_attention_weights_are_those_of_torch_and_a_ring_looks_at_the_ring():
    image = style.lens_light()[0]
    x = torch.from_numpy(blocks.features(image))
    one = torch.eye(len(x), dtype=x.dtype)
    expected = torch.nn.functional.scaled_dot_product_attention(x[None], x[None], one[None])[0]
    for row, column in blocks.QUERIES:
        found = blocks.weights(x.numpy(), (row, column))
        mine = expected[row * blocks.SIDE + column].reshape(blocks.SIDE, blocks.SIDE)
        np.testing.assert_allclose(found, mine, rtol=1e-4, atol=1e-7)
    bright = image.reshape(16, 4, 16, 4).mean((1, 3)) > 0.02
    on_ring, on_sky = (blocks.weights(x.numpy(), query)[bright].sum() for query in blocks.QUERIES)
    assert on_ring > 0.9 and on_sky < 0.1


def test_latents_are_drawn_where_the_weights_are(monkeypatch):
    asked = []

    def draw(*_, device="cpu"):
        asked.append(str(device))
        yield torch.zeros(1, 4, 4, 4, dtype=torch.bfloat16)  # of which numpy knows nothing

    monkeypatch.setattr(latents, "draw", draw)
    model = SimpleNamespace(
        denoiser=torch.nn.Linear(1, 1, device="meta"),
        denoise=lambda: None,
        denoised_shape=(4, 4, 4),
        sampling=Sampling(steps=2),
        images_of=lambda x: x,
        stretch=SimpleNamespace(inverse=lambda x: x),
        telescope=SimpleNamespace(observe=lambda light, seeds: torch.zeros(1, 1, 8, 8)),
    )
    latents._second(style.Canvas(8.0, 4.5), model)
    assert asked == ["meta"]


# ---- scores --------------------------------------------------------------------------------------


def test_the_terms_add_up_to_the_packages_distance():
    totals = []
    for _, real, drawn in scores.clouds():
        distance = distances.frechet(Statistics.of(real), Statistics.of(drawn))
        totals.append(sum(scores.terms(real, drawn)))
        assert totals[-1] == pytest.approx(distance, abs=1e-6)
    assert totals[0] == pytest.approx(1.6**2 + 0.7**2)
    assert totals[1] > 0.3
    assert totals[2] == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_are_the_packages():
    real, drawn = scores.two_sets()
    expected = distances.precision_recall(real, drawn, scores.NEIGHBOUR)
    mine = (scores.inside(drawn, real).mean(), scores.inside(real, drawn).mean())
    assert mine == pytest.approx(expected)
    assert mine[1] < mine[0] < 1


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_shows_every_notebook_and_the_models_card():
    words = " ".join(words for words, _, _ in boxes(drawings.project()))
    names = [path.stem.replace("_", " ") for path in (root() / "notebooks").glob("*.ipynb")]
    assert names
    for name in names:
        assert name in words
    assert set(page.lessons()) == set(names)

"""What an earlier version wrote is still read: a cache, a model, and the state of a training.

`tests/before` holds all three; they are copied, so that nothing in the repository changes.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lensdiff.data import images
from lensdiff.data.images import ImageSet, simulated
from lensdiff.lensing.survey import diverse
from lensdiff.model import load
from lensdiff.training import recipe, recipes
from lensdiff.training.diffusion import TrainConfig
from lensdiff.training.fit import fit

BEFORE = Path(__file__).resolve().parents[1] / "before"
RECIPE = replace(
    recipes.TINY,
    name="small",
    network={
        "channels": (16,),
        "blocks": 1,
        "attention_levels": (),
        "middle_attention": False,
        "unshuffle": 2,
    },
    train=TrainConfig(steps=4, batch=4, warmup_steps=1, held_out_every=2, save_every=2, ema=0.9),
)


def refuse(*arguments: object, **named: object) -> None:
    raise AssertionError("this was to be read, not made again")


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was written, on a machine whose precision is fp32."""
    monkeypatch.setattr(recipe, "best_precision", lambda: "fp32")
    return shutil.copytree(BEFORE, tmp_path / "before")


@pytest.fixture
def lenses(before: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """The images of the cache; the simulator is not to be called."""
    monkeypatch.setattr(images, "simulate", refuse)
    return simulated(diverse(8), 24, seed=1, cache=before / "cache")


def test_the_cache_is_read_without_simulating_again(
    before: Path, lenses: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = before / "cache" / "diverse-8-ae7bac8fa0c3"
    assert list((before / "cache").iterdir()) == [folder] == [lenses.folder]
    assert lenses.fingerprint.startswith("ae7bac8fa0c3")
    np.testing.assert_array_equal(lenses.pixels, np.load(folder / "images.npy"))
    np.testing.assert_array_equal(lenses.truth, np.load(folder / "truth.npy"))
    monkeypatch.setattr(images, "atomic", refuse)
    train, held_out = lenses.split()
    with np.load(folder / "split-0.1-0.npz") as saved:
        np.testing.assert_array_equal(train, saved["train"])
        np.testing.assert_array_equal(held_out, saved["held_out"])
    assert (len(train), len(held_out)) == (22, 2)


def test_the_model_is_loaded_and_draws(before: Path, lenses: ImageSet) -> None:
    model = load(before / "model", device="cpu", precision="fp32")
    assert model.spec["data"] == lenses.as_dict()
    assert model.spec["recipe"]["name"] == "small"
    assert model.sampling == RECIPE.sampling
    generated = model.draw(3, seed=0)
    assert generated.shape == (3, 1, 8, 8)
    assert 0 <= generated.min() < generated.max() <= 1


def test_the_state_resumes_and_ends_where_the_whole_run_ended(
    before: Path, lenses: ImageSet
) -> None:
    steps = []
    model = fit(RECIPE, lenses, before / "again", before / "state", steps.append)
    assert [step.number for step in steps] == [3, 4]
    assert sorted(path.name for path in (before / "state").iterdir()) == ["00000004", "curve.json"]
    expected = load(before / "model", device="cpu")
    assert model.spec["network"] == expected.spec["network"]
    assert model.spec["recipe"] == expected.spec["recipe"]
    assert model.spec["stretch"] == expected.spec["stretch"]
    assert [row["update"] for row in model.spec["curve"]] == [2, 4]
    for ours, theirs in zip(model.spec["curve"], expected.spec["curve"], strict=True):
        for name in ("images_seen", "loss", "held_out"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    # an fp16 rounding apart, since sums depend on the processor
    ours = model.denoiser.net.state_dict()
    for name, tensor in expected.denoiser.net.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-2, atol=1e-3)

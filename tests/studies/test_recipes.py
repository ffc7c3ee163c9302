"""The study of published solutions, with small ones."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toys_autoencoder import DIFFUSION, recipe

from lensdiff.data.images import lenses
from lensdiff.diffusion.process import Uniform
from lensdiff.errors import MetricError, ParameterError
from lensdiff.model import load
from lensdiff.networks.unet import Attention
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import ablations, cost, recipes
from lensdiff.training import recipe as module
from lensdiff.training.solution import Published, Says

SIDE = 48  # a fit bins them by three


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The command with small solutions: one in pixels, one in latents, one of ours."""
    plan = replace(DIFFUSION, name="plain", pixels=SIDE, prediction="eps")
    plan = plan.scaled(sigmas=Uniform("linear", 40, rescale=True), ema=0.0)
    says = Says("small", SIDE, 12.4, 2_000, 40)
    known = {
        "plain": Published(plan, plan, says, 40, 1.0),
        "latents": Published(
            replace(plan, name="latents"), plan, says, 40, 0.0, replace(recipe(), pixels=SIDE)
        ),
        "ours": Published(
            replace(DIFFUSION, name="ours", pixels=SIDE, noiseless=True), plan, says, 3
        ),
    }
    monkeypatch.setattr(recipes, "PUBLISHED", known)
    monkeypatch.setattr(recipes, "FURTHER", {})
    monkeypatch.setattr(recipes, "OWN_CALLS", 5)
    monkeypatch.setattr(recipes, "FITTED", 2)
    monkeypatch.setattr(recipes, "SHOWN", 16 * 4)

    def few(split: str, pixels: int, cache: object = None, noiseless: bool = False) -> object:
        return lenses(split, pixels, 40, noiseless=noiseless)

    monkeypatch.setattr(module, "lenses", few)

    def run(*words: str, read: bool = True) -> dict:
        parser = argparse.ArgumentParser()
        recipes.add_arguments(parser)
        given = ["--steps", "2", "-n", "16", "--own", "16"]
        given += ["--out", str(tmp_path), "--work", str(tmp_path / "w")]
        recipes.run(parser.parse_args([*given, *words]))
        return read_json(tmp_path / recipes.FILE, "") if read else {}

    return run


def test_a_solution_is_trained_scored_and_stored_once(study, tmp_path, monkeypatch):
    found = study("plain", "latents", "ours")
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["test lenses", "plain", "latents", "ours"]
    assert len(rows.pop("test lenses")["physics"]["rms"]) == 2
    for row in rows.values():
        assert row["card"]["n_generated"] == 16 and row["card"]["excess_error"] > 0
        assert row["own_card"]["n_generated"] == 16 and row["own_card"]["excess_error"] > 0
        assert row["images_seen"] == 2 * 4 and row["curve"]
        assert len(row["physics"]["rms"]) == 2
        fields = {"text": "small", "pixels": SIDE, "fid": 12.4, "n": 2_000}
        assert row["says"] == fields | {"steps": 40, "reference": "not said"}
        assert min(row[name] for name in ("call_s", "parameters", "flops", "update_s")) > 0
    sampler = {"steps": 40, "eta": 1.0, "calls": 5, "constant": 0}
    assert rows["plain"]["own_sampler"] == sampler
    assert rows["ours"]["own_sampler"]["calls"] == 3
    assert rows["latents"]["autoencoder_parameters"] > 0 == rows["plain"]["autoencoder_parameters"]
    folder = tmp_path / "recipes"
    assert Image.open(folder / "plain.png").size == (8 * SIDE, 2 * SIDE)
    assert Image.open(folder / "plain-own.png").size == (8 * SIDE, 2 * SIDE)
    assert load(tmp_path / "w" / "latents-2").autoencoder is not None

    def never(*_: object) -> None:
        raise AssertionError("it must not be computed again")

    monkeypatch.setattr(recipes, "compute", never)
    assert study("all") == found


def test_a_recipe_of_our_own_leaves_no_pictures_in_the_results(study, tmp_path, monkeypatch):
    ours = recipes.PUBLISHED["ours"]
    plan = replace(ours.recipe.scaled(balance=True), name="even")
    monkeypatch.setattr(recipes, "FURTHER", {"even": replace(ours, recipe=plan)})
    row = study("even")["rows"][-1]
    assert row["name"] == "even" and row["recipe"]["train"]["balance"] is True
    assert (tmp_path / "w" / "recipes" / "even.png").exists()
    assert not (tmp_path / "recipes").exists()
    assert [row["name"] for row in study("all")["rows"]][-1] == "ours"


def test_a_schedule_without_signal_is_sampled_from_a_lower_level_too(study, tmp_path, monkeypatch):
    plan = recipes.PUBLISHED["plain"]
    sigmoid = plan.recipe.scaled(sigmas=Uniform("sigmoid", 40))
    monkeypatch.setitem(recipes.PUBLISHED, "plain", replace(plan, recipe=sigmoid))
    assert float(recipes.PUBLISHED["plain"].levels[-1]) > recipes.NO_SIGNAL
    _, whole, lower = study("plain")["rows"]
    assert lower["name"] == "plain from a lower level" and lower["calls"] == 5
    assert lower["high"] == sigmoid.sampling.high
    assert lower["card"]["distance"] != whole["own_card"]["distance"]
    assert (tmp_path / "recipes" / "plain-lower.png").exists()


def test_images_are_drawn_once_even_where_scoring_failed(study, tmp_path, monkeypatch, capsys):
    def broken(*_: object) -> None:
        raise MetricError("the score fails")

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "scored", broken)
        with pytest.raises(ParameterError, match="Not all are stored: plain, ours failed"):
            study("plain", "ours")
    assert "plain: the score fails" in capsys.readouterr().out

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it must not be drawn again")

    monkeypatch.setattr(recipes.Model, "generate", never)
    monkeypatch.setattr(recipes, "generate_by_table", never)
    assert [row["name"] for row in study("plain", "ours")["rows"][1:]] == ["plain", "ours"]


def test_a_killed_drawing_goes_on_from_its_last_batch(tmp_path):
    asked = []

    def batches(seeds: range, most: int = 9):
        for k, first in enumerate(range(seeds.start, seeds.stop, 4)):
            if k == most:
                raise KeyboardInterrupt
            asked.append(first)
            part = torch.arange(first, min(first + 4, seeds.stop)) % 256
            yield (part / 255).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)

    path = tmp_path / "drawn.npz"
    with pytest.raises(KeyboardInterrupt):
        recipes.kept(path, "a", lambda seeds: batches(seeds, 2), 10)
    found = recipes.kept(path, "a", batches, 10)
    first = recipes.FIRST_SEED
    assert asked == [first, first + 4, first + 8] and found.shape == (10, 1, 2, 2)
    assert np.array_equal(found[:, 0, 0, 0] * 255, (np.arange(10) + first) % 256)
    assert np.array_equal(recipes.kept(path, "a", batches, 10), found) and len(asked) == 3
    recipes.kept(path, "b", batches, 4)  # of another model: from the start
    assert asked[3:] == [first]


def test_constant_images_are_counted_and_can_be_scored():
    images = np.full((3, 1, 4, 4), 0.5, np.float32)
    images[1, 0, 2, 2] = 1.0
    images[2] = 1.0
    found, constant = recipes.mended(images)
    assert constant == 2 and np.array_equal(found[1], images[1])
    assert [len(np.unique(image)) for image in found] == [2, 2, 2]
    assert found.max() == 1.0


def test_updates_are_timed_and_nothing_is_stored(study, tmp_path, capsys):
    study("plain", "latents", "--time", read=False)
    lines = capsys.readouterr().out
    assert re.search(r"plain: [\d.]+ s an update, [\d,]+ in 30 minutes", lines)
    assert re.search(r"small: [\d.]+ s an update", lines) and "latents:" in lines
    assert not (tmp_path / recipes.FILE).exists()


def test_a_trial_does_not_take_the_place_of_the_results(study):
    with pytest.raises(ParameterError, match="make a trial: give it --out"):
        study("plain", "--out", str(studies_folder()))


def test_operations_are_twice_the_products_of_a_call(study, tmp_path):
    study("plain")
    model = load(tmp_path / "w" / "plain-2")
    net = model.denoiser.net
    hooked = []

    def count(layer, _, output):
        hooked.append(2 * layer.weight[0].numel() * output.numel())

    def count_attention(_, given):
        channels, height, width = given[0].shape[1:]
        hooked.append(2 * 2 * (height * width) ** 2 * channels)  # scores, and the values' means

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
        elif isinstance(layer, Attention):
            layer.register_forward_pre_hook(count_attention)
    assert cost.flops(model) == sum(hooked)


def test_a_grid_has_rows_of_images_in_grey_or_colour(tmp_path):
    images = np.arange(5 * 3 * 2 * 2, dtype=np.uint8).reshape(5, 3, 2, 2)
    ablations.keep_pictures(tmp_path / "a.png", images / 255, columns=2)
    kept = np.asarray(Image.open(tmp_path / "a.png"))
    assert kept.shape == (4, 4, 3)
    assert np.array_equal(kept[2:, :2], images[2].transpose(1, 2, 0))
    ablations.keep_pictures(tmp_path / "b.png", images[:, :1] / 255, columns=2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png"))[:2, 2:], images[1, 0])


def test_an_unknown_solution_is_refused(study):
    with pytest.raises(ParameterError, match="There is no solution 'magic'; there are all, plain"):
        study("magic", read=False)


def test_calls_of_all_are_timed_in_turn_and_stored_alone(study):
    found = study("all", "--calls")
    (row,) = [one for one in found["rows"] if one["name"] != "test lenses"]
    assert row["name"] == recipes.CALLS and set(row["seconds"]) == {"plain", "latents", "ours"}
    assert all(len(each) == 5 and min(each) > 0 for each in row["seconds"].values())

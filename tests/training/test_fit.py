"""From a recipe and images to a model: what it records, its stages, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lensdiff.data.images import ImageSet, Stretch, simulated
from lensdiff.errors import CheckpointError, DataError, ParameterError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import KINDS
from lensdiff.lensing.survey import diverse
from lensdiff.model import Sampling
from lensdiff.networks import classifier
from lensdiff.training import recipes
from lensdiff.training.checks import check_places
from lensdiff.training.classifier import ClassifierConfig
from lensdiff.training.fit import fit

SMALL = recipes.Recipe(
    "small",
    network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 2},
    train=recipes.TrainConfig(
        steps=6, batch=4, held_out_every=3, held_out_images=8, save_every=2, warmup_steps=2
    ),
    sampling=Sampling(steps=3),
)
WITH_CLASSES = replace(SMALL, name="conditional", network={**SMALL.network, "classes": 3})


def made(channels=1, height=16, width=16):
    rng = np.random.default_rng(0)
    pixels = rng.random((40, channels, height, width), np.float32)
    return ImageSet("made", pixels, "a" * 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_recipe_gives_a_checkpoint_that_describes_itself_and_draws(tmp_path, channels):
    steps = []
    model = fit(SMALL, made(channels), tmp_path / "model", each=steps.append)
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    spec = json.loads((tmp_path / "model" / "spec.json").read_text())
    assert spec["images_seen"] == 24
    assert spec["recipe"]["train"]["batch"] == 4
    assert spec["data"] == {"name": "made", "fingerprint": "a" * 64, "images": 40}
    assert [row["update"] for row in spec["curve"]] == [3, 6]
    images = torch.cat(list(model.generate(range(3))))
    assert images.shape == (3, channels, 16, 16)
    assert 0 <= images.min() <= images.max() <= 1


def test_a_transformer_is_trained_saved_loaded_and_gone_on_from(tmp_path):
    network = {"patch": 4, "width": 16, "depth": 1, "heads": 2}
    plan = replace(SMALL, name="dit", kind="DiT", network=network)
    first = fit(plan, made(3), tmp_path / "first")
    assert type(first.denoiser.net).__name__ == first.spec["network"]["name"] == "DiT"
    assert first.spec["recipe"]["kind"] == "DiT"
    assert first.draw(2).shape == (2, 3, 16, 16)
    second = fit(plan, made(3), tmp_path / "second", start=first)
    assert second.spec["stages"][0]["sha256"] == first.spec["sha256"]
    with pytest.raises(CheckpointError, match="training can't go on from here"):
        fit(SMALL, made(3), tmp_path / "third", start=first)
    with pytest.raises(ParameterError, match="kind must be one of"):
        replace(SMALL, kind="MLP")


def stop_at_5(step):
    if step.number == 5:
        raise KeyboardInterrupt


def test_a_broken_off_fit_goes_on_and_keeps_its_whole_curve(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(SMALL, made(), tmp_path / "model", tmp_path / "state", stop_at_5)
    again = fit(SMALL, made(), tmp_path / "model", tmp_path / "state")
    whole = fit(SMALL, made(), tmp_path / "whole")
    assert [row["update"] for row in again.spec["curve"]] == [3, 6]
    assert again.spec["sha256"] == whole.spec["sha256"]
    # nothing is left to do
    finished = fit(SMALL, made(), tmp_path / "model", tmp_path / "state")
    assert finished.spec["sha256"] == whole.spec["sha256"]


def test_a_curve_has_no_rows_of_another_run(tmp_path):
    """A state that was deleted, as a damaged one is to be, leaves its curve beside it."""
    state = tmp_path / "state"
    fit(SMALL.scaled(held_out_every=2), made(), tmp_path / "model", state)
    shutil.rmtree(state / "00000006")
    assert [row["update"] for row in json.loads((state / "curve.json").read_text())] == [2, 4, 6]
    again = fit(SMALL.scaled(held_out_every=5), made(), tmp_path / "model", state)
    assert [row["update"] for row in again.spec["curve"]] == [5, 6]


def test_a_damaged_curve_is_named_with_its_cure(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "curve.json").write_text('[{"update": ')
    with pytest.raises(
        CheckpointError, match=r"curve\.json: can't be read .* Delete .*curve\.json"
    ):
        fit(SMALL, made(), tmp_path / "model", state)


# ---- stages --------------------------------------------------------------------------------------


def test_a_new_stage_starts_from_a_checkpoint_and_is_recorded(tmp_path):
    first = fit(SMALL, made(), tmp_path / "first")
    still = SMALL.scaled(steps=1, lr=1e-12)
    second = fit(still, made(), tmp_path / "second", start=first)
    weights = second.denoiser.net.state_dict()
    for name, tensor in first.denoiser.net.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-3)
    third = fit(still, made(), tmp_path / "third", start=tmp_path / "second")
    stages = third.spec["stages"]
    before = (first.spec, second.spec)
    assert [stage["sha256"] for stage in stages] == [spec["sha256"] for spec in before]
    assert [stage["images_seen"] for stage in stages] == [24, 4]
    assert [stage["curve"] for stage in stages] == [spec["curve"] for spec in before]
    other = replace(SMALL, prediction="v")
    message = r"first: training can't go on .*predicts edm, not v"
    with pytest.raises(CheckpointError, match=message):
        fit(other, made(), tmp_path / "other", start=first)


def test_a_state_is_of_its_start_and_of_no_other(tmp_path):
    first = fit(SMALL, made(), tmp_path / "first")
    other = fit(SMALL.scaled(seed=1), made(), tmp_path / "other")
    for start in (None, first):
        state = tmp_path / f"state-{start is None}"
        with pytest.raises(KeyboardInterrupt):
            fit(SMALL, made(), tmp_path / "model", state, stop_at_5, start=start)
        for wrong in (first,) if start is None else (None, other):
            with pytest.raises(CheckpointError, match=r"of another run .* or start differ"):
                fit(SMALL, made(), tmp_path / "model", state, start=wrong)
        again = fit(SMALL, made(), tmp_path / "model", state, start=start)
        assert again.spec["curve"][-1]["update"] == 6


def test_a_stage_keeps_its_starts_units_unless_noise_or_images_differ(tmp_path):
    seen = simulated(diverse(16), 40, seed=1, cache=tmp_path)
    first = fit(SMALL, seen, tmp_path / "first")
    fainter = 0.5 * np.array(seen.pixels)
    others = replace(seen, pixels=fainter, fingerprint="b" * 64, folder=None)
    second = fit(SMALL, others, tmp_path / "second", start=first)
    assert second.stretch == first.stretch != Stretch.of(others.pixels)
    light = simulated(diverse(16), 40, seed=1, cache=tmp_path, noiseless=True)
    third = fit(replace(SMALL, noiseless=True), light, tmp_path / "third", start=first)
    assert third.stretch == Stretch.of(light.pixels) != first.stretch
    elsewhere = replace(others, name="folder-others")
    fourth = fit(SMALL, elsewhere, tmp_path / "fourth", start=first)
    assert fourth.stretch == Stretch.of(others.pixels)


def test_a_start_of_another_width_is_one_sentence(tmp_path):
    first = fit(SMALL, made(), tmp_path / "first")
    wide = SMALL.widened(32)
    for recipe in (wide, replace(wide, network={**wide.network, "unshuffle": 4})):
        with pytest.raises(CheckpointError, match=r"channels \(16.*Take --width 16, or") as error:
            fit(recipe, made(), tmp_path / "wide", start=first)
        assert "\n" not in str(error.value)


def test_a_start_of_other_proportions_is_not_cured_by_a_width(tmp_path):
    first = fit(SMALL, made(), tmp_path / "first")
    first.spec["network"]["arguments"]["channels"] = (16, 16, 16)
    with pytest.raises(CheckpointError, match=r"\(16, 16, 16\).*\. Take a start as wide\.$"):
        fit(SMALL.widened(32), made(), tmp_path / "wide", start=first)


@pytest.mark.parametrize("labels", [{"classes": 3}, {"conditions": 7}])
def test_a_conditional_stage_starts_from_an_unconditional_one(tmp_path, labels):
    lenses = simulated(diverse(16), 40, seed=1, cache=tmp_path, noiseless=True)
    plain = fit(replace(SMALL, noiseless=True), lenses, tmp_path / "plain")
    conditional = replace(
        SMALL,
        noiseless=True,
        network={**SMALL.network, **labels},
        train=replace(SMALL.train, label_dropout=0.5),
    )
    model = fit(conditional, lenses, tmp_path / "conditional", start=plain)
    assert model.spec["stages"][0]["sha256"] == plain.spec["sha256"]
    assert model.stretch == plain.stretch
    weights = model.denoiser.net.state_dict()
    # what a label adds began at zero, and has learnt; the last row of classes is that of none
    last = weights["label.weight"][:3] if "classes" in labels else weights["label.layers.2.weight"]
    assert last.abs().max() > 0
    wanted = [0, 2] if "classes" in labels else parameters.of(lenses.truth[:2])
    generated = torch.cat(list(model.generate([1, 2], label=model.labels(wanted), guidance=2.0)))
    assert generated.shape == (2, 1, 16, 16)
    observed = simulated(diverse(16), 40, seed=1, cache=tmp_path)
    with pytest.raises(DataError, match="learns noiseless images"):
        fit(conditional, observed, tmp_path / "observed", start=plain)


def test_a_classifiers_recipe_gives_a_classifier_and_its_stages(tmp_path, monkeypatch):
    monkeypatch.setattr("lensdiff.storage.root", lambda: tmp_path)
    images = replace(made(), classes=KINDS, labels=np.arange(40) % 3)
    recipe = recipes.ClassifierRecipe(
        "small",
        train=ClassifierConfig(steps=2, frozen_steps=1, batch=4),
        survey=diverse(16),
        model={"size": 32, "head": "plain", "pretrained": False},
    )
    named = tmp_path / "data" / "checkpoints" / "first"  # where the shipped ones lie
    (tmp_path / "pyproject.toml").touch()
    rows = images.split()
    first = fit(recipe, images, named, rows=rows)
    assert isinstance(first, classifier.LensClassifier)
    assert classifier.read(named)[1]["images_seen"] == 12
    steps = []
    fit(recipe, images, tmp_path / "second", each=steps.append, rows=rows, start="first")
    assert [step.number for step in steps] == [1, 2]  # no update of the head alone
    before = classifier.read(named)[1]
    (stage,) = classifier.read(tmp_path / "second")[1]["stages"]
    assert stage["sha256"] == before["sha256"]
    with pytest.raises(CheckpointError, match="no such folder, and no shipped model"):
        fit(recipe, images, tmp_path / "third", rows=rows, start="another")
    with pytest.raises(CheckpointError, match=r"small starts from .*, not from a LensClassifier"):
        fit(recipe, images, tmp_path / "third", rows=rows, start=first)
    with pytest.raises(CheckpointError, match="small can't start from a classifier"):
        fit(SMALL, images, tmp_path / "third", start="first")


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "state", "deep/state", "../model/state"])
def test_a_state_in_the_models_folder_is_refused_before_any_update(tmp_path, monkeypatch, inside):
    monkeypatch.chdir(tmp_path)
    steps = []
    with pytest.raises(ParameterError, match=r"^model is to hold the model.* outside of it"):
        fit(SMALL, made(), "model", Path("model") / inside, steps.append)
    assert not steps and not list(tmp_path.iterdir())
    check_places("model", "model-state")
    check_places("state/model", "state")


def test_images_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(DataError, match="20 x 16 pixels are not square"):
        fit(SMALL, made(width=20), tmp_path / "model")
    with pytest.raises(DataError, match="16 x 20 pixels are not square"):
        fit(recipes.CLASSIFIERS["lensnet"], made(height=20), tmp_path / "judge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "lenses has no labels"),
        ({"labels": np.arange(39) % 3}, "39 labels for 40 images"),
        ({"labels": np.arange(40) % 3 + 1}, "image 2 has the label 3"),
        ({"labels": np.arange(40) % 2}, "lacks a class: 20 no_sub, 20 cdm, 0 axion"),
        (
            {"labels": np.minimum(np.arange(40) % 8, 2)},
            "unbalanced: 5 no_sub, 5 cdm, 30 axion",
        ),
        (
            {"labels": np.arange(40) % 2, "classes": ("a", "b")},
            r"2 classes \(a, b\), conditional is for 3",
        ),
    ],
)
def test_classes_that_cannot_be_learnt_are_refused_before_any_update(tmp_path, change, message):
    known = ("no_sub", "cdm", "axion")
    images = replace(made(), name="lenses", classes=known, labels=np.arange(40) % 3)
    steps = []
    with pytest.raises(DataError, match=message):
        fit(
            WITH_CLASSES,
            replace(images, **change),
            tmp_path / "model",
            tmp_path / "state",
            steps.append,
        )
    assert not steps
    assert not list(tmp_path.iterdir())


def test_unequal_classes_are_learnt_where_that_is_meant_and_other_classes_are_no_start(tmp_path):
    labels = np.minimum(np.arange(40) % 8, 2)
    images = replace(made(), classes=("no_sub", "cdm", "axion"), labels=labels)
    model = fit(WITH_CLASSES, images, tmp_path / "model", unbalanced=True)
    assert model.spec["classes"] == ["no_sub", "cdm", "axion"]
    assert model.denoiser.net.classes == 3
    again = fit(WITH_CLASSES, images, tmp_path / "again", start=model, unbalanced=True)
    assert again.spec["stages"][0]["sha256"] == model.spec["sha256"]
    other = replace(images, classes=("dog", "cat", "bird"), labels=np.arange(40) % 3)
    message = r"model: it knows the classes \('no_sub', 'cdm', 'axion'\), not \('dog'"
    with pytest.raises(CheckpointError, match=message):
        fit(WITH_CLASSES, other, tmp_path / "never", start=model)
    # a start without classes knows none that could differ
    plain = fit(SMALL, other, tmp_path / "plain")
    fit(WITH_CLASSES, other, tmp_path / "conditional", start=plain)


def test_images_are_unseen_only_where_their_rows_are_known(tmp_path):
    """Other rows to train on may have some that the default split holds out."""
    images = made()
    by_default = images.split()
    given = {"default": None, "fewer": (by_default[0][::2], by_default[1])}
    for name, rows in given.items():
        spec = fit(SMALL, images, tmp_path / name, rows=rows).spec
        np.testing.assert_array_equal(images.unseen(spec).pixels, images.pixels[by_default[1]])
    every = np.arange(len(images))
    spec = fit(SMALL, images, tmp_path / "other", rows=(every[1::2], every[::2])).spec
    with pytest.raises(ParameterError, match="rows of it that were chosen by hand"):
        images.unseen(spec)

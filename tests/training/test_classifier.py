"""Training a classifier: its two stages, what it learns from, its resume, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys_classifier import small_classifier, squares

from lensdiff.data import labels
from lensdiff.errors import CheckpointError, DataError, TrainingError
from lensdiff.lensing.population import KINDS
from lensdiff.networks import classifier
from lensdiff.networks.classifier import predict
from lensdiff.scores import classification
from lensdiff.training.classifier import (
    Batches,
    ClassifierConfig,
    fit_classifier,
    train_classifier,
)
from lensdiff.training.loop import Step

QUICK = ClassifierConfig(
    steps=6, frozen_steps=3, batch=6, lr=5e-4, warmup_steps=1, held_out_every=3, save_every=2
)

# ---- two stages ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_what_can_be_learnt() -> None:
    model = small_classifier(pretrained=True)
    fresh = squares(60, seed=9)
    settings = replace(QUICK, steps=50, frozen_steps=10, batch=24, lr=1e-3)
    numbers = [step.number for step in train_classifier(model, squares(120), settings)]
    assert numbers == list(range(1, 61))
    assert classification.report(predict(model, fresh), fresh.labels, KINDS)["accuracy"] > 0.8


def test_the_first_stage_leaves_the_backbone_alone() -> None:
    model = small_classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = train_classifier(model, squares(), QUICK)
    for _ in range(3):
        next(steps)
    after = model.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"head"}
    next(steps)
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert any(name.startswith("backbone") for name in changed)


def test_steps_count_through_both_stages_and_score_what_is_held_out() -> None:
    steps = list(train_classifier(small_classifier(), squares(), QUICK))
    assert [step.number for step in steps] == list(range(1, 10))
    assert [step.images_seen for step in steps] == [6 * k for k in range(1, 10)]
    looked = [step.number for step in steps if step.held_out is not None]
    assert looked == [3, 6, 9]
    assert all(0 <= step.scores["accuracy"] <= 1 for step in steps if step.held_out is not None)
    seconds = [step.seconds for step in steps]
    assert seconds == sorted(seconds)  # the second stage goes on from the first
    assert not steps[-1].model.training


def test_without_a_first_stage_everything_learns_at_once() -> None:
    model = small_classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step = next(train_classifier(model, squares(), replace(QUICK, frozen_steps=0)))
    after = model.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"head", "backbone"} and step.number == 1


# ---- a run that goes on --------------------------------------------------------------------------


def kill_at(number: int):
    """What `each` is called with to end a run at an update."""

    def kill(step: Step) -> None:
        if step.number == number:
            raise KeyboardInterrupt

    return kill


@pytest.mark.parametrize("number", [2, 8])  # in the first stage, and in the second
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, number: int) -> None:
    images = squares()
    state = tmp_path / "state"
    whole = fit_classifier(small_classifier(), images, QUICK, tmp_path / "whole")
    folder = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(small_classifier(), images, QUICK, folder, state=state, each=kill_at(number))
    again = fit_classifier(small_classifier(), images, QUICK, folder, state=state)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    spec = json.loads((folder / "spec.json").read_text())
    assert [row["update"] for row in spec["curve"]] == [3, 6, 9] and spec["images_seen"] == 54
    finished = fit_classifier(small_classifier(), images, QUICK, folder, state=state)
    assert torch.equal(finished.head.last.weight, again.head.last.weight)
    other = replace(QUICK, lr=1e-4)
    with pytest.raises(CheckpointError, match="another run"):
        fit_classifier(small_classifier(), images, other, tmp_path / "other", state=state)


def test_a_run_from_other_first_weights_is_another_run(tmp_path: Path) -> None:
    for _ in train_classifier(small_classifier(), squares(), QUICK, state=tmp_path):
        pass
    other = small_classifier()
    other.begun = "SHA-256 of a file of weights"
    with pytest.raises(CheckpointError, match="another run"):
        next(train_classifier(other, squares(), QUICK, state=tmp_path))


def test_nan_is_refused_and_labels_of_any_whole_kind_are_taken() -> None:
    images = squares()
    pixels = np.array(images.pixels)
    pixels[7, 0, 3, 3] = np.nan
    with pytest.raises(DataError, match="image 7 holds NaN or infinity"):
        list(train_classifier(small_classifier(), replace(images, pixels=pixels), QUICK))
    few = replace(images, labels=images.labels.astype(np.int32))
    *_, last = train_classifier(small_classifier(), few, QUICK)
    assert np.isfinite(last.held_out)


def test_a_new_stage_goes_on_from_a_classifier_and_is_recorded(tmp_path: Path) -> None:
    start = tmp_path / "first"
    images = squares()
    first = fit_classifier(small_classifier(), images, QUICK, start)
    still = replace(QUICK, steps=1, frozen_steps=0, lr=1e-12, weight_decay=0.0)
    folder = tmp_path / "second"
    second = fit_classifier(small_classifier(seed=5), images, still, folder, start=start)
    ours = second.head.last.weight
    torch.testing.assert_close(ours, first.head.last.weight, rtol=0, atol=1e-3)
    stages = classifier.read(folder)[1]["stages"]
    before = classifier.read(start)[1]
    assert [stage["images_seen"] for stage in stages] == [54]
    assert all(stages[0][name] == before[name] for name in ("sha256", "curve", "config"))
    state = tmp_path / "state"
    fit_classifier(small_classifier(), images, still, folder, state=state, start=start)
    fit_classifier(small_classifier(), images, still, folder, state=state, start=start)
    for another in (None, folder):
        with pytest.raises(CheckpointError, match=r"another run .* or start differ"):
            fit_classifier(small_classifier(), images, still, folder, state=state, start=another)
    plain = small_classifier(head="plain")
    with pytest.raises(CheckpointError, match="Take the same network"):
        fit_classifier(plain, images, still, tmp_path / "third", start=start)


# ---- batches and settings ------------------------------------------------------------------------


def test_images_are_turned_by_the_given_elements_only() -> None:
    images = squares(6)
    x, found = Batches(images, np.arange(6), replace(QUICK, elements=(2,)))(0)
    for image, label in zip(x, found, strict=True):
        same = [np.array_equal(image[0], np.rot90(pixels[0], 2)) for pixels in images.pixels]
        assert sum(same) == 1 and images.labels[same.index(True)] == label


def test_an_epoch_has_each_image_once() -> None:
    _, found = Batches(squares(6), np.arange(6), QUICK)(5)
    assert sorted(found.tolist()) == [0, 0, 1, 1, 2, 2]


def test_without_elements_the_symmetries_are_those_of_the_images() -> None:
    images = squares(6)
    upright, _ = Batches(images, np.arange(6), QUICK)(0)
    pixels = [image.tobytes() for image in images.pixels]
    assert all(image.numpy().tobytes() in pixels for image in upright)
    turned, _ = Batches(replace(images, symmetries=8), np.arange(6), QUICK)(0)
    assert not all(image.numpy().tobytes() in pixels for image in turned)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 1},
        {"elements": (8,)},
        {"elements": ()},
        {"frozen_lr": -1.0},
        {"label_smoothing": 1.5},
    ],
)
def test_bad_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"steps must|elements are|frozen_lr must|smoothing must"):
        ClassifierConfig(**wrong)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    wild = replace(QUICK, frozen_steps=0, lr=1e30, warmup_steps=0, clip=1e30)
    with pytest.raises(TrainingError, match=r"loss is .* at update"):
        list(train_classifier(small_classifier(), squares(), wild))


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has no labels"),
        ({"labels": np.arange(50) % 3}, "50 labels for 60 images"),
        ({"labels": np.arange(60) % 4}, "image 3 has the label 3"),
        ({"labels": np.arange(60) % 3 - 1}, "image 0 has the label -1"),
        ({"labels": np.arange(60) % 2}, "lacks a class: 30 no_sub, 30 cdm, 0 axion"),
        ({"labels": np.minimum(np.arange(60) % 6, 2)}, "unbalanced: 10 no_sub, 10 cdm, 40 axion"),
        ({"classes": ("cat", "dog", "bird")}, "has the classes .*cat.* the classifier"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused_before_any_step(
    change: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        next(train_classifier(small_classifier(), replace(squares(), **change), QUICK))


def test_an_unbalanced_set_can_be_balanced_or_taken_as_it_is() -> None:
    uneven = replace(squares(), labels=np.minimum(np.arange(60) % 6, 2))
    even = labels.balanced(uneven)
    assert np.bincount(even.labels).tolist() == [10, 10, 10]
    assert len(even) == len(even.pixels) == 30
    labels.check_classes(even, KINDS)
    next(train_classifier(small_classifier(), uneven, QUICK, unbalanced=True))

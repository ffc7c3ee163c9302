"""The shipped classifier as an extractor, and whether it is as good as its report says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lensdiff.data import images
from lensdiff.networks.classifier import load, predict, read
from lensdiff.scores import classification, features, statistics
from lensdiff.storage import shipped
from lensdiff.training import recipes


def stored_report(name: str) -> dict:
    return json.loads((shipped(name) / "report.json").read_text())


def test_the_extractor_is_the_shipped_classifier() -> None:
    net = features.extractor("lensnet")
    spec = read(shipped("lensnet"))[1]
    assert net.name == "FD-LensNet" and net.sha256 == spec["sha256"] and net.width == 128
    pixels = torch.randint(0, 256, (2, 1, 150, 150), dtype=torch.uint8)
    found = net(pixels)
    assert found.shape == (2, 128) and found.isfinite().all() and not found.requires_grad
    expected = load(shipped("lensnet"), device="cpu").features(pixels.float() / 255)
    torch.testing.assert_close(found, expected)


def test_another_classifier_gives_the_distance_its_name() -> None:
    net = features.extractor("lensnet", path=shipped("judge64"))
    assert net.name == "FD-judge64" and net.sha256 == read(shipped("judge64"))[1]["sha256"]


def test_the_shipped_classifier_is_that_of_its_recipe() -> None:
    recipe = recipes.LENSNET
    spec = read(shipped("lensnet"))[1]
    assert {name: spec["arguments"][name] for name in recipe.model} == recipe.model
    first = [*spec.get("stages", []), spec][0]
    updates = recipe.train.steps + recipe.train.frozen_steps
    assert first["images_seen"] == updates * recipe.train.batch


def test_its_report_agrees_with_itself() -> None:
    report = stored_report("lensnet")
    assert report["weights_sha256"] == read(shipped("lensnet"))[1]["sha256"]
    assert report["all"]["n"] == 7_500 and report["tenth"]["n"] == 750
    for part in (report["all"], report["tenth"]):
        assert np.sum(part["confusion"]) == part["n"]
        right = np.trace(part["confusion"])
        assert right / part["n"] == pytest.approx(part["accuracy"])
        assert part["interval"] == pytest.approx(classification.interval(right, part["n"]))
        assert part["interval"][0] < part["accuracy"] < part["interval"][1]


@pytest.mark.slow
def test_the_shipped_classifier_is_right_as_often_as_its_report_says(tmp_path) -> None:
    report = stored_report("lensnet")["all"]
    # a seed that it has never met
    fresh = images.simulated(recipes.LENSNET.survey, 240, seed=11, cache=tmp_path)
    right = int((predict(load(shipped("lensnet")), fresh).argmax(1) == fresh.labels).sum())
    low, high = classification.interval(right, 240, level=0.999)
    assert low < report["accuracy"] < high
    found = features.extractor("lensnet")(statistics.to_uint8(fresh.pixels[:6]))
    assert found.shape == (6, 128) and found.isfinite().all()

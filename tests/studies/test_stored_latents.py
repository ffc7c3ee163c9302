"""The shipped autoencoders, the models on their latents, and what is stored of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lensdiff.data.digits import digits
from lensdiff.model import load
from lensdiff.networks import classifier
from lensdiff.scores.classification import interval
from lensdiff.storage import read_json, shipped, studies_folder
from lensdiff.studies import autoencoders, gallery_page, latent_lenses, latents
from lensdiff.training import recipes


def table(name: str) -> dict:
    return read_json(studies_folder() / name, "")


def folder_size(name: str) -> int:
    return sum(path.stat().st_size for path in shipped(name).glob("*.safetensors"))


@pytest.mark.parametrize("name", recipes.AUTOENCODERS)
def test_a_shipped_autoencoder_is_what_its_recipe_says(name):
    made = load(shipped(name))
    recipe = recipes.AUTOENCODERS[name]
    assert type(made.net).__name__ == recipe.kind
    arguments = made.spec["network"]["arguments"]
    written = json.loads(json.dumps(recipe.network))
    assert {key: arguments[key] for key in written} == written
    assert made.spec["images_seen"] == recipe.train.steps * recipe.train.batch
    assert made.spec["scores"]["error"] < 0.02
    assert 0.05 < float(made.net.std.min())  # no channel says nothing


@pytest.mark.parametrize(("name", "within"), [("latent-digits", 1e7), ("latent150", 2e7)])
def test_a_latent_model_finds_its_shipped_autoencoder(name, within):
    model = load(shipped(name))
    assert model.autoencoder.folder == shipped(model.spec["autoencoder"]["name"])
    assert model.autoencoder.sha256 == model.spec["autoencoder"]["sha256"]
    assert folder_size(name) + folder_size(model.autoencoder.folder.name) < within


def test_digits_are_recognised_as_those_that_were_asked_for():
    """The stored counts, and a hundred drawn here."""
    model = load(shipped("latent-digits"))
    stored = table(latents.FILE)
    assert stored["model_sha256"] == model.spec["sha256"]
    guided = [row for row in stored["rows"] if row["role"] == "guided"]
    assert [row["guidance"] for row in guided] == list(latents.GUIDANCE)
    assert all(row["n"] == 1_000 and row["accuracy"] >= 0.95 for row in guided)
    assert max(row["interval"][0] for row in guided) > 0.98
    judge = classifier.load(shipped("judge-digits"), digits("test").classes, device="cpu")
    wanted = np.arange(100) % 10
    images = model.draw(100, 7, wanted, guidance=1.5)
    assert (classifier.predict(judge, images).argmax(1) == wanted).sum() >= 97


def test_the_judge_of_digits_is_right_on_98_percent_of_digits_it_never_saw():
    test = digits("test")
    judge = classifier.load(shipped("judge-digits"), test.classes, device="cpu")
    report = read_json(shipped("judge-digits") / "report.json", "")["all"]
    right = int((classifier.predict(judge, test.pixels[:]).argmax(1) == test.labels).sum())
    assert report["n"] == len(test) == 1_000
    assert right >= 980 and abs(right - 1_000 * report["accuracy"]) <= 1
    assert tuple(report["interval"]) == pytest.approx(interval(982, 1_000))


def test_the_stored_autoencoders_are_the_shipped_ones():
    rows = table(autoencoders.FILE)["rows"]
    names = {row["name"]: row["sha256"] for row in rows if "name" in row}
    assert names == {name: load(shipped(name)).sha256 for _, name in autoencoders.SHIPPED}
    kinds = {tuple(row[name] for name in autoencoders.NAMES) for row in rows if "kind" in row}
    expected = {
        tuple(getattr(variant, name) for name in autoencoders.NAMES)
        for variant in autoencoders.VARIANTS
    }
    assert kinds == expected


def test_a_gallery_says_where_a_model_was_trained():
    where = gallery_page._where
    assert where("NVIDIA H200") == "an NVIDIA H200"
    assert where("x86_64, 1 threads") == "one CPU core"
    assert where("x86_64, 2 threads") == where("2 CPU cores (x86-64)") == "two CPU cores"
    words = gallery_page.training("latent-digits")
    both = [load(shipped(name)).spec["seconds"] for name in ("latent-digits", "digits-vq")]
    assert words == f"256,000 images, {sum(both) / 60:.0f} min on two CPU cores"


def test_a_latent_models_images_are_within_their_limits():
    images = torch.cat(list(load(shipped("latent-digits")).generate(range(4))))
    assert images.min() >= 0 and images.max() <= 1 and images.amax((1, 2, 3)).min() > 0.8


def test_the_published_experiment_has_every_schedule_thrice():
    stored = table(latents.FILE)
    rows = [row for row in stored["rows"] if row["role"] == "schedule"]
    found = sorted((row["T"], row["rescale"], row["seed"]) for row in rows)
    assert found == sorted((*one, seed) for one in latents.RUNS for seed in range(3))
    assert (stored["updates"], stored["looked"]) == (1_200, 400)
    left = {(row["T"], row["rescale"]): row["signal_left"] ** 2 for row in rows}
    assert left[200, False] == pytest.approx(0.132, abs=1e-3)
    assert left[300, False] == pytest.approx(0.048, abs=1e-3)
    assert max(left[200, True], left[300, True]) < 1e-4
    for row in rows:
        assert [look["steps"] for look in row["looks"]] == list(latents.STEPS)
        assert min(look["distance"] for look in row["looks"]) > 1  # training digits have 0.7


def test_a_start_without_signal_costs_more_the_more_is_missing():
    stored = table(latents.FILE)
    rows = [row for row in stored["rows"] if row["role"] == "start"]
    assert len(rows) == 9 and {row["seed"] for row in rows} == {0, 1, 2}
    by_level = {}
    for row in rows:
        by_level.setdefault(row["sigma"], []).append((row["distance"], row["accuracy"]))
    low, middle, own = (np.array(by_level[sigma]) for sigma in sorted(by_level))
    assert low[:, 0].min() > middle[:, 0].max() > middle[:, 0].min() > own[:, 0].max()
    assert low[:, 1].max() < middle[:, 1].min() < own[:, 1].min()


def test_lenses_of_latents_are_stored_with_their_cost_and_quality():
    rows = table(latent_lenses.FILE)["rows"]
    model = load(shipped("latent150"))
    mine = [row for row in rows if row["model_sha256"] == model.spec["sha256"]]
    assert sorted(row["role"] for row in mine) == ["cost", "quality", "quality"]
    others = [row for row in rows if row not in mine]
    assert {row["name"] for row in others} == {"lens150-hour"} and len(others) == 3
    (cost, other) = (next(r for r in part if r["role"] == "cost") for part in (mine, others))
    minutes = [
        (row["updates"] * row["update_s"] + row["autoencoder_training_s"]) / 60
        for row in (cost, other)
    ]
    assert minutes == pytest.approx([minutes[0]] * 2, rel=0.1)  # equal minutes
    assert cost["training_bytes"] < 0.5 * other["training_bytes"]
    quality = {row["calls"]: row for row in mine if row["role"] == "quality"}
    card = read_json(shipped("latent150") / "card.json", "")
    assert quality[20]["distance"] == pytest.approx(card["distance"], abs=2 * card["excess_error"])
    rival = next(row for row in others if row.get("calls") == 20)
    gap = rival["distance"] - quality[20]["distance"]
    assert gap > 5 * np.hypot(rival["excess_error"], quality[20]["excess_error"])

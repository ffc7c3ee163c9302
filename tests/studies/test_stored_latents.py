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
from lensdiff.studies import autoencoders, gallery_page, latents
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
    report = read_json(shipped("judge-digits") / "report.json", "")["all"]
    assert report["n"] == 1_000 and report["accuracy"] >= 0.98
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

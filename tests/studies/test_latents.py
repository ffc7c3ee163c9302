"""The study of digits as latents, on spots in place of digits, with small networks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from toys_autoencoder import DIFFUSION, blobs, saved
from toys_classifier import small_classifier

from lensdiff.diffusion.process import Uniform, schedule
from lensdiff.errors import CheckpointError, ParameterError
from lensdiff.model import load
from lensdiff.networks import classifier
from lensdiff.scores.statistics import as_stored
from lensdiff.storage import read_json
from lensdiff.studies import latents
from lensdiff.training.fit import fit

CLASSES = ("small", "middle", "large")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> SimpleNamespace:
    """A latent model of spots, conditional on their size, and a classifier of sizes."""
    root = tmp_path_factory.mktemp("latents")
    autoencoder = saved(root / "autoencoder")
    network = {**DIFFUSION.network, "classes": 3}
    plan = replace(DIFFUSION, network=network)
    fit(plan, blobs(), root / "model", autoencoder=autoencoder)
    judge = small_classifier(size=32, view="resize", classes=CLASSES)
    classifier.save(root / "judge", judge)
    return SimpleNamespace(root=root, model=root / "model", judge=root / "judge", network=network)


@pytest.fixture
def study(folders, tmp_path, monkeypatch):
    """The command with its arguments, on spots."""
    plan = replace(DIFFUSION, network=folders.network)
    monkeypatch.setattr(latents, "LATENT_DIGITS", plan)
    monkeypatch.setattr(latents, "digits", lambda split="train": blobs(24, seed=split == "test"))
    monkeypatch.setattr(latents, "STEPS", (2, 3))
    monkeypatch.setattr(latents, "SHOWN", 4)

    def run(*more: str) -> dict:
        parser = argparse.ArgumentParser()
        latents.add_arguments(parser)
        given = ["--model", str(folders.model), "--judge", str(folders.judge), "--updates", "2"]
        given += ["--drawn", "12", "--looked", "8", "--seeds", "1", "--out", str(tmp_path), *more]
        latents.run(parser.parse_args(given))
        return read_json(tmp_path / latents.FILE, "")

    return run


def test_every_row_is_computed_once_and_pictures_are_kept(study, tmp_path, monkeypatch):
    found = study()
    rows = found["rows"]
    roles = [row["role"] for row in rows]
    assert roles == [
        "real",
        "reconstructed",
        "real",
        *["guided"] * 3,
        *["start"] * 3,
        *["schedule"] * 4,
    ]
    assert [row["n"] for row in rows[:9]] == [12, 12, 8, *[12] * 6]
    for row in rows[:9]:
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
        assert row["distance"] > 0 and 0 <= row["sure"] <= 1
    ends = {(row["T"], row["rescale"]): row["signal_left"] for row in rows[9:]}
    for (T, rescale), left in ends.items():
        alpha_bar = 1 / (1 + schedule("linear", T, rescale)[-1] ** 2) if rescale else None
        betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
        expected = alpha_bar if rescale else (1 - betas).prod()
        assert left**2 == pytest.approx(float(expected), rel=1e-4)
    assert [[one["steps"] for one in row["looks"]] for row in rows[9:]] == [[2, 3]] * 4
    kept = {path.stem for path in (tmp_path / "latents").glob("*.png")}
    runs = ("T200", "T300", "T200-rescaled", "T300-rescaled")
    names = {f"guidance-{g:g}" for g in latents.GUIDANCE}
    assert kept == names | {f"{run}-{steps}" for run in runs for steps in (2, 3)}
    assert Image.open(tmp_path / "latents" / "T200-2.png").size == (4 * 14, 14)

    def never(*_: object) -> None:
        raise AssertionError("it must not be computed again")

    monkeypatch.setattr(latents.Study, "schedule", never)
    monkeypatch.setattr(latents.Study, "guided", never)
    monkeypatch.setattr(latents.Study, "started", never)
    assert study() == found


def test_a_run_predicts_noise_without_classes_on_its_own_levels(monkeypatch):
    for T, rescale in latents.RUNS:
        plan = latents.recipe(T, rescale, 2, 30)
        assert plan.prediction == "eps"
        assert "classes" not in plan.network
        assert plan.train.sigmas == Uniform("linear", T, rescale)
        assert (plan.train.steps, plan.train.seed) == (30, 2)
        assert plan.name == f"T{T}" + "-rescaled" * rescale


def test_a_start_has_the_noise_of_its_level_and_seeds_of_its_own(study, folders, monkeypatch):
    drawn = []
    true = latents.Model.draw

    def watched(self, n, seed, labels, *rest, sampling=None):
        drawn.append((seed, sampling and sampling.high))
        return true(self, n, seed, labels, *rest, sampling=sampling)

    monkeypatch.setattr(latents.Model, "draw", watched)
    rows = [row for row in study("--seeds", "2")["rows"] if row["role"] == "start"]
    own = load(folders.model).sampling.high
    first = latents.FIRST_SEED
    assert drawn[3:] == [(first + 12 * s, row["sigma"]) for s in (0, 1) for row in rows[:3]]
    left = [row["signal_left"] ** 2 for row in rows[:3]]
    betas = [torch.linspace(1e-4, 0.02, T, dtype=torch.float64) for T in (200, 300)]
    assert left[:2] == pytest.approx([float((1 - beta).prod()) for beta in betas], rel=1e-4)
    assert rows[2]["sigma"] == own and left[2] == pytest.approx(1 / (1 + own**2))


def test_images_like_the_test_set_are_nearer_than_others(folders):
    scorer = latents.Scorer.of(folders.judge, blobs(60, seed=1))
    alike = scorer.likeness(blobs(60, seed=2).pixels)
    noise = np.random.default_rng(0).random((60, 1, 14, 14), np.float32)
    assert alike["distance"] < 0.5 * scorer.likeness(noise)["distance"]
    spots = blobs(60, seed=2)
    answers = classifier.predict(scorer.judge, as_stored(spots.pixels)).argmax(1)
    found = scorer.recognised(spots.pixels, spots.labels)
    assert found["accuracy"] == (answers == spots.labels).mean()
    assert found["distance"] == alike["distance"]


def test_models_that_do_not_suit_are_refused(study, folders, tmp_path):
    with pytest.raises(ParameterError, match="lens64 draws no latents"):
        study("--model", "lens64")
    with pytest.raises(CheckpointError, match="can't be read"):
        study("--judge", str(tmp_path / "nowhere"))
    assert not (tmp_path / latents.FILE).exists()
    assert load(folders.model).autoencoder is not None

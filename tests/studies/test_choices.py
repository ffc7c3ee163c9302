"""What the long training leaves open, beside a control, with a small network and few lenses."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys_ours import OURS, SIDE, take_small
from toys_scores import Pooled

from lensdiff.data.images import lenses
from lensdiff.errors import ParameterError
from lensdiff.model import Sampling
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import choice_training, choices, muon
from lensdiff.training.fit import fit

PLAN = replace(OURS, sampling=Sampling(steps=4, high=64.0, low=0.1))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Its networks are small, its lenses few."""
    take_small(monkeypatch)

    def few(split: str, pixels: int, n: int = 40, noiseless: bool = False) -> object:
        return lenses(split, pixels, n, noiseless=noiseless)

    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    for module in (choices, choice_training):
        monkeypatch.setattr(module, "lenses", few)
    monkeypatch.setattr(choice_training, "PIXELS", SIDE)
    monkeypatch.setattr(choices, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(choice_training, "TINY", PLAN)
    known = fit(PLAN.scaled(steps=2), PLAN.images("train"), tmp_path / "known")
    monkeypatch.setattr(choice_training, "SHIPPED", str(known.folder))
    choice_training.images_of.cache_clear()
    yield known
    choice_training.images_of.cache_clear()


def command(out, *words: str) -> dict:
    parser = argparse.ArgumentParser()
    choices.add_arguments(parser)
    given = ["-n", "16", "--steps", "2", "--out", str(out), "--work", str(out / "w")]
    choices.run(parser.parse_args([*words, *given]))
    return read_json(out / choices.FILE, "")


@pytest.mark.skipif(not muon.HAS, reason="this PyTorch has no Muon")
def test_each_choice_is_trained_scored_and_kept(small, tmp_path, monkeypatch):
    found = command(tmp_path, "--seeds", "0")
    *rows, timed, gap = found["rows"]
    assert list(timed["seconds"]) == [row["name"] for row in rows[:5]]
    assert all(len(x) == 7 and min(x) > 0 for x in timed["seconds"].values())
    assert [row["name"] for row in rows] == list(choices.CHOICES)
    assert len({row["sha256"] for row in rows}) == len(rows)
    for row in rows:
        assert row["images_seen"] == 64  # equal for all
        assert len(row["errors"]) == len(choices.LEVELS) and min(row["errors"]) > 0
        drawn = not choice_training.CHOICES[row["name"]].goes_on
        assert ("distance" in row) == drawn == ("recall" in row)
    assert rows[3]["recipe"]["train"]["batch"] == 16 and rows[3]["recipe"]["train"]["steps"] == 4
    assert gap["n"] == 32 and len(gap["gap"]) == len(gap["gap_error"]) == len(choices.LEVELS)
    monkeypatch.setattr(choice_training, "trained", None)  # a second training would fail
    assert command(tmp_path, "--seeds", "0") == found


def test_all_images_are_simulated_for_what_they_are(small):
    own, (learnt, held) = choice_training.images_of("own")
    for learns in ("rotated", "more"):
        images, (rows, again) = choice_training.images_of(learns)
        assert (again == held).all() and not np.isin(held, rows).any()
        assert len(rows) == (1 + choice_training.COPIES) * len(learnt) == len(np.unique(rows))
        assert (images.pixels[: len(own)] == own.pixels).all()
        assert (images.pixels[len(own) :].min((1, 2, 3)) == 0).all()
        assert (images.pixels[len(own) :].max((1, 2, 3)) == 1).all()
        assert images.fingerprint != own.fingerprint
        first = images.truth["einstein_radius_arcsec"][len(own) : len(own) + len(learnt)]
        same = first == own.truth["einstein_radius_arcsec"][learnt]
        assert same.all() == (learns == "rotated")


def test_an_error_is_that_of_the_guess(small):
    clean = lenses("test", SIDE, 70, noiseless=True).pixels
    found = choices.errors(small, clean)
    assert found.shape == (70, len(choices.LEVELS))
    assert (found[:3] == choices.errors(small, clean[:3])).all()  # whatever follows
    far = replace(small, denoiser=lambda x, sigma: torch.zeros_like(x))
    far.denoiser.parameters = small.denoiser.parameters
    expected = small.stretch(torch.tensor(clean)).square().mean((1, 2, 3)).double().numpy()
    assert choices.errors(far, clean)[:, 0] == pytest.approx(expected, rel=1e-5)


def test_what_is_unknown_or_a_trial_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="There is no 'adam'; there are control, lower"):
        command(tmp_path, "adam")
    with pytest.raises(ParameterError, match="make a trial: give it --out"):
        command(studies_folder(), "--out", str(studies_folder()))


def test_a_model_of_other_circumstances_is_trained_anew(small, tmp_path):
    args = argparse.Namespace(work=tmp_path / "w", steps=2)
    first = choice_training.trained("control", 0, args)
    assert choice_training.trained("control", 0, args).spec["sha256"] == first.spec["sha256"]
    args.steps = 3
    again = choice_training.trained("control", 0, args)
    assert again.folder == first.folder and again.spec["images_seen"] == 96


@pytest.mark.skipif(not muon.HAS, reason="this PyTorch has no Muon")
def test_muon_without_its_scaler_is_refused(small, monkeypatch):
    plan = choice_training.recipe("muon", 0, 2)
    scaled = type("Scaled", (choice_training.Run,), {})
    monkeypatch.setattr(choice_training, "Run", scaled)
    real = scaled.__init__

    def with_scaler(self, *given):
        real(self, *given)
        self.accelerator.scaler = object()

    monkeypatch.setattr(scaled, "__init__", with_scaler)
    with pytest.raises(ParameterError, match="Muon is not scaled for fp16"):
        choice_training.training(choice_training.CHOICES["muon"], plan, small)


def test_without_muon_the_others_are_tried(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(muon, "HAS", False)
    found = command(tmp_path, "--seeds", "0")
    assert "muon" not in [row.get("name") for row in found["rows"]]
    assert {row.get("role") for row in found["rows"]} == {None, "times", "gap"}
    assert "has no Muon, which is left out" in capsys.readouterr().out

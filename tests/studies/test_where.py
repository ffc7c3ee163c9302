"""Where a model's error is born: restoring from a level, and rows that are computed once."""

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys_scores import Pooled, small_model

from lensdiff.data.images import Stretch, simulated
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import DataError, MetricError, ParameterError
from lensdiff.lensing.population import KINDS
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import Telescope
from lensdiff.model import Model, Sampling
from lensdiff.networks import classifier
from lensdiff.scores.statistics import as_stored
from lensdiff.storage import shipped
from lensdiff.studies import census, where

SAMPLING = Sampling(steps=20, high=160.0, low=0.06)


@dataclass(frozen=True)
class Knowing:
    """A model whose denoiser answers `share` of the truth at any noise."""

    truth: torch.Tensor
    share: float
    telescope: object
    denoiser: torch.nn.Module
    stretch: Stretch

    def denoise(self, _sampling: Sampling):
        return lambda x, sigma, label=None: self.share * self.stretch(self.truth).to(x)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return simulated(diverse(16), 64, 3, cache=cache, noiseless=True)


def test_a_level_keeps_the_density_of_the_levels():
    ratio = math.log(160.0 / 0.06) / 19
    for sigma in (*where.SIGMAS, 160.0):
        chosen = where.from_level(SAMPLING, sigma)
        assert chosen.high == sigma
        assert chosen.low == SAMPLING.low
        spacing = math.log(sigma / 0.06) / (chosen.steps - 1)
        assert spacing == pytest.approx(ratio, rel=0.08)
    assert where.from_level(SAMPLING, 160.0) == SAMPLING
    for wrong in (0.05, 0.06, 161.0, float("nan")):
        with pytest.raises(ParameterError, match="levels are above"):
            where.from_level(SAMPLING, wrong)
    with pytest.raises(ParameterError, match=r"a schedule's own levels \(sigmoid\)"):
        where.from_level(Sampling("ddim", 250, "sigmoid"), 0.5)


def test_a_sampler_that_adds_noise_gets_its_seeds(clean):
    truth = torch.from_numpy(np.array(clean.pixels[:4]))
    model = Knowing(truth, 1.0, None, torch.nn.Linear(1, 1), Stretch(0.1, 0.2))
    one = Sampling("ddim", 4, "log", 2.0, 0.1, eta=1.0)
    found = where.restored(model, truth, one, range(4))
    assert found.shape == truth.shape and found.isfinite().all()


class Window:
    """A telescope that changes nothing, and keeps the seeds it was given."""

    def observe(self, images: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        self.seeds = seeds
        return images


def test_who_knows_the_truth_restores_it(clean):
    truth = torch.from_numpy(clean.pixels[:8].copy())
    rest = (Window(), torch.nn.Linear(1, 1), Stretch(0.1, 0.2))
    seeds = range(5, 13)
    sampling = replace(SAMPLING, high=5.0, steps=6)
    restored = where.restored(Knowing(truth, 1.0, *rest), truth, sampling, seeds)
    torch.testing.assert_close(restored, truth, atol=1e-5, rtol=0)
    assert rest[0].seeds == list(seeds)
    dim = where.restored(Knowing(truth, 0.5, *rest), truth, sampling, seeds)
    assert (dim - truth).abs().mean() > 0.01


def arguments(folder: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    where.add_arguments(parser)
    return parser.parse_args([str(folder), "-n", "16", *more])


def test_each_level_is_measured_once(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(where, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(where, "lenses", lambda *_, noiseless=False: clean)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    plain = small_model(tmp_path / "m")
    telescope = Telescope.of(clean.truth, clean.unobserved)
    spec = {**plain.spec, "telescope": telescope.as_dict()}
    model = Model(plain.denoiser, plain.stretch, spec, plain.folder)
    monkeypatch.setattr(where.models, "load", lambda _: model)
    where.run(arguments(plain.folder, "--sigmas", "5", "0.5"))
    path = plain.folder / "where.json"
    found = json.loads(path.read_text())
    rows = found["rows"]
    assert [row["sigma"] for row in rows] == [0.5, 5.0, None]
    assert found["floor"]["counts"] == census.counts(as_stored(clean.pixels[16:32].copy()))
    assert rows[-1]["counts"] == census.counts(as_stored(model.draw(16, where.FIRST_SEED)))
    assert rows[0]["counts"] != rows[-1]["counts"]
    assert rows[0]["distance"] < rows[1]["distance"]  # untrained: more noise, more lost
    monkeypatch.setattr(Denoiser, "forward", None)  # a second computation would fail
    where.run(arguments(plain.folder, "--sigmas", "0.5", "5"))
    assert json.loads(path.read_text())["rows"] == rows


def test_counts_stand_beside_those_of_the_lenses_that_were_restored():
    def counts(jump: int) -> dict:
        return {"counts": dict.fromkeys(census.SHOWN, 0) | {"broken_ridge": jump}}

    rows = [{"sigma": 0.5, **counts(10)}, {"sigma": None, **counts(20)}]
    lines, heads = where.counts_by_level({"a": (counts(5), rows, 100)})
    assert heads == ("", "test lenses", "σ = 0.5", "noise alone")
    assert [line[0] for line in lines] == [f"a: {words}" for words in census.SHOWN.values()]
    assert lines[2] == ("a: the ridge jumps", "5.0% ± 2.2%", "10.0% ± 3.0%", "20.0% ± 4.0%")
    assert lines[0][1:] == ("0.0% ± 0.0%",) * 3
    turned = [{"sigma": 9.0, **counts(1)}, *rows[::-1]]
    tables = {"a": (counts(5), rows, 100), "b": (counts(5), turned, 100)}
    both, again = where.counts_by_level(tables)
    assert again == heads and both[: len(lines)] == lines
    assert [line[1:] for line in both[len(lines) :]] == [line[1:] for line in lines]
    with pytest.raises(DataError, match="levels of a have no counts"):
        where.counts_by_level({"a": ({}, rows, 100)})


def test_images_that_can_not_be_measured_are_not_counted():
    assert where._counted(torch.zeros(2, 1, 16, 16)) == {}
    assert where._counted(torch.rand(2, 1, 8, 8)) == {}


def test_a_model_of_lenses_as_observed_starts_from_such(clean, tmp_path, monkeypatch):
    """It has no telescope: what it knows comes out as it was, and no light is asked for."""
    asked = []

    def lenses(_split, _side, noiseless=False):
        asked.append(noiseless)
        return clean

    monkeypatch.setattr(where, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(where, "lenses", lenses)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    plain = small_model(tmp_path / "m")
    table = where.measure(str(plain.folder), 16, (0.5,))
    assert asked == [False]
    assert [row["sigma"] for row in table.rows] == [0.5, None]
    truth = torch.from_numpy(clean.pixels[:8].copy())
    knowing = Knowing(truth, 1.0, None, torch.nn.Linear(1, 1), Stretch(0.1, 0.2))
    sampling = replace(SAMPLING, high=5.0, steps=6)
    found = where.restored(knowing, truth, sampling, range(8))
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)


def test_a_class_is_asked_alone(clean, tmp_path, monkeypatch):
    """Its lenses are restored with its label, against its own, into a file of its own."""
    monkeypatch.setattr(where, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(where, "lenses", lambda *_, noiseless=False: clean)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    model = small_model(tmp_path / "m", classes=3)
    seen = []
    forward = Denoiser.forward

    def watched(self, x, sigma, label=None):
        seen.append(label)
        return forward(self, x, sigma, label)

    monkeypatch.setattr(Denoiser, "forward", watched)
    where.run(arguments(model.folder, "--sigmas", "0.5", "-n", "8", "--label", "cdm"))
    assert (model.folder / "where-cdm.json").exists() and not (model.folder / where.FILE).exists()
    asked = torch.cat(seen)
    assert (asked == clean.classes.index("cdm")).all()
    with pytest.raises(ParameterError, match="knows no class 'ring'; its classes are no_sub, cdm"):
        where.measure(str(model.folder), 8, (0.5,), "ring")
    with pytest.raises(MetricError, match=r"cdm alone has \d+ images; 20 for the reference"):
        where.measure(str(model.folder), 20, (0.5,), "cdm")


class Brighter(torch.nn.Module):
    """A classifier that finds cdm in images whose mean is above a limit, and no_sub in others."""

    classes = KINDS
    head = None

    def __init__(self, limit: float):
        super().__init__()
        self.limit = limit
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = (x.mean((1, 2, 3)) > self.limit).float()
        return torch.stack([1 - above, above, torch.zeros_like(above)], 1)


def test_a_judge_says_how_many_still_show_the_class(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(where, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(where, "lenses", lambda *_, noiseless=False: clean)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    model = small_model(tmp_path / "m", classes=3)
    lenses = clean.pixels[clean.labels == clean.classes.index("cdm")][8:16]
    drawn = model.draw(8, label="cdm", seed=where.FIRST_SEED)
    judge = Brighter(float(np.median(lenses.mean((1, 2, 3)))))
    monkeypatch.setattr(where.classifier, "load", lambda *_: judge)
    asked = ["--sigmas", "0.5", "-n", "8", "--label", "cdm", "--judge", "judge64"]
    where.run(arguments(model.folder, *asked))
    found = json.loads((model.folder / "where-cdm.json").read_text())
    assert found["floor"]["recognised"] == 0.5
    share = (drawn.mean((1, 2, 3)) > judge.limit).float().mean()
    assert found["rows"][-1]["recognised"] == share
    assert len({row["recognised"] for row in (found["floor"], *found["rows"])}) > 1
    assert found["judge"] == classifier.read(shipped("judge64"))[1]["sha256"]
    with pytest.raises(ParameterError, match="give its --label, too"):
        where.measure(str(model.folder), 8, (0.5,), judge="judge64")


def test_what_draws_no_images_is_refused():
    with pytest.raises(ParameterError, match="judge64 draws no images"):
        where.measure("judge64", 16, (1.0,))


@pytest.mark.parametrize("name", ["lens64", "parameters64"])
def test_a_model_that_was_taught_no_classes_is_asked_for_none(name):
    """Its spec names the classes of the images all the same."""
    with pytest.raises(ParameterError, match=f"{name} knows no class 'cdm'; it was taught none"):
        where.measure(name, 16, (1.0,), "cdm")


def test_your_files_are_asked_with_those_that_it_did_not_learn(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(where, "extractor", lambda *_: Pooled(2))
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    for k, image in enumerate(clean.pixels[:48]):
        place = tmp_path / "files" / clean.classes[clean.labels[k]] / f"{k}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, image)
    plain = small_model(tmp_path / "m")
    learnt = {"name": "folder-files", "fingerprint": "0" * 12}
    model = Model(plain.denoiser, plain.stretch, {**plain.spec, "data": learnt}, plain.folder)
    monkeypatch.setattr(where.models, "load", lambda _: model)
    with pytest.raises(ParameterError, match=r"learnt folder-files\. This study is"):
        where.run(arguments(plain.folder, "--sigmas", "1"))
    where.run(arguments(plain.folder, "--sigmas", "1", "--data", str(tmp_path / "files")))
    found = json.loads((plain.folder / where.FILE).read_text())
    assert [row["sigma"] for row in found["rows"]] == [1.0, None] and found["data"]
    assert not any("counts" in row for row in (found["floor"], *found["rows"]))
    monkeypatch.setattr(where, "lenses", lambda *_, noiseless=False: clean)
    simulated_spec = {**plain.spec, "data": {"name": "diverse-16", "fingerprint": "1" * 12}}
    other = Model(plain.denoiser, plain.stretch, simulated_spec, plain.folder)
    monkeypatch.setattr(where.models, "load", lambda _: other)
    table = where.measure("m", 16, (1.0,))
    assert table.rows != found["rows"] and len(table.rows) == 2, "rows of files are others"


def test_a_model_of_noiseless_lenses_is_not_asked_with_files(tmp_path):
    with pytest.raises(ParameterError, match="lens150 is a shipped model"):
        where.measure("lens150", 16, (1.0,), data=tmp_path)


def test_a_model_of_latents_is_refused():
    with pytest.raises(ParameterError, match="latent150 learnt latents, not pixels"):
        where.measure("latent150", 16, (1.0,))

"""The stored sweep over samplers, and that the study computes what is missing alone."""

import argparse
import json
from types import SimpleNamespace

import pytest
from toys_scores import Pooled, small_model

from lensdiff.errors import ParameterError
from lensdiff.model import Sampling, load
from lensdiff.runtime import machine
from lensdiff.scores.distances import frechet
from lensdiff.scores.statistics import reference, statistics
from lensdiff.storage import shipped
from lensdiff.studies import draw, samplers


def distance(rows: list[dict], sampler: str, calls: int) -> float:
    """The first row's with this sampler and as many calls."""
    found = [row for row in rows if (row["sampler"], row["calls"]) == (sampler, calls)]
    return found[0]["distance"]


def test_the_stored_sweep_is_the_shipped_models():
    model = load(shipped("lens64"))
    found = json.loads((shipped("lens64") / "samplers.json").read_text())
    rows = found["rows"]
    assert found["model_sha256"] == model.spec["sha256"]
    settings = samplers.settings(model.sampling)
    wanted = [(one.sampler, one.eta, one.steps, one.calls) for one in settings]
    assert [(r["sampler"], r["eta"], r["steps"], r["calls"]) for r in rows] == wanted
    calls = {row["calls"] for row in rows}
    assert calls >= {5, 10, 20, 50, 100}
    assert max(calls) == 100
    for row in rows:
        assert len(row["distances_without"]) == 20 and 0 < samplers.error(row) < row["distance"]
    assert distance(rows, "ddim", 5) > distance(rows, "ddim", 50) > found["floor"]
    assert {row["calls"] for row in found["timing"]} == {1000, 35}
    assert all(row["samples"] == 16 for row in found["timing"])


@pytest.mark.parametrize("clamp", [True, False])
def test_a_sweep_says_whether_its_levels_are_clamped(folder, clamp, monkeypatch):
    monkeypatch.setattr(samplers, "settings", lambda *_: [])
    monkeypatch.setattr(samplers.Model, "sampling", Sampling(low=0.01, clamp=clamp))
    samplers.run(arguments(folder))
    levels = json.loads((folder / "samplers.json").read_text())["levels"]
    assert levels == "log levels 40 to 0.01" + clamp * ", clamped"


def test_every_sampler_makes_as_many_calls():
    chosen = samplers.settings(Sampling(low=0.1, clamp=False), (6, 10), 30)
    assert [one.calls for one in chosen] == [6, 10, 6, 10, 5, 9, 6, 10, 30]
    assert all(one.low == 0.1 and not one.clamp for one in chosen)
    assert len(samplers.settings(Sampling(), (6,), 0)) == len(samplers.WAYS)


def arguments(folder, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    samplers.add_arguments(parser)
    return parser.parse_args([str(folder), "-n", "8", "--no-thousand", *more])


def not_timed(_model, sampling: Sampling, what: str) -> dict:
    return {"what": what, "samples": 16, "calls": sampling.calls, "seconds": 0.0}


@pytest.fixture
def folder(tmp_path, lenses16, monkeypatch):
    """A small model's, whose sweep uses a small extractor and 64 lenses, and times nothing."""
    monkeypatch.setattr(samplers, "timed", not_timed)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(samplers, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(samplers, "lenses", lambda *_: lenses16)
    return small_model(tmp_path / "m").folder


def test_a_sweep_scores_each_setting_once(folder, lenses16, monkeypatch):
    first = arguments(folder, "--calls", "3", "--most", "0")
    samplers.run(first)
    path = folder / "samplers.json"
    found = json.loads(path.read_text())
    assert [row["calls"] for row in found["rows"]] == [3, 3, 3, 3]
    assert [row["calls"] for row in found["timing"]] == [35]
    net = Pooled(2)
    real = reference(net, lenses16, range(8))
    other = reference(net, lenses16, range(8, 16))
    assert found["floor"] == pytest.approx(frechet(other, real))
    model = load(folder)
    sampling = samplers.settings(model.sampling, (3,), 0)[0]
    images = model.draw(8, samplers.FIRST_SEED, sampling=sampling)
    expected = frechet(statistics(net, [images]), real)
    assert found["rows"][0]["distance"] == pytest.approx(expected, rel=1e-3)
    apart, its_error = samplers.difference(found["rows"][0], found["rows"][1])
    assert apart == found["rows"][0]["distance"] - found["rows"][1]["distance"]
    assert its_error > 0 and samplers.error(found["rows"][0]) > 0
    assert samplers.difference(found["rows"][0], found["rows"][0]) == (0, 0)
    scored = []
    before = samplers.score
    monkeypatch.setattr(samplers, "score", lambda *a: scored.append(a[1]) or before(*a))
    samplers.run(arguments(folder, "--calls", "3", "4", "--most", "5", "--own"))
    rows = json.loads(path.read_text())["rows"]
    assert rows[:4] == found["rows"]
    keys = {(row["sampler"], row["eta"], row["steps"], row["precision"]) for row in rows}
    assert len(keys) == len(rows) == 4 + len(scored)
    assert {"fp32"} <= {row["precision"] for row in rows}


def test_rows_outlive_another_processors_last_digit(folder, monkeypatch):
    scored = []

    def score(_model, sampling, *_) -> dict:
        scored.append(sampling)
        return {"calls": sampling.calls, "distance": float(len(scored))}

    monkeypatch.setattr(samplers, "score", score)
    args = arguments(folder, "--calls", "3", "--most", "0")
    samplers.run(args)
    rows = json.loads((folder / "samplers.json").read_text())["rows"]
    monkeypatch.setattr(samplers, "frechet", lambda a, b: frechet(a, b) * (1 + 1e-12))
    samplers.run(args)
    assert json.loads((folder / "samplers.json").read_text())["rows"] == rows
    assert len(scored) == len(rows) == 4


def test_a_timing_counts_images_and_calls(tmp_path):
    model = small_model(tmp_path / "m")
    found = samplers.timed(model, Sampling(steps=2), "two steps", samples=3)
    assert found.pop("seconds") > 0
    assert found.pop("machine") == machine()
    assert found == {"what": "two steps", "samples": 3, "calls": 2}


def test_a_classifier_is_refused():
    with pytest.raises(ParameterError, match="lensnet is a classifier"):
        samplers.sweep("lensnet", 8, (3,), 0)


@pytest.mark.parametrize("learnt", ["folder-mine", "pictures-mine-64", "digits-train"])
def test_models_of_other_things_are_not_held_against_lenses(learnt):
    model = argparse.Namespace(spec={"data": {"name": learnt}})
    with pytest.raises(ParameterError, match=f"mine learnt {learnt}. This study is for models"):
        samplers.check_of_lenses(model, "mine")
    samplers.check_of_lenses(argparse.Namespace(spec={"data": {"name": "diverse-64"}}), "mine")


def test_other_levels_are_those_of_their_own_schedule():
    own = Sampling("ddim", 3, "linear", T=200, rescale=False)
    asked = argparse.Namespace(sampler=None, steps=None, levels=None, high=None, low=None)
    model = SimpleNamespace(sampling=own)
    assert draw.asked_for(model, asked) == own
    asked.levels = "cosine"
    assert draw.asked_for(model, asked) == Sampling("ddim", 3, "cosine")

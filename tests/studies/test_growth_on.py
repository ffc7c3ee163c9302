"""A further stage of a shipped model, with its own loss and a balanced one, on a small network."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys_ours import OURS, SIDE, take_small
from toys_scores import Pooled

from lensdiff import model as models
from lensdiff.data.images import lenses
from lensdiff.errors import DataError, MetricError, ParameterError
from lensdiff.model import Model, Sampling
from lensdiff.scores.card import FIRST_SEED, features_key, keep_features
from lensdiff.scores.statistics import as_stored, reference, statistics
from lensdiff.storage import read_json
from lensdiff.studies import cards, census, choices, growth_on, where
from lensdiff.training.fit import fit

PLAN = replace(OURS, sampling=Sampling(steps=4, high=80.0, low=0.1))
N = 20


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A small model in the place of lens150-long, with the features of its card."""
    take_small(monkeypatch)

    def few(split: str, pixels: int, noiseless: bool = False) -> object:
        return lenses(split, pixels, 40, noiseless=noiseless)

    net = Pooled(2)
    for study in (growth_on, where):
        monkeypatch.setattr(study, "lenses", few)
        monkeypatch.setattr(study, "extractor", lambda *_: net)
    monkeypatch.setattr(census, "lenses", few)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    model = fit(PLAN.scaled(steps=2), PLAN.images("train"), tmp_path / "start")
    other = shutil.copytree(model.folder, tmp_path / "other")  # whose features are not kept
    narrow = replace(PLAN, train=replace(PLAN.train, learns=("stem",)))
    known = {str(model.folder): growth_on.Start(PLAN, 5)}
    known[str(other)] = growth_on.Start(narrow, 3, "-64")
    monkeypatch.setattr(growth_on, "START", str(model.folder))
    monkeypatch.setattr(growth_on, "STARTS", known)
    found = statistics(net, [model.draw(N, FIRST_SEED)], N, "drawn")
    keep_features(model.folder, found, features_key(model, net, model.sampling))
    return model


def command(out: Path, *words: str) -> dict:
    parser = argparse.ArgumentParser()
    growth_on.add_arguments(parser)
    given = ["-n", str(N), "--steps", "3", "--out", str(out), "--work", str(out / "w")]
    args = parser.parse_args([*words, *given])
    growth_on.run(args)
    return read_json(out / growth_on.file_of(args.start), "")


def test_both_stages_go_on_alike_but_for_the_loss(
    start: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command(tmp_path)
    assert found["start_sha256"] == start.spec["sha256"]
    even, own = (row["recipe"] for row in found["rows"])
    differ = {key for key in even["train"] if even["train"][key] != own["train"].get(key)}
    assert differ == {"balance"} and even["train"]["balance"]
    assert even | {"name": "", "train": 0} == own | {"name": "", "train": 0}
    for row in found["rows"]:
        kept = models.load(tmp_path / "w" / row["recipe"]["name"])
        assert [stage["sha256"] for stage in kept.spec["stages"]] == [start.spec["sha256"]]
        assert row["images_seen"] == 3 * 32 and row["sha256"] == kept.spec["sha256"]
        assert row["excess_error"] > 0 and row["distance_error"] > 0
        assert row["floor"] == pytest.approx(found["shipped"]["floor"])
        assert row["census"]["n"] == N
        assert row["bands"]["levels"][-1]["sigma"] is None
    monkeypatch.setattr(growth_on, "fit", None)  # a second training would fail
    (tmp_path / growth_on.FILE).unlink()
    again = command(tmp_path)
    for row, other in zip(found["rows"], again["rows"], strict=True):
        assert other["sha256"] == row["sha256"] and other["distance"] == pytest.approx(
            row["distance"]
        )
    monkeypatch.setattr(growth_on, "compute", None)  # nor is anything measured twice
    found = again
    assert command(tmp_path) == found


def test_the_shipped_model_is_scored_on_what_its_card_drew(start: Model, tmp_path: Path) -> None:
    found = command(tmp_path, "on")
    images = as_stored(start.draw(N, FIRST_SEED))
    net = Pooled(2)
    again = statistics(net, [start.draw(N, FIRST_SEED)], N, "drawn").rows
    assert np.allclose(again, statistics(net, np.split(images, 2), N, "drawn").rows)
    first, second = (reference(net, lenses("test", SIDE, 40), rows) for rows in cards.halves(N))
    scored = cards.scored(statistics(net, np.split(images, 2), N, "drawn"), first, second)
    assert found["shipped"]["distance"] == pytest.approx(scored["distance"], rel=1e-2)
    assert [row["name"] for row in found["rows"]] == ["on"]


def test_another_start_has_a_table_of_its_own_and_all_its_weights_learn(
    start: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    found = command(tmp_path, "on-balanced", "--start", str(other))
    assert (tmp_path / "growth-on-64.json").exists()
    assert not (tmp_path / growth_on.FILE).exists()
    (row,) = found["rows"]
    assert row["recipe"]["name"] == "growth-on-balanced-64"
    assert found["start_sha256"] == models.load(other).spec["sha256"]
    before, after = (
        models.load(one).denoiser.state_dict()
        for one in (other, tmp_path / "w" / "growth-on-balanced-64")
    )
    assert all((before[name] != after[name]).any() for name in before if name.endswith("weight"))
    drawn = found["shipped"]
    assert drawn["census"]["n"] == N
    images = as_stored(start.draw(N, FIRST_SEED))
    net = Pooled(2)
    first, second = (reference(net, lenses("test", SIDE, 40), rows) for rows in cards.halves(N))
    scored = cards.scored(statistics(net, np.split(images, 2), N, "drawn"), first, second)
    assert drawn["distance"] == pytest.approx(scored["distance"], rel=1e-2)
    monkeypatch.setattr(growth_on, "studies_folder", lambda: tmp_path)
    lines, heads = growth_on.measured(str(other))
    assert heads == ("", str(other), "on-balanced", "test lenses")
    assert {len(line) for line in lines} == {len(heads)}
    table = {line[0]: line[1:] for line in lines}
    apart = f"{row['distance'] - drawn['distance']:+.2f}"
    own, stage, _ = table[f"the same, less that of {other}"]
    assert (own, stage.split(" ± ")[0]) == ("", apart)
    shares = census.shares(row["census"]["counts"]["drawn"], N)
    assert [table[words][1] for words in census.SHOWN.values()] == shares
    where.measure(str(other), N, where.SIGMAS)
    lines, heads = growth_on.counts(str(other))
    assert {len(line) for line in lines} == {len(heads)} and len(lines) == 2 * len(census.SHOWN)
    known = census.shares(row["bands"]["floor"]["counts"], N)
    assert [line[1] for line in lines] == known * 2
    last = census.shares(row["bands"]["levels"][-1]["counts"], N)
    assert [line[-1] for line in lines[len(known) :]] == last


def test_what_was_not_measured_is_a_sentence(
    start: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, "on")
    monkeypatch.setattr(growth_on, "studies_folder", lambda: tmp_path)
    with pytest.raises(DataError, match="without a census"):
        growth_on.measured(growth_on.START)
    with pytest.raises(DataError, match="Make it: python -m lensdiff study where"):
        growth_on.counts(growth_on.START)


def test_as_many_steps_as_it_has_anyway_are_no_trial(start: Model, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    growth_on.add_arguments(parser)
    given = ["--start", str(tmp_path / "other"), "--steps", "3"]
    with pytest.raises(MetricError, match="has 40 images"):
        growth_on.run(parser.parse_args(given))


def test_a_guess_is_held_against_the_shipped_models(start: Model) -> None:
    clean = lenses("test", SIDE, 40, noiseless=True).pixels[:12]
    found = growth_on.guesses(start, start, clean)
    assert found == {"guess": [0.0] * len(choices.LEVELS), "guess_error": [0.0] * 6}
    worse = models.load(start.folder)
    for weight in worse.denoiser.parameters():
        weight.data.zero_()
    found = growth_on.guesses(worse, start, clean)
    assert len(found["guess"]) == 6 and np.ptp(found["guess"]) > 0


def test_stages_are_held_against_the_shipped_model_and_each_other() -> None:
    def level(sigma: float | None, distance: float) -> dict:
        groups = [distance + 0.01 * k for k in range(20)]
        return {"sigma": sigma, "distance": distance, "distances_without": groups}

    def stage(name: str, *distances: float) -> dict:
        levels = [level(s, d) for s, d in zip((0.5, None), distances, strict=True)]
        guess = {"guess": [np.log(0.9)] * 6, "guess_error": [0.01] * 6}
        return {"name": name, **guess, "bands": {"levels": levels}}

    shipped = [level(0.5, 3.0), level(None, 5.0)]
    rows = [stage("on-balanced", 2.0, 4.5), stage("on", 3.0, 5.5)]
    lines = growth_on.by_level(rows, shipped)
    assert {len(line) for line in lines} == {len(growth_on.HEADS)}
    assert lines[0][1:] == ("-10.0% ± 0.9%",) * 6 + ("",)
    apart = {line[0].split(", ")[1]: (line[2], line[-1]) for line in lines[2:]}
    assert apart == {
        "on-balanced less lens150-long": ("-1.00 ± 0.00", "-0.50 ± 0.00"),
        "on less lens150-long": ("+0.00 ± 0.00", "+0.50 ± 0.00"),
        "on-balanced less on": ("-1.00 ± 0.00", "-1.00 ± 0.00"),
    }
    assert growth_on.by_level(rows[:1], shipped) == [lines[0], lines[2]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["off"], "There is no stage 'off'; there are on-balanced, on."),
        ([], "make a trial"),
        (["-n", "16", "--out", "runs"], "-n must be 20 to 2,048, not 16."),
        (["-n", "2049", "--out", "runs"], "-n must be 20 to 2,048, not 2049."),
    ],
)
def test_what_can_not_be_is_a_sentence(words: list[str], sentence: str) -> None:
    parser = argparse.ArgumentParser()
    growth_on.add_arguments(parser)
    with pytest.raises(ParameterError, match=sentence):
        growth_on.run(parser.parse_args([*words, "--steps", "3"]))

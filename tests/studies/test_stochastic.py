"""A model's own sampler beside stochastic DDIM, on a small network."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys_ours import OURS, SIDE, take_small
from toys_scores import Pooled

from lensdiff.data.images import lenses
from lensdiff.errors import ParameterError
from lensdiff.model import Model, Sampling
from lensdiff.scores.card import FIRST_SEED
from lensdiff.scores.statistics import as_stored, reference, statistics
from lensdiff.storage import read_json
from lensdiff.studies import census, stochastic
from lensdiff.studies.samplers import with_groups
from lensdiff.training.fit import fit

N = 20
PLAN = replace(OURS, sampling=Sampling(steps=3, high=5.0, low=0.1))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A small model of noiseless lenses."""
    take_small(monkeypatch)

    def few(split: str, pixels: int) -> object:
        return lenses(split, pixels, 60)

    monkeypatch.setattr(stochastic, "lenses", few)
    monkeypatch.setattr(stochastic, "extractor", lambda *_: Pooled(2))
    return fit(PLAN.scaled(steps=2), PLAN.images("train"), tmp_path / "model")


def command(out: Path, *words: str) -> list[dict]:
    parser = argparse.ArgumentParser()
    stochastic.add_arguments(parser)
    stochastic.run(parser.parse_args([*words, "-n", str(N), "--out", str(out)]))
    return read_json(out / stochastic.FILE, "")["rows"]


def test_each_sampler_draws_the_same_seeds_with_as_many_calls(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, *rows = command(tmp_path, str(model.folder))
    told = [(row["sampler"], row["eta"], row["steps"], row["calls"]) for row in rows]
    assert told == [
        ("dpmpp_2m", 0.0, 3, 3),
        ("ddim", 0.0, 3, 3),
        ("ddim", 1.0, 3, 3),
        ("dpmpp_2m", 0.0, 6, 6),
        ("ddim", 0.0, 6, 6),
        ("ddim", 1.0, 6, 6),
    ]
    sampling = replace(model.sampling, sampler="ddim", eta=1.0, steps=6)
    images = as_stored(model.draw(N, FIRST_SEED, sampling=sampling))
    net = Pooled(2)
    few = lenses("test", SIDE, 60)
    real = reference(net, few, range(N))
    found = with_groups(statistics(net, np.split(images, 2), N, "drawn"), real)
    assert rows[-1]["distance"] == pytest.approx(found["distance"], rel=1e-6)
    assert rows[-1]["counts"] == census.counts(images)
    others = as_stored(np.asarray(few.pixels[N : 2 * N]))
    assert test["counts"] == census.counts(others)
    assert test["floor"] > 0
    monkeypatch.setattr(stochastic, "look", None)  # to draw again would fail
    assert command(tmp_path, str(model.folder)) == [test, *rows]


def test_lines_say_each_share_with_its_error() -> None:
    def row(eta: float, distance: float, jump: int) -> dict:
        groups = [distance + 0.01 * k for k in range(20)]
        counts = dict.fromkeys(stochastic.SHOWN, 0) | {"broken_ridge": jump}
        told = {"name": "a", "model_sha256": "", "role": "drawn", "calls": 20, "eta": eta}
        told["sampler"] = "ddim" if eta else "dpmpp_2m"
        return told | {"distance": distance, "distances_without": groups, "counts": counts}

    none = dict.fromkeys(stochastic.SHOWN, 0)
    test = {"name": "a", "model_sha256": "", "role": "test lenses", "floor": 2.0, "counts": none}
    old = row(0.0, 9.0, 0) | {"model_sha256": "of other weights"}
    assert stochastic.lines([old, test, row(0.0, 4.0, 50)], 100)[0][2].startswith("2.00 ± ")
    ways = stochastic.ways(Sampling(sampler="heun", steps=4))
    assert [way.calls for way in ways] == [7, 7, 7, 15, 15, 15]
    first, second, last = stochastic.lines([test, row(0.0, 4.0, 50), row(1.0, 3.0, 25)], 100)
    assert {len(one) for one in (first, second, last)} == {len(stochastic.HEADS)}
    assert first[0] == "a, its own sampler" and first[3] == ""
    assert first[2].startswith("2.00 ± ")
    assert second[0] == "a, stochastic DDIM" and second[3] == "-1.00 ± 0.00"
    jumps = stochastic.HEADS.index("the ridge jumps")
    assert (first[jumps], second[jumps]) == ("50.0% ± 5.0%", "25.0% ± 4.3%")
    assert last[0] == "test lenses, for a" and last[jumps] == "0.0% ± 0.0%"


def test_what_can_not_be_is_a_sentence(model: Model, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    stochastic.add_arguments(parser)
    with pytest.raises(ParameterError, match="make a trial"):
        stochastic.run(parser.parse_args([str(model.folder), "-n", "20"]))
    noisy = replace(PLAN, sampling=replace(PLAN.sampling, sampler="ddim", eta=1.0))
    other = fit(noisy.scaled(steps=2), noisy.images("train"), tmp_path / "noisy")
    with pytest.raises(ParameterError, match="fresh noise already"):
        command(tmp_path, str(other.folder))

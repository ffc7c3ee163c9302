"""The error of each band of noise against the images seen, with a small network."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from toys_ours import OURS, SIDE, take_small
from toys_scores import Pooled

from lensdiff import model as models
from lensdiff.data.images import lenses
from lensdiff.errors import ParameterError
from lensdiff.model import Sampling
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import growth, where
from lensdiff.studies.samplers import difference
from lensdiff.training.fit import fit

PLAN = replace(OURS, sampling=Sampling(steps=4, high=80.0, low=0.1))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Its network is small, its lenses are few, and the long-trained model is another one."""
    take_small(monkeypatch)

    def few(split: str, pixels: int, noiseless: bool = False) -> object:
        return lenses(split, pixels, 40, noiseless=noiseless)

    monkeypatch.setattr(where, "lenses", few)
    monkeypatch.setattr(where, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(growth, "LENS150_LONG", PLAN)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    last = fit(PLAN.scaled(steps=2), PLAN.images("train"), tmp_path / "last")
    monkeypatch.setattr(growth, "SHIPPED", (str(last.folder),))
    return last


def command(out, *words: str) -> dict:
    parser = argparse.ArgumentParser()
    growth.add_arguments(parser)
    given = ["-n", "16", "--out", str(out), "--work", str(out / "w"), "--updates", "8"]
    growth.run(parser.parse_args([*given, *words]))
    return read_json(out / growth.FILE, "")


def test_each_doubling_is_a_model_of_its_own_and_measured_once(small, tmp_path, monkeypatch):
    found = command(tmp_path)
    *trained, last = found["rows"]
    assert [row["images"] for row in trained] == [k * growth.BATCH for k in (2, 4, 8)]
    assert last["images"] == small.spec["images_seen"] and last["role"] == str(small.folder)
    for row in found["rows"]:
        assert [level["sigma"] for level in row["levels"]] == [*where.SIGMAS, None]
        assert row["floor"] == last["floor"]
        rises = growth.rises(row)
        whole = row["levels"][-1]["distance"] - row["floor"]["distance"]
        assert sum(rise for rise, _ in rises) == pytest.approx(whole)
        assert len(rises) == len(row["levels"]) and all(error >= 0 for _, error in rises)
    files = [growth.weights_of(tmp_path / "w", growth.recipe(8), k) for k in (2, 4, 8)]
    first = load_file(files[0])
    for path in files[1:]:
        later = load_file(path)
        assert any(not torch.equal(first[name], later[name]) for name in first)
    monkeypatch.setattr(growth, "trained", None)  # a second training would fail
    assert command(tmp_path) == found


def test_a_model_of_a_mark_has_the_average_of_its_update(small, tmp_path):
    """A training that ends there has the same weights: neither rate nor draws know the end."""
    command(tmp_path)
    plan = growth.recipe(8)
    short = fit(plan.scaled(steps=4), plan.images("train"), tmp_path / "short")
    kept = models.load(growth.weights_of(tmp_path / "w", plan, 4).with_suffix(""))
    assert kept.spec["images_seen"] == short.spec["images_seen"] == 4 * growth.BATCH
    for name, tensor in short.denoiser.net.state_dict().items():
        assert torch.equal(kept.denoiser.net.state_dict()[name], tensor), name
    assert kept.shape == (1, SIDE, SIDE)


def test_lost_weights_and_trials_are_refused(small, tmp_path):
    command(tmp_path)
    plan = growth.recipe(8)
    path = growth.weights_of(tmp_path / "w", plan, 2)
    path.unlink()
    model = models.load(tmp_path / "w" / plan.name)
    with pytest.raises(ParameterError, match=r"the weights of update 2 are gone\. Remove"):
        growth.at_mark(model, path, 2)
    with pytest.raises(ParameterError, match="make a trial: give it --out"):
        command(studies_folder(), "--out", str(studies_folder()))
    with pytest.raises(ParameterError, match="10 updates: take a multiple of 4"):
        growth.marks(10)


def test_the_stored_models_are_the_shipped_ones_and_those_before_them():
    stored = read_json(studies_folder() / growth.FILE, "")
    *trained, first, second = stored["rows"]
    assert [row["images"] for row in trained] == [
        k * growth.BATCH for k in growth.marks(growth.UPDATES)
    ]
    assert [first["role"], second["role"]] == list(growth.SHIPPED)
    for row, sha256 in zip((first, second), stored["shipped_sha256"], strict=True):
        assert models.load(row["role"]).spec["sha256"] == sha256
        beside = read_json(models.find(row["role"]) / where.FILE, "")
        for level, own in zip(row["levels"], beside["rows"], strict=True):
            assert level.items() <= own.items()
    excess = [sum(rise for rise, _ in growth.rises(row)) for row in stored["rows"]]
    assert min(excess[:3]) > 5 * excess[3] and excess[3] > 2 * excess[4] > 0


def test_what_is_left_is_of_all_images_and_of_each_group_left_out() -> None:
    """Its error is that of a difference of two distances, and a ratio's lies between two limits."""
    stored = read_json(studies_folder() / growth.FILE, "")["rows"]
    for row in stored:
        value, error = growth.with_error(growth.whole(row))
        assert (value, error) == pytest.approx(difference(row["levels"][-1], row["floor"]))
        assert value == pytest.approx(sum(rise for rise, _ in growth.rises(row)))
    one, two = (growth.whole(row) for row in stored[-2:])
    ratio, of_ratio = growth.with_error(two / one)
    shares = [growth.with_error(x)[1] / x[0] for x in (one, two)]
    assert ratio * abs(shares[0] - shares[1]) <= of_ratio <= ratio * sum(shares) * 1.2


def test_other_levels_that_a_model_has_too_are_left_out(small, tmp_path):
    """Whatever else `study where` was asked for, the last level is noise alone."""
    found = command(tmp_path)
    where.measure(str(small.folder), 16, (1.0, 3.0))
    rows = growth.bands(small.folder, 16)["levels"]
    assert [row["sigma"] for row in rows] == [*where.SIGMAS, None]
    assert rows == found["rows"][-1]["levels"]

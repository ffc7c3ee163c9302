"""The study of memorisation, with small models of few lenses."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from PIL import Image
from toys_ours import SIDE, take_small

from lensdiff.errors import ParameterError
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import memorisation
from lensdiff.training import recipe as module

PIXELS = memorisation.PIXELS


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Our recipe on few small lenses."""
    take_small(monkeypatch, memorisation)
    monkeypatch.setattr(memorisation, "PIXELS", SIDE)


def command(out, *words: str) -> dict:
    parser = argparse.ArgumentParser()
    memorisation.add_arguments(parser)
    given = ["-n", "16", "--out", str(out), "--work", str(out / "w"), "--updates", "2"]
    memorisation.run(parser.parse_args([*given, "--sizes", "20", *words]))
    return read_json(out / memorisation.FILE, "")


def test_both_halves_are_held_against_what_they_saw_and_each_other(tmp_path, monkeypatch):
    found = command(tmp_path)
    first, second, both = found["rows"]
    for half, row in enumerate((first, second)):
        assert (row["images"], row["half"], row["recipe"]["train"]["seed"]) == (20, half, half)
        assert len(row["nearest"]) == len(row["nearest_held_out"]) == 16
        assert row["limit"] == pytest.approx(min(row["nearest_held_out"]), abs=1e-5)
        assert row["copies"] == sum(x < row["limit"] for x in row["nearest"])
        assert row["card"]["n_generated"] == 16
    assert first["sha256"] != second["sha256"]
    assert both["role"] == "agreement" and len(both["same_noise"]) == 16
    assert max(map(abs, both["same_noise"])) <= 1
    picture = Image.open(tmp_path / "memorisation" / "20.png")
    assert picture.size == (8 * SIDE, len(memorisation.ROWS) * SIDE)
    for name in ("compute", "agreement"):
        monkeypatch.setattr(memorisation, name, None)  # a second computation would fail
    assert command(tmp_path) == found


def test_the_halves_share_no_lens_and_are_learnt_as_they_lie():
    images = module.lenses("train", SIDE, noiseless=True)
    one, other = (memorisation.part(images, 20, half) for half in memorisation.HALVES)
    assert one.symmetries == other.symmetries == 1
    everything = np.concatenate([one.pixels, other.pixels]).reshape(40, -1)
    assert len(np.unique(everything, axis=0)) == 40
    with pytest.raises(ParameterError, match=r"21 training lenses: a half of .* has 2 to 20"):
        memorisation.part(images, 21, 0)


def test_a_copy_is_nearer_than_any_held_out_image():
    rng = np.random.default_rng(0)
    training, held_out = rng.random((2, 12, 1, 8, 8), dtype=np.float32)
    images = np.concatenate([training[:3] + 0.01, rng.random((5, 1, 8, 8), dtype=np.float32)])
    found = memorisation.nearness(images, training, held_out)
    assert found["index"][:3] == [0, 1, 2] and found["copies"] >= 3
    assert found["nearest"][:3] == pytest.approx([0.01] * 3, abs=1e-4)
    none = memorisation.nearness(held_out, training, held_out)
    assert none["copies"] == 0


def test_a_trial_is_kept_from_the_results():
    with pytest.raises(ParameterError, match="make a trial: give it --out"):
        command(studies_folder(), "--out", str(studies_folder()))


def test_the_stored_pairs_copy_few_lenses_and_agree_on_many():
    stored = read_json(studies_folder() / memorisation.FILE, "")
    assert (stored["n"], stored["updates"]) == (memorisation.SCORED, memorisation.UPDATES)
    copies = []
    alike = []
    for size in memorisation.SIZES:
        halves = [row for row in stored["rows"] if row["images"] == size and "half" in row]
        assert sorted(row["half"] for row in halves) == list(memorisation.HALVES)
        assert {row["learnt"] for row in halves} == {round(0.9 * size)}
        for row in halves:
            assert row["recipe"]["train"]["steps"] == stored["updates"]
            assert row["limit"] == pytest.approx(min(row["nearest_held_out"]), abs=1e-5)
            assert row["copies"] == sum(x < row["limit"] for x in row["nearest"])
        copies.append([row["copies"] / stored["n"] for row in halves])
        of_size = [row for row in stored["rows"] if row["images"] == size]
        (pair,) = [row for row in of_size if row.get("role") == "agreement"]
        assert len(pair["same_noise"]) == len(pair["other_noise"]) == stored["n"]
        assert abs(np.mean(pair["other_noise"])) < 0.1
        alike.append(np.mean(pair["same_noise"]))
        picture = Image.open(studies_folder() / "memorisation" / f"{size}.png")
        assert picture.size == (8 * PIXELS, len(memorisation.ROWS) * PIXELS)
    assert min(copies[0]) > 0.9 and max(copies[1] + copies[2]) < 0.01
    assert alike[0] < 0.2 < 0.7 < alike[1] < alike[2]


def test_models_that_were_trained_longer_copy_and_the_distance_does_not_see_it():
    """Two hundred lenses, of which hardly any was copied before: one in so many is chance."""
    stored = read_json(studies_folder() / memorisation.FILE, "")
    size = memorisation.LONG_SIZE
    halves = [one for one in stored["rows"] if one["images"] == size and "half" in one]
    before = max(halves, key=lambda one: one["copies"])
    for role, updates in memorisation.LONGER.items():
        (row,) = [row for row in stored["rows"] if row.get("role") == role]
        assert (row["images"], row["recipe"]["train"]["steps"]) == (size, updates)
        assert row["learnt"] == round(0.9 * size)
        assert row["copies"] == sum(x < row["limit"] for x in row["nearest"])
        assert row["copies"] > 5 * before["copies"]
        assert np.median(row["nearest"]) < np.median(before["nearest"])
        assert row["card"]["distance"] < min(one["card"]["distance"] for one in halves)
        curve = [point["held_out"] for point in row["curve"]]
        assert curve[-1] > min(curve)  # it has overfitted
        before = row
    assert 0.7 < row["copies"] / stored["n"] < 0.8
    copied = {i for i, far in zip(row["index"], row["nearest"], strict=True) if far < row["limit"]}
    assert len(copied) > 0.8 * row["learnt"]
    cards = [one["card"]["distance"] for one in stored["rows"] if "card" in one]
    assert row["card"]["distance"] == min(cards)
    lines = memorisation.in_words(stored)
    assert [line[0] for line in lines] == ["18", "180", "180", "180", "4,500"]
    assert lines[3][1] == lines[0][1]  # as many epochs as the smallest
    assert lines[3][2] == str(row["copies"]) and lines[3][-2:] == ["", ""]
    assert " and " in lines[1][2] and " ± " in lines[1][-1]


def test_two_models_are_trained_longer_and_held_against_their_half(tmp_path, monkeypatch):
    """The study's own settings, made small."""
    for name, value in (("SCORED", 16), ("UPDATES", 2), ("LONG_SIZE", 20)):
        monkeypatch.setattr(memorisation, name, value)
    updates = {"longer": 4, "longest": 6}
    monkeypatch.setattr(memorisation, "LONGER", updates)
    found = command(tmp_path)
    *_, both, longer, longest = found["rows"]
    assert both["role"] == "agreement"
    for row, role in ((longer, "longer"), (longest, "longest")):
        assert row["role"] == role and "half" not in row
        assert row["recipe"]["train"]["steps"] == updates[role]
        assert row["index"] and set(row["index"]) <= set(range(20))  # the first half's
    assert longer["sha256"] != longest["sha256"]

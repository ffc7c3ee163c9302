"""The study of autoguidance, with two small models of one kind of lens."""

import argparse
from dataclasses import replace

import pytest
import torch
from toys_autoencoder import DIFFUSION

from lensdiff.data.images import lenses, simulated
from lensdiff.errors import ParameterError
from lensdiff.lensing.survey import diverse
from lensdiff.model import Sampling
from lensdiff.storage import read_json
from lensdiff.studies import autoguidance, census
from lensdiff.training.fit import fit

SIDE = 16
PLAN = replace(DIFFUSION, pixels=SIDE, noiseless=True, sampling=Sampling(steps=4))


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A model, and one of fewer updates."""

    def few(split: str, pixels: int) -> object:
        return lenses(split, pixels, 40)

    monkeypatch.setattr(autoguidance, "lenses", few)
    images = simulated(diverse(SIDE), 40, 1, noiseless=True)
    plans = {"long": PLAN.scaled(steps=6), "short": PLAN.scaled(steps=2)}
    return {name: fit(plan, images, tmp_path / name) for name, plan in plans.items()}


def command(out, *words: str) -> dict:
    parser = argparse.ArgumentParser()
    autoguidance.add_arguments(parser)
    autoguidance.run(parser.parse_args([*words, "-n", "16", "--out", str(out)]))
    named = words[words.index("--name") + 1 :][:1] if "--name" in words else ()
    return read_json(out / f"{'-'.join(['autoguidance', str(SIDE), *named])}.json", "")


def test_each_scale_is_scored_at_its_own_and_at_equal_calls(two, tmp_path, monkeypatch):
    names = [str(model.folder) for model in two.values()]
    found = command(tmp_path, *names, "--scales", "1", "2")
    rows = [(row["scale"], row["steps"], row["calls"]) for row in found["rows"]]
    assert rows == [(1, 4, 4), (2, 4, 8), (2, 2, 4)]
    assert found["rows"][0]["distance"] != found["rows"][1]["distance"]
    assert all(0 <= row["recall"] <= 1 for row in found["rows"])
    assert all(0 <= row["counts"]["two_or_ring"] <= 16 for row in found["rows"])
    assert (tmp_path / f"autoguidance-{SIDE}" / "2-2.png").exists()
    lines = autoguidance.lines("ours", found)
    assert [line[:3] for line in lines] == [
        ("ours", "1", "4"),
        ("ours", "2", "8"),
        ("ours", "2", "4"),
    ]
    assert {len(line) for line in lines} == {len(autoguidance.HEADS)}
    apart = found["rows"][1]["distance"] - found["rows"][0]["distance"]
    assert lines[0][4] == "" and lines[1][4].startswith(f"{apart:+.2f} ± ")
    assert lines[1][-2:] == tuple(census.shares(found["rows"][1]["counts"], 16)[:2])
    assert autoguidance.HEADS[-2:] == tuple(census.SHOWN.values())[:2]
    old = {key: value for key, value in found["rows"][0].items() if key != "counts"}
    assert autoguidance.lines("ours", found | {"rows": [old]})[0][-2:] == ("", "")
    monkeypatch.setattr(autoguidance, "look", None)  # to draw again would fail
    assert command(tmp_path, *names, "--scales", "1", "2") == found


def test_another_pair_has_a_table_of_its_own(two, tmp_path):
    names = [str(model.folder) for model in two.values()]
    first = command(tmp_path, *names, "--scales", "1")
    second = command(tmp_path, names[0], names[0], "--scales", "2", "--name", "self")
    assert first["weak_sha256"] != second["weak_sha256"] == second["model_sha256"]
    alone = first["rows"][0]["distance"]
    assert second["rows"][0]["distance"] == pytest.approx(alone, abs=1e-3)  # away from itself
    assert (tmp_path / f"autoguidance-{SIDE}-self" / "2-2.png").exists()


def test_scale_one_is_the_model_and_scale_zero_the_weak_one(two):
    strong, weak = two.values()
    for scale, expected in ((1.0, strong), (0.0, weak)):
        guided = autoguidance.Guided(strong.denoiser, weak.denoiser, scale)
        mixed = replace(strong, denoiser=guided).draw(2, sampling=strong.sampling)
        alone = expected.draw(2, sampling=strong.sampling)
        torch.testing.assert_close(mixed, alone, atol=1e-6, rtol=0)


def test_models_of_different_things_are_refused(two):
    folder = str(two["long"].folder)
    with pytest.raises(ParameterError, match="denoise different things"):
        autoguidance.pair(folder, "lens64")
    with pytest.raises(ParameterError, match="must both draw"):
        autoguidance.pair(folder, "lensnet")

"""The studies of transformers and of reflow, with small models of few lenses."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import perturb
from toys_ours import OURS, SIDE, take_small

from lensdiff.data.images import simulated
from lensdiff.errors import ParameterError
from lensdiff.lensing.survey import diverse
from lensdiff.model import NETWORKS, load
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import reflow, transformers
from lensdiff.training.fit import fit


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Our recipe on 40 lenses of 16 pixels, and small networks."""

    take_small(monkeypatch, transformers, reflow)
    unet = {"channels": (16,), "blocks": 1, "attention_levels": (), "unshuffle": 2}
    dit = {"patch": 4, "width": 32, "depth": 1, "heads": 2}
    kinds = {
        "unet": transformers.Kind("UNet", (unet,) * 3, (2, 2, 2)),
        "dit": transformers.Kind("DiT", (dit,) * 3, (2, 2, 2)),
    }
    monkeypatch.setattr(transformers, "KINDS", kinds)
    monkeypatch.setattr(transformers, "FLOWS", {"flow": replace(kinds["unet"], shift=3.0)})


def command(study, out, *words: str) -> dict:
    parser = argparse.ArgumentParser()
    study.add_arguments(parser)
    given = ["-n", "16", "--out", str(out), "--work", str(out / "w"), "--updates", "2"]
    study.run(parser.parse_args([*given, *words]))
    return read_json(out / study.FILE, "")


def test_networks_of_a_size_have_nearly_equal_weights(monkeypatch):
    monkeypatch.undo()
    for place, size in enumerate(transformers.SIZES):
        counts = []
        for kind in transformers.KINDS.values():
            with torch.device("meta"):
                net = NETWORKS[kind.kind](**kind.networks[place])
            counts.append(sum(p.numel() for p in net.parameters()))
        assert max(counts) < 1.12 * min(counts), size


def test_each_size_and_seed_is_run_once(tmp_path, monkeypatch):
    words = ["unet", "dit", "--seeds", "0", "1", "--sizes", "small", "base"]
    found = command(transformers, tmp_path, *words)
    *runs, seen = found["rows"]
    rows = [(row["name"], row["size"], row["seed"]) for row in runs]
    once = [("unet", "small", 0), ("dit", "small", 0), ("unet", "base", 0), ("dit", "base", 0)]
    assert rows == [*once, ("unet", "base", 1), ("dit", "base", 1)]
    for row in runs:
        assert len(row["curve"]) == 2 and row["curve"][0]["held_out"] > 0
        assert row["recipe"]["train"]["seed"] == row["seed"]
    assert runs[1]["recipe"]["kind"] == "DiT"
    assert (seen["name"], seen["role"]) == ("dit", "maps") and len(seen["queries"]) == 3
    weights = np.array(seen["weights"])
    assert weights.shape == (1, 3, (SIDE // 4) ** 2)
    assert np.allclose(weights.sum(2), 1, atol=1e-3)
    assert Image.open(tmp_path / "transformers" / "dit-base-0.png").size == (8 * SIDE, 2 * SIDE)
    assert not (tmp_path / "transformers" / "dit-base-1.png").exists()
    monkeypatch.setattr(transformers, "compute", None)  # a second training would fail
    assert command(transformers, tmp_path, *words) == found
    with pytest.raises(ParameterError, match="There is no 'cnn'"):
        command(transformers, tmp_path, "cnn")


def test_a_longer_run_is_a_row_of_its_own(tmp_path):
    assert transformers.recipe("dit", "base", 0, minutes=30).train.steps == 6
    words = ["dit", "--seeds", "0", "--sizes", "base"]
    command(transformers, tmp_path, *words, "--minutes", "30")
    found = command(transformers, tmp_path, *words)
    assert [row["minutes"] for row in found["rows"] if row.get("size")] == [30, 10]
    assert (tmp_path / "transformers" / "dit-base-0-30min.png").exists()
    found = command(transformers, tmp_path, *words, "--lr", "1e-4")
    assert [row["lr"] for row in found["rows"] if row.get("size")] == [None, None, 1e-4]
    assert found["rows"][-1]["recipe"]["train"]["lr"] == 1e-4
    assert (tmp_path / "transformers" / "dit-base-0-0.0001.png").exists()
    with pytest.raises(ParameterError, match="--minutes must be a multiple of 10, not 15"):
        command(transformers, tmp_path, *words, "--minutes", "15")


def test_a_flow_learns_at_shifted_logit_normal_times(tmp_path):
    plan = transformers.recipe("flow", "base", 1)
    assert (plan.prediction, plan.train.weight) == ("flow", "none")
    sigma = plan.train.sigmas.at(torch.linspace(1e-4, 1 - 1e-4, 9_999))
    t = sigma / (1 + sigma)
    unshifted = t / (3 - 2 * t)  # t = 3 u / (1 + 2 u)
    logit = torch.logit(unshifted.double())
    assert float(logit.mean()) == pytest.approx(0, abs=1e-3)
    assert float(logit.std()) == pytest.approx(1, abs=1e-2)
    found = command(transformers, tmp_path, "flow", "--seeds", "0", "1")
    assert [(row["size"], row["seed"]) for row in found["rows"]] == [("base", 0), ("base", 1)]
    assert found["rows"][0]["recipe"]["prediction"] == "flow"


def test_rates_are_tried_in_short_runs_and_updates_are_timed(tmp_path, capsys):
    found = command(transformers, tmp_path, "unet", "--rates")
    assert [row["lr"] for row in found["rows"]] == list(transformers.RATES)
    assert all(row["held_out"] > 0 and row["updates"] == 2 for row in found["rows"])
    command(transformers, tmp_path, "all", "--time", "--sizes", "base")
    assert "dit-base-0: " in capsys.readouterr().out
    with pytest.raises(ParameterError, match="make a trial: give it --out"):
        command(transformers, tmp_path, "unet", "--out", str(studies_folder()))


def test_a_map_of_attention_is_what_the_block_computes(tmp_path):
    plan = transformers.recipe("dit", "base", 0, 2)
    made = fit(plan, plan.images("train"), tmp_path / "m")
    made.denoiser.precision = "fp32"
    perturb(made.denoiser.net)
    x = torch.randn(1, 1, SIDE, SIDE)
    block = made.denoiser.net.blocks[0].attention
    given = []
    hook = block.register_forward_hook(lambda _, args, out: given.append((args, out)))
    (weights,) = transformers.attention_maps(made, x, 0.5, list(range(16)))
    made.denoiser(x, 0.5)
    hook.remove()
    (h, angles), out = given[-1]
    q, k, v = block.split(h, angles)
    table = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    assert np.allclose(weights, table.mean((0, 1)), atol=1e-4)
    mixed = block.out((table @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, out, atol=1e-5, rtol=1e-4)
    assert not block._forward_pre_hooks


@pytest.fixture
def teacher(tmp_path):
    images = simulated(diverse(SIDE), 40, 1, noiseless=True)
    return fit(OURS, images, tmp_path / "teacher")


def test_teacher_and_student_are_scored_at_each_number_of_calls(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(reflow, "CALLS", (1, 3))
    found = command(reflow, tmp_path, str(teacher.folder), "--pairs", "12")
    quality = [row for row in found["rows"] if row["role"] == "quality"]
    own = (teacher.sampling.sampler, teacher.sampling.calls)
    flow = [("ddim", 1), ("ddim", 3)]
    solver = [("dpmpp_2m", 1), ("dpmpp_2m", 3)]
    solver += [(f"ddim-{teacher.sampling.levels}", calls) for calls in (1, 3)]
    ways = {"teacher": list(dict.fromkeys([*flow, *solver, own])), "student": flow, "control": flow}
    expected = [(name, *way) for name, some in ways.items() for way in some]
    assert [(row["name"], row["sampler"], row["calls"]) for row in quality] == expected
    assert all(len(row["distances_without"]) > 1 and row["distance"] > 0 for row in quality)
    assert found["floor"] > 0
    bent = [row["bent"] for row in found["rows"] if row["role"] == "path"]
    assert len(bent) == 3 and min(bent) > 0
    (student,) = (tmp_path / "w").glob("reflow-????????????")
    assert load(student).telescope is not None
    assert (tmp_path / "reflow" / "student-ddim-1.png").exists()
    (longer,) = (tmp_path / "w").glob("longer-????????????")
    assert load(longer).spec["stages"][-1]["sha256"] == teacher.spec["sha256"]
    with pytest.raises(ParameterError, match="lensnet draws nothing"):
        command(reflow, tmp_path, "lensnet")


def test_paths_to_one_image_are_straight_and_those_of_a_gaussian_are_not(teacher):
    class One(torch.nn.Module):
        net = teacher.denoiser.net

        def __init__(self, answer):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.answer = answer

        def forward(self, x, sigma, label=None):
            return self.answer(x, sigma)

    image = torch.linspace(-1, 1, SIDE).expand(1, SIDE, SIDE)
    point = One(lambda x, sigma: image.expand_as(x))
    gaussian = One(lambda x, sigma: x / (1 + sigma**2))  # of unit std
    straight, bent = (
        reflow.straightness(replace(teacher, denoiser=one), n=8, steps=40)
        for one in (point, gaussian)
    )
    assert straight < 1e-8 and bent > 0.05

"""The stored comparisons: each row differs from the basis in one thing, and a run can be made, stored and read back."""
from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lensdiff.diffusion.process import Uniform
from lensdiff.errors import DataError
from lensdiff.model import Sampling, load
from lensdiff.storage import shipped
from lensdiff.studies import ablation_runs, ablations
from lensdiff.training import recipes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sweep = importlib.import_module("sweep")

STORED = ablations.stored()


def test_every_stored_run_is_the_recipe_of_its_name_and_saw_as_many_images():
    assert list(STORED) == list(ablation_runs.RUNS)
    for name, run in STORED.items():
        recipe = json.loads(json.dumps(ablation_runs.RUNS[name].recipe.as_dict()))
        recipe["network"]["image_channels"] = 1
        assert run["recipe"] == recipe, name
        assert run["images_seen"] == ablation_runs.STEPS * 32 == run["curve"][-1]["images_seen"]
        assert run["pictures"].shape == (ablations.SHOWN, 64, 64) and run["pictures"].max() > 0.5
        assert len({card["floor"] for card in run["cards"]}) == 1 and run["cards"][0]["n_generated"] == ablations.SCORED
        assert {card["reference"] for card in run["cards"]} == {STORED["basis"]["cards"][0]["reference"]}


def test_each_run_differs_from_the_basis_in_one_thing():
    """But for the family T, which is one thing from its own first run, and `noiseless-x0`, one way further from `noiseless`."""
    for family in ("prediction", "criterion", "schedule", "rotation", "width", "noise", "weight", "fold", "symmetries"):
        for run in (run for run in ablation_runs.RUNS.values() if run.family == family):
            assert len(differences(run, ablation_runs.RUNS["basis"])) == 1, run.recipe.name
    for name in ("T200", "T200-rescaled"):
        assert differences(ablation_runs.RUNS[name], ablation_runs.RUNS["T1000"]) == ["sigmas"]
    assert differences(ablation_runs.RUNS["noiseless"], ablation_runs.RUNS["basis"]) == ["noiseless"]
    assert differences(ablation_runs.RUNS["noiseless-x0"], ablation_runs.RUNS["noiseless"]) == ["prediction", "weight"]
    assert differences(ablation_runs.RUNS["averages"], ablation_runs.RUNS["basis"]) == [] and ablation_runs.RUNS["averages"].emas


def test_averages_follow_the_weights_each_at_its_own_pace(lenses16, tmp_path):
    run = replace(ablation_runs.RUNS["averages"], recipe=recipes.scaled(ablation_runs.BASIS, steps=30, batch=4, held_out_every=30), emas=(0.1, 0.9))
    averages, last = ablations.Averages(run.emas), []
    model = ablations.train_run(run, lenses16, tmp_path / "model", None, lambda step: (averages(step), last.append(step.model)))
    now = torch.cat([p.detach().flatten() for p in last[-1].parameters()]).cpu()
    ends = {k: torch.cat([p.detach().flatten() for p in m.denoiser.parameters()]).cpu() for k, m in averages.of(model).items()}
    far = {k: (end - now).norm().item() for k, end in ends.items()}
    assert 0 < far[0.1] < far[0.9]


def differences(run: ablation_runs.Run, other: ablation_runs.Run) -> list[str]:
    def flat(run: ablation_runs.Run) -> dict:
        about = asdict(run.recipe)
        training = about.pop("train")
        training["sigmas"] = (type(run.recipe.train.sigmas), str(training["sigmas"]))
        return {**{k: v for k, v in about.items() if k != "name"}, **training, "turned_deg": run.turned_deg}

    return [key for key, value in flat(run).items() if flat(other)[key] != value]


def test_a_turn_keeps_the_middle_and_blackens_the_corners(lenses16):
    turned = ablations.turned(lenses16, 20.0)
    assert turned.fingerprint != lenses16.fingerprint and turned.pixels.shape == lenses16.pixels.shape
    assert (turned.pixels[:, 0, 0, 0] == 0).mean() > 0.5 and (lenses16.pixels[:, 0, 0, 0] == 0).mean() < 0.1
    middle = np.s_[:, 0, 6:10, 6:10]
    assert np.corrcoef(turned.pixels[middle].mean((1, 2)), lenses16.pixels[middle].mean((1, 2)))[0, 1] > 0.95
    np.testing.assert_array_equal(ablations.turned(lenses16, 20.0).pixels, turned.pixels)


class Pooled(torch.nn.Module):
    """16 mean brightnesses as features."""

    name, width, sha256 = "FD-Pooled", 16, "0" * 64

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)


@pytest.mark.parametrize("sigmas, cards", [(None, 1), (Uniform("cosine", 30), 2)])
def test_a_run_is_trained_scored_stored_and_read_back(lenses16, tmp_path, monkeypatch, sigmas, cards):
    changes = {"sigmas": sigmas} if sigmas else {}
    recipe = recipes.scaled(ablation_runs.BASIS, steps=2, batch=4, held_out_every=1, **changes)
    recipe = replace(recipe, network={"channels": (16,), "blocks": 1, "attention_levels": ()}, sampling=Sampling(steps=2))
    run = ablation_runs.Run(recipe, "schedule", "a trial", turned_deg=10.0)
    monkeypatch.setattr(compare, "OWN_STEPS", 3)
    monkeypatch.setattr(compare, "RUNS", {"basis": run})
    model = ablations.train_run(run, lenses16, tmp_path / "model")
    found = ablations.score_run(run, model, Pooled(), lenses16, n=8)
    assert [card["calls"] for card in found] == [2, 3][:cards] and found[0]["n_generated"] == 8
    pictures = ablations.pictures(run, model, 5)
    ablations.store(tmp_path / "out", run, model, found, pictures)
    back = ablations.stored(tmp_path / "out")["basis"]
    np.testing.assert_allclose(back["pictures"], pictures[:, 0], atol=0.5 / 255 + 1e-6)
    assert back["cards"] == found and back["turned_deg"] == 10.0 and "turned by up to 10 degrees" in back["data"]["name"]
    (tmp_path / "out" / "basis.json").write_text("{")
    with pytest.raises(DataError, match=r"basis\.json: can't be read.*scripts/compare\.py basis"):
        ablations.stored(tmp_path / "out")


def test_the_family_T_is_drawn_by_ancestral_steps_through_its_own_table(lenses16, tmp_path):
    recipe = replace(recipes.scaled(ablation_runs.BASIS, steps=1, batch=4, held_out_every=1, sigmas=Uniform("linear", 25)), prediction="eps")
    run = ablation_runs.Run(replace(recipe, network={"channels": (16,), "blocks": 1, "attention_levels": ()}), "T", "T = 25")
    model = ablations.train_run(run, lenses16, tmp_path / "model")
    own = torch.cat(list(ablations.drawn_from_own_table(model, run.table, range(3), 25, 1.0)))
    torch.testing.assert_close(ablations.pictures(run, model, 3), own)
    assert (own - torch.cat(list(ablations.drawn_from_own_table(model, run.table, range(3), 25, 0.0)))).abs().max() > 1e-3


def test_the_stored_sweep_is_the_shipped_models():
    model = load(shipped("lens64"))
    found = json.loads((shipped("lens64") / "samplers.json").read_text())
    assert found["model_sha256"] == model.spec["sha256"]
    asked = [(s.sampler, s.eta, s.steps, s.calls) for s in sweep.settings(model.sampling)]
    assert [(r["sampler"], r["eta"], r["steps"], r["calls"]) for r in found["rows"]] == asked
    assert {row["calls"] for row in found["rows"]} >= {5, 10, 20, 50, 250} and max(row["calls"] for row in found["rows"]) == 250
    few, many = (next(r["distance"] for r in found["rows"] if r["calls"] == n and r["sampler"] == "ddim") for n in (5, 50))
    assert few > many > found["floor"]
    assert {row["calls"] for row in found["timing"]} == {1000, 35} and all(row["samples"] == 16 for row in found["timing"])

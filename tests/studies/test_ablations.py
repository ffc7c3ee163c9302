"""The stored ablations: each run differs from the basis in one thing, and is made and read back."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from toys_scores import Pooled

from lensdiff.diffusion.process import Uniform
from lensdiff.errors import DataError
from lensdiff.model import Sampling, load
from lensdiff.storage import read_json, studies_folder, write_json
from lensdiff.studies import ablations
from lensdiff.studies.ablation_runs import BASIS, RUNS, STEPS, Run

NETWORK = {"channels": (16,), "blocks": 1, "attention_levels": ()}


# ---- what is stored ------------------------------------------------------------------------------


def test_every_stored_run_is_the_recipe_of_its_name_and_saw_as_many_images():
    stored = ablations.stored()
    assert list(stored) == list(RUNS)
    for name, run in stored.items():
        recipe = json.loads(json.dumps(RUNS[name].recipe.as_dict()))
        recipe["network"]["image_channels"] = 1
        assert run["recipe"] == recipe, name
        assert run["images_seen"] == STEPS * 32 == run["curve"][-1]["images_seen"]
        assert run["family"] == RUNS[name].family
        assert run["description"] == RUNS[name].description
        assert run["pictures"].shape == (ablations.SHOWN, 64, 64)
        assert run["pictures"].max() > 0.5
        assert len({card["floor"] for card in run["cards"]}) == 1
        assert run["cards"][0]["n_generated"] == ablations.SCORED
        references = {card["reference"] for card in run["cards"]}
        assert references == {stored["basis"]["cards"][0]["reference"]}


@pytest.fixture
def copied(tmp_path):
    """A copy of what is stored."""
    shutil.copy(studies_folder() / ablations.FILE, tmp_path)
    shutil.copytree(studies_folder() / "ablations", tmp_path / "ablations")
    return tmp_path


def test_damaged_and_missing_files_are_one_sentence(copied):
    picture = copied / "ablations" / "v.png"
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(DataError, match=r"v\.png: can't be read.*study ablations v$"):
        ablations.stored(copied)
    picture.unlink()
    with pytest.raises(DataError, match=r"v\.png: can't be read.*study ablations v$"):
        ablations.stored(copied)
    path = copied / ablations.FILE
    table = read_json(path, "")
    table["rows"] = [row for row in table["rows"] if row["name"] != "l1"]
    write_json(path, table)
    missing = r"ablations\.json: the run l1 is not stored.*study ablations l1$"
    (copied / "ablations" / "v.png").write_bytes((copied / "ablations" / "x0.png").read_bytes())
    with pytest.raises(DataError, match=missing):
        ablations.stored(copied)
    path.write_text("{")
    with pytest.raises(DataError, match=r"ablations\.json: can't be read.*Delete it"):
        ablations.stored(copied)
    path.unlink()
    with pytest.raises(DataError, match=r"ablations\.json is not there.*study ablations all$"):
        ablations.stored(copied)


# ---- what is compared ----------------------------------------------------------------------------


def differences(run: Run, other: Run) -> list[str]:
    def flat(run: Run) -> dict:
        about = asdict(run.recipe)
        training = about.pop("train")
        training["sigmas"] = (type(run.recipe.train.sigmas), str(training["sigmas"]))
        about.pop("name")
        return {**about, **training, "turned_deg": run.turned_deg}

    return [key for key, value in flat(run).items() if flat(other)[key] != value]


def test_each_run_differs_from_the_basis_in_one_thing():
    """But for two.

    The family T is one thing from its own first run, and `noiseless-x0` one way further from
    `noiseless`.
    """
    basis = RUNS["basis"]
    families = {"prediction", "criterion", "schedule", "rotation", "width", "noise", "weight"}
    for run in RUNS.values():
        if run.family in {*families, "fold", "symmetries"}:
            assert len(differences(run, basis)) == 1, run.recipe.name
    assert families <= {run.family for run in RUNS.values()}
    for name in ("T200", "T200-rescaled"):
        assert differences(RUNS[name], RUNS["T1000"]) == ["sigmas"]
    assert differences(RUNS["noiseless"], basis) == ["noiseless"]
    further = differences(RUNS["noiseless-x0"], RUNS["noiseless"])
    assert further == ["prediction", "weight"]
    assert differences(RUNS["averages"], basis) == []
    assert RUNS["averages"].emas


def test_a_turn_keeps_the_middle_and_blackens_the_corners(lenses16):
    turned = ablations.turned(lenses16, 20.0)
    assert turned.fingerprint != lenses16.fingerprint
    assert turned.pixels.shape == lenses16.pixels.shape
    assert (turned.pixels[:, 0, 0, 0] == 0).mean() > 0.5
    assert (lenses16.pixels[:, 0, 0, 0] == 0).mean() < 0.1
    middle = np.s_[:, 0, 6:10, 6:10]
    after = turned.pixels[middle].mean((1, 2))
    before = lenses16.pixels[middle].mean((1, 2))
    assert np.corrcoef(after, before)[0, 1] > 0.95
    np.testing.assert_array_equal(ablations.turned(lenses16, 20.0).pixels, turned.pixels)


# ---- a run ---------------------------------------------------------------------------------------


def flat_weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).cpu()


def test_averages_follow_the_weights_each_at_its_own_pace(lenses16, tmp_path):
    recipe = replace(BASIS.scaled(steps=30, batch=4, held_out_every=30), network=NETWORK)
    run = replace(RUNS["averages"], recipe=recipe, emas=(0.1, 0.9))
    averages = ablations.Averages(run.emas)
    last = []

    def each(step) -> None:
        averages(step)
        last.append(step.model)

    model = ablations.train_run(run, lenses16, tmp_path / "model", None, each)
    now = flat_weights(last[-1])
    ends = averages.of(model)
    far = {k: (flat_weights(end.denoiser) - now).norm().item() for k, end in ends.items()}
    assert 0 < far[0.1] < far[0.9]


def trial(family: str = "schedule", turned_deg: float = 0.0, steps: int = 2, **changes) -> Run:
    """A run of a small network and few updates."""
    recipe = BASIS.scaled(steps=steps, batch=4, held_out_every=1, **changes)
    recipe = replace(recipe, name="basis", network=NETWORK, sampling=Sampling(steps=2))
    return Run(recipe, family, "a trial", turned_deg)


@pytest.mark.parametrize(("sigmas", "cards"), [(None, 1), (Uniform("cosine", 30), 2)])
def test_a_run_is_trained_scored_stored_and_read_back(
    lenses16, tmp_path, monkeypatch, sigmas, cards
):
    changes = {"sigmas": sigmas} if sigmas else {}
    run = trial(turned_deg=10.0, **changes)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ablations, "OWN_STEPS", 3)
    monkeypatch.setattr(ablations, "RUNS", {"basis": run})
    monkeypatch.setattr(ablations, "lenses", lambda *_, **__: lenses16)
    monkeypatch.setattr(ablations, "extractor", lambda *_: Pooled())
    scored = []
    score_run = ablations.score_run
    monkeypatch.setattr(
        ablations, "score_run", lambda *a: scored.append(score_run(*a, n=8)) or scored[-1]
    )
    parser = argparse.ArgumentParser()
    ablations.add_arguments(parser)
    folder = tmp_path / "out"
    args = parser.parse_args(["all", "--out", str(folder), "--work", str(tmp_path / "work")])
    ablations.run(args)
    ablations.run(args)
    assert len(scored) == 1  # the second time it is stored
    assert [card["calls"] for card in scored[0]] == [2, 3][:cards]
    assert scored[0][0]["n_generated"] == 8
    back = ablations.stored(folder)["basis"]
    model = load(tmp_path / "work" / "basis")
    assert back["sha256"] == model.spec["sha256"]
    pictures = ablations.pictures(run, model)
    np.testing.assert_allclose(back["pictures"], pictures[:, 0], atol=0.5 / 255 + 1e-6)
    assert back["cards"] == scored[0]
    assert back["turned_deg"] == 10.0
    assert "turned by up to 10 degrees" in back["data"]["name"]


def test_the_family_T_is_sampled_by_ancestral_steps_through_its_own_table(lenses16, tmp_path):
    run = trial("T", steps=1, sigmas=Uniform("linear", 25))
    run = replace(run, recipe=replace(run.recipe, prediction="eps"))
    model = ablations.train_run(run, lenses16, tmp_path / "model")

    def images(eta: float) -> torch.Tensor:
        return torch.cat(list(ablations.generate_by_table(model, run.table, range(3), 25, eta)))

    torch.testing.assert_close(ablations.pictures(run, model, 3), images(1.0))
    assert (images(1.0) - images(0.0)).abs().max() > 1e-3

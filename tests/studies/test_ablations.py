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

from lensdiff.data.images import lenses
from lensdiff.diffusion.process import Uniform
from lensdiff.errors import DataError, ParameterError
from lensdiff.model import Sampling, load
from lensdiff.storage import read_json, studies_folder, write_json
from lensdiff.studies import ablation_compare, ablation_runs, ablations
from lensdiff.studies.ablation_runs import BASIS, LATER, RUNS, Run, jobs

NETWORK = {"channels": (16,), "blocks": 1, "attention_levels": ()}


# ---- what is stored ------------------------------------------------------------------------------


def test_every_stored_run_is_the_recipe_of_its_name_and_seed():
    table = read_json(studies_folder() / ablations.FILE, "")
    keys = [(row["name"], row["seed"]) for row in table["rows"]]
    assert len(set(keys)) == len(keys)
    assert {list(row)[:2] == ["name", "seed"] for row in table["rows"]} == {True}
    for row in table["rows"]:
        run = RUNS[row["name"]].with_seed(row["seed"])
        recipe = json.loads(json.dumps(run.recipe.as_dict()))
        recipe["network"]["image_channels"] = 1
        assert row["recipe"] == recipe, row["name"]
        seen = run.recipe.train.steps * 32
        assert row["images_seen"] == seen == row["curve"][-1]["images_seen"]
        assert row["family"] == run.family
        assert row["description"] == run.description
        assert row.get("images", 0) == run.images
        assert row["cards"][0]["n_generated"] == ablations.SCORED
        assert row["cards"][0]["reference"] == table["rows"][0]["cards"][0]["reference"]
        assert len({card["floor"] for card in row["cards"]}) == 1


def test_stored_runs_come_by_name_with_pictures_and_the_basis_a_second_time():
    stored = ablations.stored()
    assert [name for name in stored if name in RUNS] == [name for name in RUNS if name in stored]
    assert set(stored) >= {*RUNS, "basis-again"} - set(LATER)
    again = stored.pop("basis-again")
    assert again["recipe"]["train"]["seed"] == again["seed"] == 1
    assert again["description"] == "the same with another seed"
    for name, run in stored.items():
        assert (run["name"], run["seed"]) == (name, 0)
        assert run["pictures"].shape == (ablations.SHOWN, 64, 64)
        assert run["pictures"].max() > 0.5


@pytest.fixture
def copied(tmp_path):
    """A copy of what is stored."""
    shutil.copy(studies_folder() / ablations.FILE, tmp_path)
    shutil.copytree(studies_folder() / "ablations", tmp_path / "ablations")
    return tmp_path


def test_runs_added_later_may_be_missing_others_not(copied):
    path = copied / ablations.FILE
    table = read_json(path, "")
    table["rows"] = [row for row in table["rows"] if row["name"] not in LATER]
    write_json(path, table)
    first = [name for name in RUNS if name not in LATER]
    assert list(ablations.stored(copied)) == ["basis", "basis-again", *first[1:]]
    table["rows"] = [row for row in table["rows"] if (row["name"], row["seed"]) != ("basis", 1)]
    write_json(path, table)
    assert list(ablations.stored(copied)) == first
    table["rows"] = [row for row in table["rows"] if row["name"] != "v"]
    write_json(path, table)
    with pytest.raises(DataError, match="the run v is not stored"):
        ablations.stored(copied)


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
        return {**about, **training, "turned_deg": run.turned_deg, "images": run.images}

    return [key for key, value in flat(run).items() if flat(other)[key] != value]


def test_each_run_differs_from_the_basis_in_one_thing():
    """But for four.

    The family T is one thing from its own first run, `noiseless-x0` one way further from
    `noiseless`, `eps-weighted` one thing from `eps`, and `few` is made to overfit.
    """
    basis = RUNS["basis"]
    families = {"prediction", "criterion", "schedule", "rotation", "width", "noise", "weight"}
    for run in RUNS.values():
        if run.family in {*families, "fold", "symmetries"} and run.recipe.name != "eps-weighted":
            assert len(differences(run, basis)) == 1, run.recipe.name
    assert families <= {run.family for run in RUNS.values()}
    for name in ("T200", "T200-rescaled"):
        assert differences(RUNS[name], RUNS["T1000"]) == ["sigmas"]
    assert differences(RUNS["noiseless"], basis) == ["noiseless"]
    further = differences(RUNS["noiseless-x0"], RUNS["noiseless"])
    assert further == ["prediction", "weight"]
    assert differences(RUNS["averages"], basis) == []
    assert differences(RUNS["eps-weighted"], RUNS["eps"]) == ["weight"]
    assert differences(RUNS["plateau"], RUNS["averages"]) == ["decay_share"]
    few = set(differences(RUNS["few"], RUNS["noiseless"]))
    assert few == {"steps", "augment", "images"}
    for name in ("averages", "plateau"):
        assert 0.0 in RUNS[name].emas  # the raw weights


def test_a_seed_changes_the_training_seed_alone():
    assert differences(RUNS["v"].with_seed(2), RUNS["v"]) == ["seed"]
    assert RUNS["v"].with_seed(2).recipe.train.seed == 2
    assert RUNS["v"].with_seed(0) == RUNS["v"]


def test_shards_share_out_every_job_and_the_seeds_of_the_first_runs_come_first():
    every = jobs(RUNS, (0, 1, 2))
    assert len(set(every)) == len(every) == 3 * len(RUNS)
    assert every[:2] == [("basis", 1), ("basis", 2)]
    first = 2 * (len(RUNS) - len(LATER))
    assert all(seed and name not in LATER for name, seed in every[:first])
    assert {name for name, _ in every[first : first + 3 * len(LATER)]} == set(LATER)
    shards = [jobs(RUNS, (0, 1, 2), f"{k}/4") for k in (1, 2, 3, 4)]
    assert sorted(job for shard in shards for job in shard) == sorted(every)
    costs = [sum(RUNS[name].cost for name, _ in shard) for shard in shards]
    assert max(costs) < 1.2 * min(costs)
    assert jobs(["v", "wide"], (1,)) == [("wide", 1), ("v", 1)]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_a_wrong_shard_or_name_is_one_sentence(shard):
    with pytest.raises(ParameterError, match="shard must be K/M"):
        jobs(["v"], (0,), shard)
    with pytest.raises(ParameterError, match="no run 'vv'; there are basis"):
        jobs(["vv"], (0,))


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
    run = replace(RUNS["averages"], recipe=recipe, emas=(0.0, 0.1, 0.9))
    averages = ablations.Averages(run.emas)
    last = []

    def each(step) -> None:
        averages(step)
        last.append(step.model)

    model = ablations.train_run(run, lenses16, tmp_path / "model", None, each)
    now = flat_weights(last[-1])
    ends = averages.of(model)
    raw = flat_weights(ends.pop(0.0).denoiser)
    torch.testing.assert_close(raw, now, rtol=0, atol=0)
    far = {k: (flat_weights(end.denoiser) - now).norm().item() for k, end in ends.items()}
    assert 0 < far[0.1] < far[0.9]


def trial(family: str = "schedule", turned_deg: float = 0.0, steps: int = 2, **changes) -> Run:
    """A run of a small network and few updates."""
    recipe = BASIS.scaled(steps=steps, batch=4, held_out_every=1, **changes)
    recipe = replace(recipe, name="basis", network=NETWORK, sampling=Sampling(steps=2))
    return Run(recipe, family, "a trial", turned_deg)


def test_the_few_lenses_are_those_that_the_run_learns_from(tmp_path):
    light = lenses("train", 16, 60, cache=tmp_path, noiseless=True)
    expected = light.pixels[ablations.few(light.split()[0], 11)]
    found = ablations.few_lenses(11, 16, 60)
    assert found.shape == (11, 1, 16, 16)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_run_of_few_images_sees_no_others(lenses16, tmp_path, monkeypatch):
    seen = []
    fit = ablations.fit
    monkeypatch.setattr(ablations, "fit", lambda *a: seen.append(a[-1]) or fit(*a))
    run = replace(trial(steps=1), images=5)
    ablations.train_run(run, lenses16, tmp_path / "model")
    ablations.train_run(run.with_seed(1), lenses16, tmp_path / "other")
    train, held = seen[0]
    assert len(train) == 5
    np.testing.assert_array_equal(train, seen[1][0])
    rows = lenses16.split()
    assert set(train) < set(rows[0])
    np.testing.assert_array_equal(held, rows[1])
    too_many = replace(run, images=len(lenses16))
    with pytest.raises(ParameterError, match=r"images = \d+, but there are \d+ to train on"):
        ablations.train_run(too_many, lenses16, tmp_path / "third")


@pytest.mark.parametrize(("sigmas", "cards"), [(None, 1), (Uniform("cosine", 30), 2)])
def test_a_run_is_trained_scored_stored_and_read_back(
    lenses16, tmp_path, monkeypatch, sigmas, cards
):
    changes = {"sigmas": sigmas} if sigmas else {}
    run = trial(turned_deg=10.0, **changes)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ablations, "OWN_STEPS", 3)
    for module in (ablations, ablation_runs, ablation_compare):
        monkeypatch.setattr(module, "RUNS", {"basis": run})
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
    where = ["--out", str(folder), "--work", str(tmp_path / "work")]
    for seeds in (["0"], ["0"], ["0", "1"]):
        ablations.run(parser.parse_args(["all", *where, "--seeds", *seeds]))
    assert len(scored) == 2  # what is stored is not repeated
    assert scored[0][0]["distance"] != scored[1][0]["distance"]
    assert [row["seed"] for row in ablations.seeds_of("basis", folder)] == [0, 1]
    assert [path.name for path in (folder / "ablations").iterdir()] == ["basis.png"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["basis-0", "basis-1"]
    assert [card["calls"] for card in scored[0]] == [2, 3][:cards]
    assert scored[0][0]["n_generated"] == 8
    back = ablations.stored(folder)["basis"]
    model = load(tmp_path / "work" / "basis-0")
    assert back["sha256"] == model.spec["sha256"]
    pictures = ablations.pictures(run, model)
    np.testing.assert_allclose(back["pictures"], pictures[:, 0], atol=0.5 / 255 + 1e-6)
    assert back["cards"] == scored[0]
    assert back["turned_deg"] == 10.0
    assert "turned by up to 10 degrees" in back["data"]["name"]


def test_nothing_asked_for_is_one_sentence(tmp_path):
    parser = argparse.ArgumentParser()
    ablations.add_arguments(parser)
    with pytest.raises(ParameterError, match="No run is named: give all, or some of basis"):
        ablations.run(parser.parse_args(["--out", str(tmp_path)]))


def test_the_family_T_is_sampled_by_ancestral_steps_through_its_own_table(lenses16, tmp_path):
    run = trial("T", steps=1, sigmas=Uniform("linear", 25))
    run = replace(run, recipe=replace(run.recipe, prediction="eps"))
    model = ablations.train_run(run, lenses16, tmp_path / "model")

    def images(eta: float) -> torch.Tensor:
        return torch.cat(list(ablations.generate_by_table(model, run.table, range(3), 25, eta)))

    torch.testing.assert_close(ablations.pictures(run, model, 3), images(1.0))
    assert (images(1.0) - images(0.0)).abs().max() > 1e-3


def test_the_stored_seeds_carry_the_claims_about_predictions():
    for name in ("eps", "eps-weighted"):
        worse = ablations.compare(name, "basis")
        assert worse.n == 3
        assert worse.mean > 10 * worse.error
    weighted = ablations.compare("eps-weighted", "eps")
    assert -40 < weighted.mean < 0  # EDM's weight mends a little of what eps loses
    better = ablations.compare("x0", "basis")
    assert better.mean < -4 * better.error
    rows = [row for name in ("eps", "x0", "flow") for row in ablations.seeds_of(name)]
    seen = {row["images_seen"] for row in rows}
    assert seen == {32_000}

"""Was it drawn as asked: a bench that knows the answer, distances class by class, agreement in closed form, and what is shipped."""
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import perturb
from torch import nn

from lensdiff import storage
from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import DataError, MetricError, SamplingError
from lensdiff.lensing import parameters
from lensdiff.lensing.fit import Fit
from lensdiff.lensing.population import KINDS
from lensdiff.lensing.simulate import VERSION
from lensdiff.model import Sampling, load, save
from lensdiff.networks import classifier
from lensdiff.networks.unet import UNet
from lensdiff.scores import conditional, distances
from lensdiff.scores.distances import frechet
from lensdiff.scores.statistics import Statistics
from lensdiff.storage import fingerprint_of, shipped
from lensdiff.training import recipes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
augment, script = importlib.import_module("augment"), importlib.import_module("asked")


class Judge(nn.Module):
    """Answers the class by the image's mean: dark, grey or bright."""

    classes, head = KINDS, None

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return -100 * (x.mean((1, 2, 3))[:, None] - torch.tensor([0.2, 0.5, 0.8])).abs()


class Means(nn.Module):
    """Four features of an image: the means of its quarters."""

    name, width, sha256 = "FD-Means", 4, "means"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def grey(n, seed):
    """Images whose mean is that of their class, with noise."""
    rng = np.random.default_rng(seed)
    labels = conditional.classes_in_turn(n)
    pixels = (np.array([0.2, 0.5, 0.8])[labels][:, None, None, None] + 0.03 * rng.standard_normal((n, 1, 8, 8))).clip(0, 1)
    return ImageSet(f"grey {seed}", pixels.astype(np.float32), f"grey {seed}", KINDS, labels)


def test_the_bench_knows_right_images_from_wrong_ones():
    real, other = grey(90, 0), grey(60, 1)
    bench = conditional.ClassScorer.of(Judge(), [Means()], real)
    right = bench.row(other.pixels, other.labels)
    wrong = bench.row(other.pixels, (other.labels + 1) % 3)
    assert right["accuracy"] == 1 and right["macro_auc"] == 1 and wrong["accuracy"] == 0
    assert set(right["distance"]) == {"FD-Means"} and set(right["distance"]["FD-Means"]) == set(KINDS)
    assert all(right["distance"]["FD-Means"][k] * 100 < wrong["distance"]["FD-Means"][k] for k in KINDS)
    assert 0 <= right["recall"]["FD-Means"] <= 1 and bench.row(real.pixels, real.labels)["recall"]["FD-Means"] == 1
    assert conditional.nearest([wrong, right], "FD-Means") is right
    as_bytes = bench.row(torch.from_numpy((other.pixels * 255).round().astype(np.uint8)), other.labels)
    assert as_bytes["accuracy"] == 1
    with pytest.raises(DataError, match="the judge knows"):
        conditional.ClassScorer.of(Judge(), [Means()], ImageSet("x", real.pixels, "x", ("a", "b", "c"), real.labels))


def test_distances_class_by_class_are_those_of_the_classes():
    rng = np.random.default_rng(0)
    real, drawn = rng.standard_normal((90, 3)), rng.standard_normal((60, 3)) + 1
    labels = [np.arange(n) % 3 for n in (90, 60)]
    found = distances.by_class(real, labels[0], drawn, labels[1])
    for k in range(3):
        mine, theirs = (Statistics.of(x[y == k].astype(np.float32)) for x, y in zip((real, drawn), labels, strict=True))
        assert found[k] == pytest.approx(frechet(theirs, mine), rel=1e-5)
    with pytest.raises(MetricError, match="90 and 59 labels for 90 and 60"):
        distances.by_class(real, labels[0], drawn, labels[1][:-1])
    with pytest.raises(MetricError, match=r"Class 2: 30 real and 0 drawn"):
        distances.by_class(real, labels[0], drawn, labels[1] % 2)


def test_agreement_is_that_of_a_known_error():
    rng = np.random.default_rng(1)
    wanted = rng.uniform(0.5, 2, (4_000, 7))
    error = 0.02 + 0.05 * rng.standard_normal(wanted.shape)
    rms = np.full(len(wanted), 0.01)
    rms[:100], error[:100] = 0.5, 1e3  # fits that failed
    found = conditional.agreement(wanted, Fit(wanted + error, np.zeros((len(wanted), 3)), rms))
    assert list(found) == list(parameters.NAMES)
    for row in found.values():
        assert row["bias"] == pytest.approx(0.02, abs=0.004) and row["scatter"] == pytest.approx(0.05, rel=0.06)
        assert row["rms"] == pytest.approx(np.hypot(0.02, 0.05), rel=0.05)
        assert row["correlation"] == pytest.approx(1 / np.sqrt(1 + 0.05**2 / (1.5**2 / 12)), abs=0.004)
        assert (row["n"], row["unfitted"]) == (3_900, 100)
    with pytest.raises(MetricError, match="5 of 4000 fits"):
        conditional.agreement(wanted, Fit(wanted, wanted, np.where(np.arange(4_000) < 5, 0.0, 1.0)))


@pytest.mark.parametrize("network", [{"classes": 3}, {"conditions": 7}])
def test_one_image_is_drawn_for_each_entry_whatever_the_batch(tmp_path, network):
    torch.manual_seed(0)
    denoiser = Denoiser(perturb(UNet((16, 32), blocks=1, **network)))
    about = {"channels": (16, 32), "blocks": 1, **network}
    how = {"sampler": "dpmpp_2m", "steps": 2, "levels": "log", "high": 40.0, "low": 0.1, "eta": 0.0, "clamp": True}
    model = load(save(tmp_path / "m", denoiser, about, Stretch(0.3, 0.2), 16, classes=list(KINDS), sampling=how), precision="fp32")
    assert model.sampling == Sampling(**how)
    wanted = ["axion", "cdm", "no_sub"] if "classes" in network else np.random.default_rng(0).normal(size=(3, 7))
    whole = conditional.draw(model, wanted, first_seed=5)
    assert whole.dtype == torch.uint8 and whole.shape == (3, 1, 16, 16)
    alone = conditional.draw(model, wanted[1:2], first_seed=6)
    assert (whole[1].int() - alone[0].int()).abs().max() <= 1
    assert (whole != conditional.draw(model, wanted[::-1], first_seed=5)).any()
    if "classes" in network:
        kept = conditional.generated_set(model, 5, 2.0, cache=tmp_path)
        again = conditional.draw(model, kept.labels, conditional.FIRST_SEED, 2.0).numpy() / np.float32(255)
        assert kept.labels.tolist() == [0, 1, 2, 0, 1] and kept.classes == KINDS
        np.testing.assert_allclose(kept.pixels, again, atol=1.01 / 255)
        assert conditional.generated_set(model, 5, 1.0, cache=tmp_path).fingerprint != kept.fingerprint


def test_real_and_drawn_lenses_have_equal_shares_and_no_real_one_is_left_out():
    real, drawn = grey(60, 0), grey(30, 1)
    for rows in (np.arange(9), np.arange(48)):
        both = augment.together(real, drawn, rows)
        count = max(len(rows), len(drawn))
        assert len(both) == len(both.labels) == 2 * count
        found = {image.tobytes() for image in both.pixels[:count]}
        assert found == {real.pixels[row].tobytes() for row in rows}
        assert {image.tobytes() for image in both.pixels[count:]} == {image.tobytes() for image in drawn.pixels}
    chosen = augment.images_for("real", 12, 3, real, drawn)
    assert np.bincount(chosen.labels).tolist() == [4, 4, 4]
    assert augment.images_for("drawn", 0, 0, real, drawn) is drawn


def test_the_table_is_kept_run_by_run_and_begun_anew_for_other_weights(tmp_path):
    path, calls = tmp_path / "augment.json", []

    def run(*what):
        calls.append(what)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"accuracy": 0.5, "macro_auc": 0.5}

    with pytest.raises(KeyboardInterrupt):
        augment.table(path, {"model": "a"}, 1, run)
    augment.table(path, {"model": "a"}, 1, run)
    assert len(json.loads(path.read_text())["rows"]) == 1 + 2 * len(augment.REAL) == len(calls) - 1
    augment.table(path, {"model": "b"}, 1, run)
    assert len(calls) == 2 * (1 + 2 * len(augment.REAL)) + 1
    keep = script.Rows(tmp_path / "rows.json", {"model": "a"})
    for _ in range(2):
        assert script.Rows(tmp_path / "rows.json", {"model": "a"}).get("x", lambda: {"y": len(calls)}, str) == {"y": len(calls)}
    calls.append(0)
    assert script.Rows(tmp_path / "rows.json", {"model": "a"}).get("x", lambda: {"y": 0}, str)["y"] > 0 and keep.rows == {}
    assert script.Rows(tmp_path / "rows.json", {"model": "b"}).get("x", lambda: {"y": 0}, str) == {"y": 0}


def test_what_can_not_be_asked_or_judged_is_said_first(tmp_path):
    model = load(shipped("lens64"))
    with pytest.raises(SamplingError, match="lens64 is not told classes"):
        conditional.generated_set(model, 3, cache=tmp_path)
    with pytest.raises(SamplingError, match="Nothing is asked for"):
        conditional.draw(model, [])
    with pytest.raises(MetricError, match="told neither classes nor lens parameters"):
        script.of_classes(model, tmp_path, [1.0], 8, 8)
    with pytest.raises(MetricError, match=r"Run scripts/asked\.py"):
        augment.best_guidance(tmp_path)
    real = grey(30, 0)
    bench = conditional.ClassScorer.of(Judge(), [Means()], real)
    many = np.zeros((conditional.KEPT + 1, 1, 8, 8), np.float32)
    with pytest.raises(MetricError, match="2049 images are more than"):
        bench.row(many, np.zeros(len(many), int))
    with pytest.raises(MetricError, match=r"\(2, 7\) values were asked for"):
        conditional.agreement(np.zeros((2, 7)), Fit(np.zeros((9, 7)), np.zeros((9, 3)), np.zeros(9)))


def test_a_script_says_what_is_wrong_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["augment.py", str(tmp_path)])
    assert augment.main() == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"{tmp_path}: it has no conditional.json") and said.err.count("\n") == 1 and not said.out


# ---- what is shipped --------------------------------------------------------------------------------------------------------


def test_the_judge_never_saw_a_lens_of_the_models_or_of_the_test_set():
    plan, spec = recipes.JUDGE64, classifier.read(shipped("judge64"))[1]
    assert len({recipes.JUDGE_SEED, recipes.TRAIN_SEED, recipes.TEST_SEED}) == 3 and plan.train_seed == recipes.JUDGE_SEED
    seen = {"survey": asdict(plan.survey), "n": plan.n_train, "seed": recipes.JUDGE_SEED, "kind": "mixed", "scale": "min_max"}
    assert spec["data"]["fingerprint"] == fingerprint_of({"simulator": VERSION, **seen})
    assert {k: spec["arguments"][k] for k in plan.model} == plan.model
    assert spec["images_seen"] == (plan.train.steps + plan.train.frozen_steps) * plan.train.batch


@pytest.mark.parametrize("name", ["classes64", "parameters64"])
def test_a_conditional_model_is_what_its_report_says(name):
    model = load(shipped(name))
    found = json.loads((model.folder / "conditional.json").read_text())
    assert found["model_sha256"] == model.spec["sha256"] and found["sampling"] == str(model.sampling)
    recipe = recipes.RECIPES[name]
    stored = json.loads(json.dumps(recipe.as_dict()))  # tuples as lists
    assert {**model.spec["recipe"], "network": None} == {**stored, "network": None} and recipe.train.label_dropout == 0.1
    assert {**stored["network"], "image_channels": 1} == model.spec["network"]["arguments"]
    assert model.spec["images_seen"] == recipe.train.steps * recipe.train.batch
    assert (shipped(name) / "weights.safetensors").stat().st_size < 15e6
    small, classes = (load(shipped(other)).spec for other in ("lens64", "classes64"))
    assert model.spec["stages"][0]["sha256"] == small["sha256"]
    if name == "parameters64":
        assert model.spec["stages"][1]["sha256"] in [stage["sha256"] for stage in (*classes["stages"], classes)]
    assert (model.denoiser.net.classes, model.denoiser.net.conditions) == ((3, 0) if name == "classes64" else (0, 7))


def test_the_report_of_the_classes_is_whole():
    found = json.loads((shipped("classes64") / "conditional.json").read_text())
    assert found["judge_sha256"] == classifier.read(shipped("judge64"))[1]["sha256"]
    best = found["best"]
    assert set(best) == {"FD-EfficientNet", found["judge_ruler"]}
    assert all(best[ruler]["guidance"] == conditional.nearest(found["scales"], ruler)["guidance"] for ruler in best)
    for row in (*found["scales"], found["floor"], *best.values(), found["best_floor"]):
        assert np.trace(row["confusion"]) / row["n"] == pytest.approx(row["accuracy"])
        assert set(row["distance"]) == {"FD-EfficientNet", "FD-judge64"}
        assert all(set(each) == set(KINDS) for each in row["distance"].values())
    readme = (storage.root() / "README.md").read_text()
    for row in (*found["scales"], *best.values(), found["real"]):
        assert f"| {row['n']:,} | {100 * row['accuracy']:.1f} % |" in readme
    assert all(row["n"] == found["best_floor"]["n"] for row in best.values()) and found["floor"]["n"] == found["scales"][0]["n"]


def test_the_trial_with_drawn_lenses_is_whole_and_the_readme_has_its_means():
    folder = shipped("classes64")
    trial = json.loads((folder / "augment.json").read_text())
    assert trial["model_sha256"] == load(folder).spec["sha256"] and trial["guidance"] == augment.best_guidance(folder)
    assert trial["test_images"] == recipes.TEST_IMAGES - augment.FIRST_TEST
    runs = {(row["learns"], row["real"], row["seed"]) for row in trial["rows"]}
    ways = [("drawn", 0), *((learns, n) for n in augment.REAL for learns in ("real", "both"))]
    assert len(trial["rows"]) == len(runs) and runs == {(*way, seed) for way in ways for seed in range(3)}
    readme = (storage.root() / "README.md").read_text()
    for learns, n in (("drawn", 0), ("real", 150), ("both", 150), ("real", 2_400), ("both", 2_400)):
        found = 100 * np.array([row["accuracy"] for row in trial["rows"] if (row["learns"], row["real"]) == (learns, n)])
        assert f"{found.mean():.1f} ± {found.std(ddof=1) / np.sqrt(3):.1f} %" in readme


def test_the_asked_radius_is_measured():
    found = json.loads((shipped("parameters64") / "conditional.json").read_text())
    for row in (found["real"], *(one["fits"] for one in found["scales"])):
        assert row["einstein_radius_arcsec"]["n"] + row["einstein_radius_arcsec"]["unfitted"] == found["n"]
    readme, rows = (storage.root() / "README.md").read_text(), [one["fits"]["einstein_radius_arcsec"] for one in found["scales"]]
    assert all(f"| {row['correlation']:.4f} | {row['scatter']:.3f} arcsec |" in readme for row in rows)
    told = found["scales"][0]
    assert told["guidance"] == 1 and told["fits"]["einstein_radius_arcsec"]["correlation"] > 0.97

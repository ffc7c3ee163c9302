"""The study of conditional models: resumed row by row, and what is stored with the shipped ones."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from toys_scores import ByBrightness, Pooled, grey, small_model

from lensdiff.data import images
from lensdiff.errors import MetricError
from lensdiff.lensing import parameters
from lensdiff.lensing.fit import Fit
from lensdiff.lensing.population import KINDS
from lensdiff.lensing.simulate import VERSION
from lensdiff.model import load
from lensdiff.networks import classifier
from lensdiff.scores.card import FIRST_SEED
from lensdiff.scores.classification import interval
from lensdiff.scores.conditional import ClassScorer, nearest
from lensdiff.scores.statistics import to_uint8
from lensdiff.storage import fingerprint_of, read_json, shipped, write_json
from lensdiff.studies import conditional
from lensdiff.training import recipes

# ---- the study -----------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study of a small model, with small extractors, which notes the requested images."""
    model = small_model(tmp_path / "m", classes=3)
    found = SimpleNamespace(generated=[], killed_at=None, folder=model.folder)

    def generated_set(_model, n, guidance, first_seed):
        if len(found.generated) == found.killed_at:
            found.killed_at = None
            raise KeyboardInterrupt
        found.generated.append((guidance, n, first_seed))
        return grey(n, int(10 * guidance), 16)

    def run(scales: list[float], each: int = 8, most: int = 10) -> dict:
        return conditional.of_classes(model, shipped("judge64"), scales, each, most, most + 2)

    found.run = run
    monkeypatch.setattr(conditional, "REFERENCE", 60)
    monkeypatch.setattr(conditional, "lenses", lambda *_: grey(150, 0, 16))
    monkeypatch.setattr(conditional.classifier, "load", lambda *_: ByBrightness())
    monkeypatch.setattr(conditional.conditional, "generated_set", generated_set)
    nets = {"efficientnet": Pooled(2), "lensnet": Pooled(1)}
    monkeypatch.setattr(conditional, "extractor", lambda name, **_: nets[name])
    return found


def test_a_model_of_classes_is_scored_row_by_row(study):
    study.killed_at = 2
    with pytest.raises(KeyboardInterrupt):
        study.run([1.0, 2.0, 3.0])
    with pytest.raises(MetricError, match=r"conditional\.json: it is not complete\. Make it: "):
        conditional.stored(study.folder)
    found = study.run([1.0, 2.0, 3.0])
    assert [row["guidance"] for row in found["scales"]] == [1.0, 2.0, 3.0]
    assert all(row["n"] == 24 and row["accuracy"] == 1 for row in found["scales"])
    assert set(found["best"]) == {"FD-Pooled2", "FD-Pooled1"}
    for name, row in found["best"].items():
        assert row["guidance"] == nearest(found["scales"], name)["guidance"]
    assert all(row["n"] == found["best_floor"]["n"] == 30 for row in found["best"].values())
    test = grey(150, 0, 16)
    scorer = ClassScorer.of(ByBrightness(), [Pooled(2), Pooled(1)], test.subset(range(60), "r"))
    own = scorer.row(test.pixels[60:84], test.labels[60:84])
    for name, by_class in own["distance"].items():
        assert found["floor"]["distance"][name] == pytest.approx(by_class)
    assert found["floor"]["n"] == 24
    assert found["real"]["n"] == 150
    seeds = {(n, first_seed) for _, n, first_seed in study.generated}
    assert seeds == {(24, 1_000_000), (30, 1_010_000), (36, 1_010_000)}
    judge = found["judge_extractor"]
    assert found["more"]["guidance"] == found["best"][judge]["guidance"]
    assert found["more"]["n"] == found["more_floor"]["n"] == 36
    assert set(found["more"]["kid"][judge]) == set(KINDS)
    assert len(study.generated) == len(set(study.generated))
    before = list(study.generated)
    assert study.run([1.0, 2.0, 3.0]) == found == conditional.stored(study.folder)
    assert study.generated == before


def test_more_scales_and_more_images_join_what_is_stored(study):
    study.run([1.0, 2.0])
    more = study.run([3.0, 4.0])
    assert [row["guidance"] for row in more["scales"]] == [1.0, 2.0, 3.0, 4.0]
    for name, row in more["best"].items():
        assert row["guidance"] == nearest(more["scales"], name)["guidance"]
    others = study.run([1.0], most=14)
    assert all(row["n"] == 42 for row in (others["best_floor"], *others["best"].values()))
    assert len(study.generated) == len(set(study.generated))
    # a look at fewer images is returned, but does not take the place of the larger one
    assert study.run([1.0], most=8)["best_floor"]["n"] == 24
    assert conditional.stored(study.folder)["best_floor"]["n"] == 42
    assert study.run([1.0], each=9)["floor"]["n"] == 27  # other circumstances: all anew


def test_a_model_of_parameters_is_scored_by_fits(tmp_path, lenses16, monkeypatch):
    model = small_model(tmp_path / "m", conditions=7)
    wanted = parameters.of(lenses16.truth[:8])
    seen = []

    def fit(pixels, survey) -> Fit:
        assert survey.pixels == 16
        seen.append(np.asarray(pixels))
        error = 0.01 * np.random.default_rng(len(seen)).standard_normal(wanted.shape)
        return Fit(wanted + error, np.zeros((8, 3)), np.full(8, 0.01))

    monkeypatch.setattr(conditional.modelling, "fit", fit)
    monkeypatch.setattr(conditional, "lenses", lambda *_, **__: lenses16)
    found = conditional.of_parameters(model, [1.0, 2.0], 8)
    assert [row["guidance"] for row in found["scales"]] == [1.0, 2.0]
    for row in (found["real"], *(scale["fits"] for scale in found["scales"])):
        assert set(row) == set(parameters.NAMES)
        assert all(one["n"] == 8 for one in row.values())
    drawn = [model.draw(8, FIRST_SEED, wanted, g, observed=False) for g in (1.0, 2.0)]
    expected = [lenses16.pixels[:8], *(to_uint8(images).numpy() / 255 for images in drawn)]
    for mine, theirs in zip(seen, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1.01 / 255)
    assert np.abs(seen[1] - seen[2]).max() > 2 / 255  # guidance acts
    assert conditional.of_parameters(model, [1.0, 2.0], 8) == found
    assert len(seen) == 3


def test_what_can_not_be_scored_is_refused_first(tmp_path):
    model = load(shipped("lens64"))
    with pytest.raises(MetricError, match="lens64 is not conditioned on classes"):
        conditional.of_classes(model, tmp_path, [1.0], 8, 8)
    with pytest.raises(MetricError, match="lens64 is not conditioned on lens parameters"):
        conditional.of_parameters(model, [1.0], 8)
    with pytest.raises(MetricError, match="from 8 to 682 can be judged"):
        conditional.of_classes(load(shipped("classes64")), tmp_path, [1.0], 8, 683)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": 3}', '{"rows": [{}]}'])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    (tmp_path / conditional.FILE).write_text(text)
    with pytest.raises(MetricError, match=rf"conditional\.json.*Make it: .* score {tmp_path}$"):
        conditional.stored(tmp_path)


@pytest.mark.parametrize("role", ["floor", "scale", "best", "best floor"])
def test_a_file_without_one_kind_of_rows_is_not_complete(tmp_path, role):
    table = read_json(shipped("classes64") / conditional.FILE, "")
    table["rows"] = [row for row in table["rows"] if row["role"] != role]
    write_json(tmp_path / conditional.FILE, table)
    with pytest.raises(MetricError, match="it is not complete"):
        conditional.stored(tmp_path)


# ---- what is shipped -----------------------------------------------------------------------------


def test_the_judge_never_saw_a_lens_of_the_models_or_of_the_test_set():
    plan = recipes.JUDGE64
    spec = classifier.read(shipped("judge64"))[1]
    assert len({recipes.JUDGE_SEED, images.TRAIN_SEED, images.TEST_SEED}) == 3
    assert plan.train_seed == recipes.JUDGE_SEED
    seen = {
        "simulator": VERSION,
        "survey": asdict(plan.survey),
        "n": plan.n_train,
        "seed": recipes.JUDGE_SEED,
        "kind": "mixed",
        "scale": "min_max",
    }
    assert spec["data"]["fingerprint"] == fingerprint_of(seen)
    assert {k: spec["arguments"][k] for k in plan.model} == plan.model
    updates = plan.train.steps + plan.train.frozen_steps
    assert spec["images_seen"] == updates * plan.train.batch


@pytest.mark.parametrize("name", ["classes64", "parameters64"])
def test_a_conditional_model_is_what_its_report_has(name):
    model = load(shipped(name))
    found = conditional.stored(model.folder)
    assert found["model_sha256"] == model.spec["sha256"]
    assert found["sampling"] == str(model.sampling)
    recipe = recipes.RECIPES[name]
    plan = json.loads(json.dumps(recipe.as_dict()))  # tuples as lists
    assert {**model.spec["recipe"], "network": None} == {**plan, "network": None}
    assert recipe.train.label_dropout == 0.1
    network = model.spec["network"]["arguments"]
    assert {**plan["network"], "image_channels": 1} == network
    assert model.spec["images_seen"] == recipe.train.steps * recipe.train.batch
    assert (shipped(name) / "weights.safetensors").stat().st_size < 15e6
    small = load(shipped("lens64")).spec
    classes = load(shipped("classes64")).spec
    assert model.spec["stages"][0]["sha256"] == small["sha256"]
    if name == "parameters64":
        known = [stage["sha256"] for stage in (*classes["stages"], classes)]
        assert model.spec["stages"][1]["sha256"] in known
    kinds = (3, 0) if name == "classes64" else (0, 7)
    assert (model.denoiser.net.classes, model.denoiser.net.conditions) == kinds


def test_the_report_of_the_classes_is_whole():
    found = conditional.stored(shipped("classes64"))
    judge = classifier.read(shipped("judge64"))[1]
    assert found["judge_sha256"] == judge["sha256"]
    best = found["best"]
    assert set(best) == {"FD-EfficientNet", found["judge_extractor"]}
    for name, row in best.items():
        assert row["guidance"] == nearest(found["scales"], name)["guidance"]
    for row in (*found["scales"], found["floor"], *best.values(), found["best_floor"]):
        assert np.trace(row["confusion"]) / row["n"] == pytest.approx(row["accuracy"])
        assert set(row["distance"]) == {"FD-EfficientNet", "FD-judge64"}
        assert all(set(each) == set(KINDS) for each in row["distance"].values())
    page = shipped("README.md").read_text(encoding="utf-8")
    for row in (*found["scales"], *best.values(), found["best_floor"]):
        assert f"| {row['n']:,} | {100 * row['accuracy']:.1f} % |" in page
    real = found["real"]
    assert f"{100 * real['accuracy']:.1f} % of all {real['n']:,} simulated test lenses" in page
    assert all(row["n"] == found["best_floor"]["n"] for row in best.values())
    assert found["floor"]["n"] == found["scales"][0]["n"]
    assert found["more"]["guidance"] == best[found["judge_extractor"]]["guidance"]
    assert found["more"]["n"] == found["more_floor"]["n"] > found["best_floor"]["n"]
    for row in (found["more"], found["more_floor"]):
        assert all(set(row[name]) == set(best) for name in ("distance_error", "kid", "kid_std"))


def test_generated_lenses_without_substructure_are_recognised_more_often_than_by_chance():
    confusion = np.array(conditional.stored(shipped("classes64"))["more"]["confusion"])
    low, _ = interval(confusion[0, 0], confusion[0].sum())
    assert low > 1 / 3


def test_the_requested_radius_is_measured():
    found = conditional.stored(shipped("parameters64"))
    for fits in (found["real"], *(one["fits"] for one in found["scales"])):
        radius = fits["einstein_radius_arcsec"]
        assert radius["n"] + radius["unfitted"] == found["n"]
    page = shipped("README.md").read_text(encoding="utf-8")
    rows = [one["fits"]["einstein_radius_arcsec"] for one in found["scales"]]
    for row in rows:
        assert f"{row['correlation']:.3f}, {row['scatter']:.3f}, {row['rms']:.3f}" in page
    assert found["scales"][0]["guidance"] == 1
    assert rows[0]["correlation"] > 0.97


def test_substructure_limits_what_a_fit_can_find():
    """As page 06 says: without it, ellipticity and shear agree better, and the radius too."""
    found = conditional.stored(shipped("parameters64"))
    none = found["real_of_classes"]["no_sub"]
    for name in ("lens_e1", "lens_e2", "shear_1", "shear_2"):
        assert none[name]["correlation"] > found["real"][name]["correlation"]
    assert abs(none["einstein_radius_arcsec"]["bias"]) < 0.001
    assert found["real"]["einstein_radius_arcsec"]["bias"] > 0.02
    assert set(found["real_of_classes"]) == set(KINDS)

"""The study of generated lenses as training images: equal shares, resumed run by run, stored."""

import argparse
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from toys_scores import ByBrightness, grey, small_model

from lensdiff.__main__ import main
from lensdiff.data.images import ELEMENTS, TEST_IMAGES
from lensdiff.errors import MetricError, ParameterError
from lensdiff.model import load
from lensdiff.storage import shipped, studies_folder
from lensdiff.studies import augmentation
from lensdiff.training import recipes


def test_real_and_generated_lenses_have_equal_shares_and_no_real_one_is_left_out():
    real = grey(60, 0)
    generated = grey(30, 1)
    for rows in (np.arange(9), np.arange(48)):
        both = augmentation.together(real, generated, rows)
        count = max(len(rows), len(generated))
        assert len(both) == len(both.labels) == 2 * count
        found = {image.tobytes() for image in both.pixels[:count]}
        assert found == {real.pixels[row].tobytes() for row in rows}
        others = {image.tobytes() for image in both.pixels[count:]}
        assert others == {image.tobytes() for image in generated.pixels}
    chosen = augmentation.images_for("real", 12, 3, real, generated)
    assert np.bincount(chosen.labels).tolist() == [4, 4, 4]
    assert augmentation.images_for("drawn", 0, 0, real, generated) is generated


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study on grey images, with noted runs in place of trainings; `killed_at` stops one."""
    found = SimpleNamespace(
        calls=[], generated=[], killed_at=None, path=tmp_path / "augmentation.json"
    )
    found.folder = small_model(tmp_path / "m", classes=3).folder

    def one_run(images, test, config) -> dict:
        if len(found.calls) == found.killed_at:
            found.killed_at = None
            raise KeyboardInterrupt
        found.calls.append((len(images), len(test), config))
        return {"accuracy": 0.5, "macro_auc": 0.5}

    def run(*more: str) -> list[dict]:
        parser = argparse.ArgumentParser()
        augmentation.add_arguments(parser)
        given = [str(found.folder), "--seeds", "1", "--out", str(tmp_path), *more]
        augmentation.run(parser.parse_args(given))
        return json.loads(found.path.read_text())["rows"]

    found.run = run
    monkeypatch.setattr(augmentation, "one_run", one_run)
    monkeypatch.setattr(augmentation, "REAL", (6, 12))
    monkeypatch.setattr(augmentation, "FIRST_TEST", 20)
    monkeypatch.setattr(augmentation, "lenses", lambda split, _: grey(60, split == "test", 16))

    def generated_set(_model, n, guidance, first_seed):
        found.generated.append((n, guidance, first_seed))
        return grey(n, 2, 16)

    monkeypatch.setattr(augmentation, "generated_set", generated_set)
    return found


def test_a_run_is_scored_on_the_test_set(monkeypatch):
    monkeypatch.setattr(augmentation, "fit_classifier", lambda model, *_: model)
    monkeypatch.setattr(augmentation, "LensClassifier", lambda **_: ByBrightness())
    test = grey(30, 1)
    wrong = replace(test, labels=(test.labels + 1) % 3)
    found = augmentation.one_run(grey(60, 0), wrong, recipes.JUDGE64.train)
    assert (found["accuracy"], found["train_accuracy"]) == (0, 1)


def test_the_table_is_kept_run_by_run_and_begun_anew_for_another_guidance(study):
    study.killed_at = 3
    guided = ("--guidance", "2", "--generated", "9")
    with pytest.raises(KeyboardInterrupt):
        study.run(*guided)
    assert len(json.loads(study.path.read_text())["rows"]) == 3
    rows = study.run(*guided)
    assert len(rows) == len(study.calls) == 1 + 2 * 2
    assert set(study.generated) == {(9, 2.0, augmentation.SECOND_SEED)}
    keys = [(row["learns"], row["real"], row["seed"]) for row in rows]
    ways = [("drawn", 0), ("real", 6), ("both", 6), ("real", 12), ("both", 12)]
    assert keys == [(*way, 0) for way in ways]
    assert [n for n, *_ in study.calls] == [9, 6, 18, 12, 24]
    assert {n for _, n, _ in study.calls} == {40}  # what did not choose the guidance
    assert len(study.run("--guidance", "3", "--generated", "9")) == 5
    assert len(study.calls) == 2 * 5


def test_each_seed_trains_alike_but_for_the_seed(study):
    study.run("--guidance", "2", "--generated", "9", "--seeds", "2", "--updates", "7")
    configs = [config for *_, config in study.calls]
    assert [config.seed for config in configs] == [0] * 5 + [1] * 5
    assert {(config.steps, config.frozen_steps) for config in configs} == {(7, 50)}
    assert {config.elements for config in configs} == {ELEMENTS[grey(3, 0).symmetries]}


def test_without_a_best_guidance_the_cure_is_named(study, tmp_path):
    with pytest.raises(MetricError, match=r"conditional\.json.*python -m lensdiff score"):
        study.run()
    with pytest.raises(MetricError, match=r"python -m lensdiff score"):
        augmentation.best_guidance(tmp_path)
    with pytest.raises(MetricError, match=r"Give --guidance"):
        augmentation.best_guidance(shipped("parameters64"))


@pytest.mark.parametrize("name", ["lens64", "lensnet"])
def test_the_command_names_what_is_wrong_in_one_sentence(name, capsys):
    assert main(["study", "augmentation", name]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"{name} is not conditioned on classes. Take one that is.\n"
    assert not shown.out


def test_the_stored_runs_are_whole_and_know_their_own_images_best():
    folder = shipped("classes64")
    trial = json.loads((studies_folder() / "augmentation.json").read_text())
    assert trial["model_sha256"] == load(folder).spec["sha256"]
    assert trial["guidance"] == augmentation.best_guidance(folder)
    assert trial["test_images"] == TEST_IMAGES - augmentation.FIRST_TEST
    rows = trial["rows"]
    runs = {(row["learns"], row["real"], row["seed"]) for row in rows}
    ways = [("drawn", 0)]
    ways += [(learns, n) for n in augmentation.REAL for learns in ("real", "both")]
    assert len(rows) == len(runs)
    assert runs == {(*way, seed) for way in ways for seed in range(3)}
    for row in rows:
        assert 1 / 3 < row["accuracy"] < row["train_accuracy"]


def test_a_model_of_another_size_is_refused_before_anything_is_drawn(study, monkeypatch):
    monkeypatch.setattr(augmentation, "lenses", lambda *_: grey(60, 0, 8))
    with pytest.raises(ParameterError, match="draws no lenses of 64 pixels"):
        study.run("--guidance", "2", "--generated", "9")
    assert study.generated == []

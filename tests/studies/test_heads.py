"""The stored comparison of heads, and that the study computes what is missing alone."""

import argparse
import json
from dataclasses import replace

import numpy as np

from lensdiff.storage import studies_folder
from lensdiff.studies import heads
from lensdiff.training import recipes


def test_the_stored_comparison_of_heads_is_whole():
    stored = json.loads((studies_folder() / "heads.json").read_text())
    runs = stored["rows"]
    keys = [tuple(run[k] for k in ("head", "seed", "train_images", "updates")) for run in runs]
    assert sorted(keys) == sorted([*heads.SHORT, *heads.SIZES, *heads.LONG])
    # a ranking takes three seeds of both heads
    assert {one[:2] for one in heads.LONG} == {(h, s) for h in heads.BOTH for s in range(3)}
    # the whole budget of the sizes is that of the short runs, which are their largest size
    assert {updates for *_, updates in heads.SIZES} == {updates for *_, updates in heads.SHORT}
    assert stored["test_images"] == heads.TEST_IMAGES
    for run in runs:
        assert run["interval"][0] < run["accuracy"] < run["interval"][1]
        assert 0.3 < run["accuracy"] < 1


def test_what_is_missing_alone_is_trained(lenses16, tmp_path, monkeypatch):
    trained = []

    def one_run(head, seed, n, train, test, config):
        trained.append((head, seed, n, config.steps, config.held_out_every, len(test)))
        return {"accuracy": 0.5, "interval": [0.4, 0.6], "macro_auc": 0.5}

    recipe = replace(recipes.LENSNET)
    monkeypatch.setattr(type(recipe), "images", lambda self, split: lenses16)
    monkeypatch.setattr(heads, "TEST_IMAGES", 30)
    monkeypatch.setattr(heads, "one_run", one_run)
    parser = argparse.ArgumentParser()
    heads.add_arguments(parser)
    args = parser.parse_args(["--out", str(tmp_path)])
    heads.run(args)
    wanted = [*heads.SHORT, *heads.SIZES, *heads.LONG]
    assert len(trained) == len(wanted)
    assert {one[:4] for one in trained} == set(wanted)
    assert {one[4:] for one in trained} == {(0, 30)}
    heads.run(args)
    assert len(trained) == len(wanted)


def test_a_run_takes_the_first_images_of_a_shuffle(lenses16, monkeypatch):
    seen = []

    def fit_classifier(model, images, config, folder, split):
        seen.append((model.head, config.seed, split))
        return model

    monkeypatch.setattr(heads, "fit_classifier", fit_classifier)
    monkeypatch.setattr(heads, "LENSNET", replace(recipes.LENSNET, model={"size": 32}))
    test = lenses16.subset(np.arange(9), "others")
    asked = []

    def predict(model, images):
        asked.append(images)
        return np.eye(3)[np.asarray(images.labels)]

    monkeypatch.setattr(heads, "predict", predict)
    found = heads.one_run("plain", 3, 12, lenses16, test, recipes.LENSNET.train)
    assert set(found) == {"accuracy", "interval", "macro_auc"}
    assert asked == [test] and found["accuracy"] == 1
    ((head, seed, (rows, held)),) = seen
    assert type(head).__name__ == "PlainHead"
    assert seed == 3
    expected = np.sort(np.random.default_rng(3).permutation(len(lenses16))[:12])
    np.testing.assert_array_equal(rows, expected)
    assert len(held) == 1

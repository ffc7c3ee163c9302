"""What is stored of transformers is of today's networks and rates, and carries what 09 says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import transformers

STORED = read_json(studies_folder() / transformers.FILE, "")
RUNS = {(row["name"], row["size"], row["seed"]): row for row in STORED["rows"] if row.get("size")}
BASE = [(name, "base", seed) for name in transformers.KINDS for seed in transformers.SEEDS]


def test_each_architecture_has_three_seeds():
    assert set(BASE) <= set(RUNS)
    assert STORED["n"] == transformers.SCORED and STORED["updates"] is None


@pytest.mark.parametrize("name", transformers.KINDS)
def test_a_rate_is_the_best_of_those_tried(name):
    rows = [row for row in STORED["rows"] if row.get("role") == "rate" and row["name"] == name]
    assert [row["lr"] for row in rows] == list(transformers.RATES)
    best = min(rows, key=lambda row: row["held_out"])
    assert transformers.KINDS[name].lr == best["lr"]


@pytest.mark.parametrize("key", RUNS, ids=str)
def test_a_run_is_of_the_recipe_as_it_is_now(key):
    name, size, seed = key
    row = RUNS[key]
    recipe = transformers.recipe(name, size, seed)
    written = json.loads(json.dumps(recipe.as_dict()))  # tuples as lists
    was = json.loads(json.dumps(row["recipe"]))
    # the last digit of a level is the machine's; the network was told its images' channels
    assert was["sampling"].pop("high") == pytest.approx(written["sampling"].pop("high"), rel=1e-12)
    assert was["network"].pop("image_channels", 1) == 1
    assert was == written
    assert row["images_seen"] == recipe.train.steps * recipe.train.batch
    assert row["curve"][-1]["held_out"] < 0.8 * row["curve"][0]["held_out"]
    assert row["card"]["n_generated"] == row["card"]["n_reference"] == transformers.SCORED


@pytest.mark.parametrize("name", transformers.KINDS)
def test_pictures_of_the_first_seed_show_lenses(name):
    picture = Image.open(studies_folder() / "transformers" / f"{name}-base-0.png")
    assert picture.size == (8 * 64, transformers.SHOWN // 8 * 64)
    pixels = np.asarray(picture, float) / 255
    assert pixels.max() > 0.7 and pixels.std() > 0.02


def test_minutes_and_weights_are_equal():
    rows = [RUNS[key] for key in BASE]
    minutes = [row["recipe"]["train"]["steps"] * row["update_s"] / 60 for row in rows]
    assert max(minutes) < 1.25 * min(minutes)
    weights = [row["parameters"] for row in rows]
    assert max(weights) < 1.12 * min(weights)

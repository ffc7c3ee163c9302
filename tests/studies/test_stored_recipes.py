"""What is stored of the published solutions is of today's recipes, and carries what 10 says."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from lensdiff.networks.unet import UNet
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import recipes as study
from lensdiff.training.published import OURS, PUBLISHED

STORED = read_json(studies_folder() / study.FILE, "")
ROWS = {row["name"]: row for row in STORED["rows"]}
TRAINED = list(PUBLISHED)
LATENTS = ("vq-latents", "vq-latents-T200")
SOURCES = ("ddpm", "sigmoid-ddim", "cosine-l1", "faces", "vq-latents")


def excess(name: str, card: str = "card") -> float:
    return ROWS[name][card]["distance"] - ROWS[name][card]["floor"]


def test_every_recipe_is_stored():
    assert {*SOURCES, OURS} <= set(TRAINED) <= set(ROWS)
    known = {*PUBLISHED, *(f"{name} from a lower level" for name in PUBLISHED), "test lenses"}
    known |= {study.CALLS, *study.FURTHER}
    assert set(ROWS) <= known and len(ROWS) == len(STORED["rows"])


@pytest.mark.parametrize("name", TRAINED)
def test_a_row_is_of_the_recipe_as_it_is_now(name):
    row = ROWS[name]
    recipe = PUBLISHED[name].recipe
    written = json.loads(json.dumps(recipe.as_dict()))  # tuples as lists
    was = json.loads(json.dumps(row["recipe"]))
    # the last digit of a level is the machine's; the network was told its images' channels
    assert was["sampling"].pop("high") == pytest.approx(written["sampling"].pop("high"), rel=1e-12)
    channels = 4 if recipe.autoencoder else 3 if recipe.data == "colour" else 1
    assert was["network"].pop("image_channels", 1) == channels
    assert was == written
    assert row["says"] == asdict(PUBLISHED[name].says)
    assert row["images_seen"] == recipe.train.steps * recipe.train.batch
    assert row["curve"][-1]["images_seen"] == row["images_seen"]
    assert row["curve"][-1]["held_out"] < row["curve"][0]["held_out"]
    card = row["card"]
    assert card["n_generated"] == card["n_reference"] == study.SCORED
    assert card["sampling"] == str(recipe.sampling) and card["calls"] == 20
    assert card["excess_error"] > 0
    assert row["own_card"]["n_generated"] == row["like_own"]["n_generated"] == study.OWN
    assert row["own_sampler"]["calls"] <= study.OWN_CALLS


@pytest.mark.parametrize("name", TRAINED)
def test_its_network_has_the_weights_that_are_stored(name):
    recipe = PUBLISHED[name].recipe
    channels = 4 if recipe.autoencoder else 3 if recipe.data == "colour" else 1
    with torch.device("meta"):
        net = UNet(**{**recipe.network, "image_channels": channels})
    assert sum(p.numel() for p in net.parameters()) == ROWS[name]["parameters"]


@pytest.mark.parametrize("name", TRAINED)
def test_its_pictures_show_lenses(name):
    side = PUBLISHED[name].recipe.pixels
    grey = PUBLISHED[name].recipe.data != "colour"
    shown = (study.SHOWN, study.SHOWN // 4) if grey else (study.SHOWN_IN_COLOUR, study.COLUMNS)
    for ending, count in zip(("", "-own"), shown, strict=True):
        path = studies_folder() / "recipes" / f"{name}{ending}.png"
        picture = np.asarray(Image.open(path), float) / 255
        assert picture.shape[:2] == (count // study.COLUMNS * side, study.COLUMNS * side)
        assert picture.max() > 0.7 and picture.std() > 0.02


def test_ours_is_ahead_of_every_published_recipe():
    ours = ROWS[OURS]
    for name in TRAINED:
        if ROWS[name]["physics"] and not name.startswith(OURS):
            errors = [row["card"]["excess_error"] for row in (ours, ROWS[name])]
            assert excess(name) - excess(OURS) > 4 * np.hypot(*errors), name


def test_latents_draw_the_soundest_lenses_and_lack_the_noise():
    grey = [name for name in TRAINED if ROWS[name]["physics"]]
    broken = {name: ROWS[name]["physics"]["with_a_defect"]["generated"] for name in grey}
    assert set(sorted(broken, key=broken.get)[:2]) == set(LATENTS)
    assert min(map(excess, LATENTS)) > 3 * excess(OURS)


def test_latents_of_a_shorter_schedule_are_fainter_and_longer_and_not_told_by_the_distance():
    """The fifth source says that T = 300 is far better than 200."""
    errors = [ROWS[name]["card"]["excess_error"] for name in LATENTS]
    assert abs(np.subtract(*map(excess, LATENTS))) < 1.96 * np.hypot(*errors)
    for number in ("flux_arcsec2", "ellipticity"):
        long, cut = (ROWS[name]["physics"]["scalars"][number] for name in LATENTS)
        assert cut["w1"] - long["w1"] > long["w1_band"] > 0
    long, cut = (float(PUBLISHED[name].levels[-1]) for name in LATENTS)
    assert cut < long


def test_a_schedule_without_signal_is_sampled_from_a_lower_level_too():
    """Those that are stored; the excess of the sigmoid schedule's own sampler says why."""
    for name in (name for name in ROWS if name.endswith("from a lower level")):
        solution = PUBLISHED[name.removesuffix(" from a lower level")]
        assert float(solution.levels[-1]) > study.NO_SIGNAL > ROWS[name]["high"]
        assert (studies_folder() / "recipes" / f"{solution.name}-lower.png").exists()
    assert excess("sigmoid-ddim", "own_card") > 4 * excess("sigmoid-ddim", "like_own")
    # the same steps from a lower start, and most of the excess is gone
    far = excess("ddpm-cosine", "own_card")
    near = excess("ddpm-cosine from a lower level")
    assert near < 0.4 * far and near < excess("ddpm-cosine", "like_own")


def test_a_balanced_loss_is_all_that_differs():
    """From `ours`, whose excess is larger by more than both errors leave open."""
    one = ROWS["ours-balanced"]
    other = ROWS["ours"]
    balanced = json.loads(json.dumps(one["recipe"]))
    assert balanced["train"].pop("balance") is True
    assert balanced.pop("name") == "ours-balanced"
    assert balanced == {name: x for name, x in other["recipe"].items() if name != "name"}
    assert one["images_seen"] == other["images_seen"] and one["says"] == other["says"]
    error = np.hypot(one["card"]["excess_error"], other["card"]["excess_error"])
    assert excess("ours") - excess("ours-balanced") > 3 * error


def test_calls_took_turns():
    row = ROWS[study.CALLS]
    median = {name: np.median(each) / row["images"] for name, each in row["seconds"].items()}
    assert set(median) == set(PUBLISHED)
    assert median["cosine-l1"] > 10 * median["ours"] > 10 * 10 * 1e-6
    # one network each: what is left is the clock
    for one, other in (
        ("ours", "ours-observed"),
        ("ddpm", "ddpm-cosine"),
        ("faces", "faces-T200"),
        LATENTS,
    ):
        assert 0.7 < median[one] / median[other] < 1.4


def test_the_two_schedules_of_one_network_are_not_told_apart():
    errors = [ROWS[name]["card"]["excess_error"] for name in ("ddpm", "ddpm-cosine")]
    assert abs(excess("ddpm") - excess("ddpm-cosine")) < 1.96 * np.hypot(*errors)


@pytest.mark.parametrize("name", ["ddpm", "faces"])
def test_twice_the_width_costs_images_and_distance(name):
    wide, plain = (ROWS[each] for each in (f"{name}-wide", name))
    assert 3.5 < wide["flops"] / plain["flops"] < 4.5
    assert wide["images_seen"] < plain["images_seen"] / 3
    errors = [row["card"]["excess_error"] for row in (wide, plain)]
    assert excess(f"{name}-wide") - excess(name) > 2 * np.hypot(*errors)


def test_the_widest_sees_the_fewest_images_and_is_the_farthest():
    assert min(TRAINED, key=lambda name: ROWS[name]["images_seen"]) == "faces-wide"
    grey = [name for name in TRAINED if ROWS[name]["physics"]]
    assert max(grey, key=excess) == "faces-wide"


def test_t_cut_short_with_beta_unchanged_is_far_worse():
    """As the fourth source says; its last level lies where part of the image is left."""
    one, other = (ROWS[name]["card"] for name in ("faces-T200", "faces"))
    apart = excess("faces-T200") - excess("faces")
    assert apart > 4 * np.hypot(one["excess_error"], other["excess_error"])
    assert float(PUBLISHED["faces-T200"].levels[-1]) < 3


def test_the_telescope_is_not_what_decides():
    ours = ROWS[OURS]["card"]
    observed = ROWS["ours-observed"]["card"]
    both = np.hypot(ours["excess_error"], observed["excess_error"])
    assert abs(excess("ours-observed") - excess(OURS)) < 1.96 * both
    for name in SOURCES:
        apart = np.hypot(ROWS[name]["card"]["excess_error"], observed["excess_error"])
        assert excess(name) - excess("ours-observed") > 4 * apart, name

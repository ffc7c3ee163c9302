"""What is stored of the benchmark carries what notebook 11 and the README say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lensdiff.networks.unet import UNet
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import (
    benchmark,
    benchmark_parts,
    benchmark_whole,
    gallery,
    paired,
    peer_quality,
    peers,
    samplers,
)
from lensdiff.training import recipes
from lensdiff.training.published import OURS, PUBLISHED

STORED = read_json(studies_folder() / benchmark.FILE, "")["rows"]
ROWS = {(row["part"], row["row"]): row for row in STORED if row["kind"] == "bf16"}
PEERS = [name for name in peers.CONTENDERS if not name.startswith("ours")]
SIDES = [str(side) for side in benchmark_parts.SIDES]


def part(name: str) -> dict[str, dict]:
    return {row: found for (part, row), found in ROWS.items() if part == name}


def median(side: str, name: str) -> float:
    return float(np.median(ROWS["training", side]["seconds"][name]))


def exponent(what: str, key: str) -> float:
    """Of a power law, without the smallest, as the page fits it."""
    measured = ROWS["growth", what]["measured"][1:]
    x, y = np.log([(one["value"], np.median(one[key])) for one in measured]).T
    return float(np.polyfit(x, y, 1)[0])


def test_every_part_is_stored_once_with_its_circumstances() -> None:
    for name, one in benchmark.PARTS.items():
        assert set(part(name)) == set(one.rows), name
    assert len(ROWS) == sum(row["kind"] == "bf16" for row in STORED)
    for row in ROWS.values():
        assert row["machine"] and row["date"] and "torch" in row["versions"]


@pytest.mark.parametrize("side", SIDES)
def test_ours_without_folding_lies_between_the_peers(side: str) -> None:
    row = ROWS["training", side]
    assert set(row["seconds"]) == set(row["peak_bytes"]) == set(peers.CONTENDERS)
    assert {len(taken) for taken in row["seconds"].values()} == {5}
    own = median(side, "ours without folding")
    for name in PEERS:
        if not name.startswith("azula"):
            assert median(side, name) > own, name
    assert median(side, "azula, bf16") < own


def test_folding_makes_large_images_as_fast_as_small_ones() -> None:
    assert median("150", "ours") < 1.4 * median("64", "ours")
    assert median("150", "ours without folding") > 4 * median("64", "ours without folding")
    for side in ("128", "150"):
        for name in PEERS:
            assert median(side, name) > 2 * median(side, "ours"), (side, name)


@pytest.mark.parametrize("side", SIDES)
def test_folded_peers_are_faster_and_have_fewer_weights(side: str) -> None:
    """Which is why the page says whose the large ratios are."""
    row = ROWS["folding", side]
    for name in peers.BUILDERS:
        assert paired.ratio(row["seconds"][name], row["seconds"]["ours"]).high < 0.9
        share = row["parameters"][name] / row["parameters"]["ours"]
        assert 0.45 < share < 0.76
        assert row["parameters"][name] < 1.02 * ROWS["training", side]["parameters"][name]


def test_what_bfloat16_brings() -> None:
    for side in SIDES:
        assert 0.65 < median(side, "ours") / median(side, "ours, fp32") < 0.85
        for name in ("denoising-diffusion-pytorch", "azula"):
            assert 0.35 < median(side, f"{name}, bf16") / median(side, name) < 0.75
        gain = median(side, "diffusers, bf16") / median(side, "diffusers")
        assert 1 < gain < 1.3 if side == "64" else gain < 0.8


def test_azula_is_faster_than_ours_in_small_images() -> None:
    assert median("64", "azula") < median("64", "ours, fp32")
    assert median("64", "azula, bf16") < median("64", "ours")
    parameters = ROWS["training", "64"]["parameters"]
    assert parameters["azula"] == pytest.approx(parameters["ours"] / 2, rel=0.1)


@pytest.mark.parametrize("n", benchmark_parts.ROWS)
def test_both_distances_are_one_number_and_ours_is_fast(n: int) -> None:
    row = ROWS["frechet", f"{n}"]
    ours, theirs = (row["distances"][name] for name in ("ours", "pytorch-fid"))
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert paired.ratio(row["seconds"]["pytorch-fid"], row["seconds"]["ours"]).low > 5
    assert row["error_s"] < 10


def test_lenses_and_files_come_faster() -> None:
    for name, row in part("simulation").items():
        times = (row["seconds"][who] for who in ("lenstronomy", "ours"))
        per = (row["lenses"][who] for who in ("lenstronomy", "ours"))
        assert row["threads"] == 1 and paired.ratio(*times, *per).low > 1, name
    row = ROWS["reading", "files"]
    assert paired.ratio(row["seconds"]["DataLoader"], row["seconds"]["ours"]).median > 1


def test_how_cost_grows() -> None:
    assert 1.5 < exponent("side", "update_s") < 2.1 and 1.5 < exponent("side", "kept_bytes") < 2.1
    assert 0.8 < exponent("batch", "update_s") < 1.1 and 0.8 < exponent("batch", "kept_bytes") < 1.1
    assert 1 < exponent("width", "update_s") < 2
    for what, (low, high) in {"side": (1, 2.1), "batch": (0.4, 1.1), "width": (1, 2.3)}.items():
        peaks = [one["peak_bytes"] for one in ROWS["memory", what]["measured"]]
        values = [one["value"] for one in ROWS["memory", what]["measured"]]
        assert low < np.polyfit(np.log(values[1:]), np.log(peaks[1:]), 1)[0] < high, what
    few, _, many = (ROWS["scores", f"{n}"]["score_s"] for n in benchmark_whole.SCORES)
    assert many["precision and recall"] > 8 * few["precision and recall"]


def test_few_calls_are_as_good_as_many() -> None:
    *short, slow = ROWS["calls", "lens64"]["samplers"]
    assert slow["sampler"] == "ddim" and slow["calls"] == 250
    gaps = {row["calls"]: samplers.difference(row, slow) for row in short}
    close = [calls for calls, (gap, error) in gaps.items() if gap <= error]
    assert slow["calls"] / min(close) > 10
    assert sum(gap > error for gap, error in gaps.values()) > 1  # more is not always better


@pytest.mark.parametrize("name", peers.BUILDERS)
def test_a_peer_was_trained_and_drawn(name: str) -> None:
    row = part("quality")[f"{name}, {peer_quality.EQUAL}"]
    file = row.get("picture", f"{name}-equal-time.png")
    picture = Image.open(studies_folder() / "benchmark" / file)
    assert picture.size == (8 * 64, 2 * 64)
    assert np.std(np.asarray(picture)) > 5  # not blank


@pytest.mark.parametrize(
    "name", [one for one in part("quality") if one.endswith(peer_quality.EQUAL)]
)
def test_a_peer_had_the_time_of_ours_and_its_lenses_are_further_away(name: str) -> None:
    row = ROWS["quality", name]
    steps = PUBLISHED[OURS].recipe.train.steps
    assert row["updates"] * row["update_s"] == pytest.approx(steps * row["ours_update_s"], rel=0.01)
    assert row["images_seen"] == row["updates"] * peers.BATCH
    card = row["card"]
    stored = read_json(studies_folder() / "recipes.json", "")["rows"]
    ours = next(one["card"] for one in stored if one["name"] == OURS)
    assert (card["n_generated"], card["floor"]) == (512, pytest.approx(ours["floor"], abs=0.02))
    excess = [one["distance"] - one["floor"] for one in (card, ours)]
    error = np.hypot(card["excess_error"], ours["excess_error"])
    assert excess[0] - excess[1] > 3 * error


def test_the_stored_widths_are_those_of_the_networks():
    row = ROWS["growth", "width"]
    for one in row["measured"]:
        plan = recipes.every()[benchmark_parts.MODEL].widened(one["value"])
        with torch.device("meta"):
            net = UNet(**plan.network)
        assert one["parameters"] == sum(p.numel() for p in net.parameters())


def test_the_readme_names_the_nearest_of_the_peers() -> None:
    """Of rows that are made up, by the excess: a floor of its own may turn the order."""
    card = ROWS["quality", "denoising-diffusion-pytorch, equal time"]["card"]
    near = {"distance": 25.0, "floor": 3.0, "excess_error": 1.0, "calls": 7}
    nearer = near | {"distance": 24.0, "floor": 1.0}
    found = {("quality", "diffusers, equal time"): {"card": card | near}}
    alone = gallery._quality(found)
    assert alone.startswith("after equal time diffusers has ") and "peers" not in alone
    assert ", 7 calls a lens" in alone
    found["quality", "azula, equal time"] = {"card": card | nearer}
    found["quality", "azula, long"] = {"card": card | nearer | {"distance": 2.0}}
    assert "diffusers, the nearest of 2 peers, has " in gallery._quality(found)

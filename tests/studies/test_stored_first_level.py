"""What is stored of first levels and of a further stage says what the pages say of it."""

from __future__ import annotations

import pytest

from lensdiff import model as models
from lensdiff.scores.card import ENOUGH, FIRST_SEED
from lensdiff.storage import read_json, shipped, studies_folder
from lensdiff.studies import first_level, growth_on
from lensdiff.studies.samplers import difference

ROWS = read_json(studies_folder() / first_level.FILE, "")["rows"]
FURTHER = read_json(studies_folder() / growth_on.FILE, "")


def of(name: str, role: str) -> list[dict]:
    return [row for row in ROWS if (row["name"], row["role"]) == (name, role)]


def test_the_best_level_was_chosen_on_images_that_no_card_uses() -> None:
    assert first_level.SEED >= FIRST_SEED + ENOUGH
    for path in sorted(shipped("").glob("*/card.json")):
        card = read_json(path, "")
        assert card["seed"] == FIRST_SEED and card["n_reference"] == card["n_floor"] == ENOUGH
    for name in dict.fromkeys(row["name"] for row in ROWS):
        looks = of(name, "look")
        own, *others = of(name, "card")
        assert own["high"] == looks[0]["high"] and len(others) < 2
        for best in others:
            assert best["high"] == first_level.chosen(looks)["high"]


def test_rows_are_of_the_shipped_weights() -> None:
    for row in ROWS:
        if not row["name"].startswith("runs"):
            spec = models.load(row["name"]).spec
            assert row["model_sha256"] == spec["sha256"]
    assert FURTHER["start_sha256"] == models.load(growth_on.START).spec["sha256"]


def test_a_higher_level_comes_nearer_in_flux_and_the_power_of_large_shapes() -> None:
    """Of lens150-long, whose mean image its own first level does not hide."""
    own, best = of("lens150-long", "card")
    assert best["high"] >= 4 * own["high"]
    apart, error = difference(best, own)
    assert -0.4 < apart < 0 and 1.5 < -apart / error < 2.5
    assert best["distance"] < 2 * best["floor"] < own["distance"]
    flux = best["census"]["scalars"]["flux_arcsec2"]
    assert flux["w1"] < 1.5 * flux["w1_band"] and flux["generated_mean"] < flux["real_mean"]
    power, of_power = best["census"]["power_ratio"]["0 to 3"]
    assert abs(power - 1) < 0.05 and of_power < 0.05
    (mean,) = of("lens150-long", "mean")
    assert 0.1 < mean["shift"] < 0.3


def test_the_balanced_stage_comes_nearer_and_its_control_does_not() -> None:
    row, control = FURTHER["rows"]
    assert [one["name"] for one in (row, control)] == list(growth_on.STAGES)
    assert row["images_seen"] == control["images_seen"] == 144_000
    apart, error = difference(row, control)
    assert apart < -4 * error
    apart, error = difference(control, FURTHER["shipped"])
    assert apart > 2 * error
    for name in growth_on.STAGES:
        own, *_ = of(f"runs/growth/growth-{name}", "card")
        (stage,) = [one for one in FURTHER["rows"] if one["name"] == name]
        assert own["model_sha256"] == stage["sha256"]
        assert own["distance"] == pytest.approx(stage["distance"], abs=0.02)


def test_the_balanced_stage_guesses_better_at_low_noise_alone() -> None:
    row, control = FURTHER["rows"]
    assert row["recipe"]["train"]["balance"] and not control["recipe"]["train"].get("balance")
    assert min(control["guess"]) > 0
    apart, error = difference(row, FURTHER["shipped"])
    assert apart < -2 * error
    assert row["guess"] == sorted(row["guess"])
    assert row["guess"][0] < -0.15 and abs(row["guess"][-1]) < 0.01
    assert row["census"]["two_sample"][0] == pytest.approx(0.66, abs=0.02)


def test_a_balanced_stage_of_64_pixels_comes_nearer_and_counts_no_better() -> None:
    table = read_json(studies_folder() / growth_on.file_of("lens64-long"), "")
    assert table["start_sha256"] == models.load("lens64-long").spec["sha256"]
    (row,) = table["rows"]
    assert row["recipe"]["train"]["balance"] and not row["recipe"]["train"].get("learns")
    assert row["images_seen"] == 320_000
    apart, error = difference(row, table["shipped"])
    assert apart < -3 * error
    assert row["guess"] == sorted(row["guess"]) and row["guess"][0] < -0.2
    (own, _), (told, of_told) = (one["census"]["two_sample"] for one in (table["shipped"], row))
    assert told < own - 2 * of_told and told < 0.6 - 2 * of_told
    drawn = [one["census"]["counts"]["drawn"] for one in (table["shipped"], row)]
    for key in ("two_or_ring", "three_images"):
        assert abs(drawn[1][key] - drawn[0][key]) < 30  # of 2,048: less than an error
    assert drawn[1]["broken_ridge"] < drawn[0]["broken_ridge"] - 30


def test_counts_go_wrong_between_the_middle_levels() -> None:
    """Three images at low noise, single ones and jumping ridges from higher on, in both models."""
    table = read_json(studies_folder() / growth_on.file_of("lens64-long"), "")
    own = read_json(shipped("lens64-long") / "where.json", "")
    of_row = table["rows"][0]["bands"]
    for floor, rows in ((own["floor"], own["rows"]), (of_row["floor"], of_row["levels"])):
        at = {one["sigma"]: one["counts"] for one in rows}
        rise = {
            s: found["three_images"] - floor["counts"]["three_images"] for s, found in at.items()
        }
        assert rise[2.0] > 20 and rise[5.0] > rise[None] / 2
        lost = {s: floor["counts"]["two_or_ring"] - found["two_or_ring"] for s, found in at.items()}
        assert max(lost[0.5], lost[2.0]) <= 0 < 8 < lost[5.0] < lost[None]
        jumps = {
            s: found["broken_ridge"] - floor["counts"]["broken_ridge"] for s, found in at.items()
        }
        assert jumps[5.0] < 10 < jumps[12.0]

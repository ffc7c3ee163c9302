"""What is stored of 2,048 lenses carries what page 13 and the README say of them."""

from __future__ import annotations

import json

import pytest

from lensdiff.storage import read_json, shipped, studies_folder
from lensdiff.studies import census, samplers

ROWS = {row["name"]: row for row in read_json(studies_folder() / census.FILES[150], "")["rows"]}
FLAGSHIP = "lens150-long"


def share(name: str, what: str) -> float:
    return ROWS[name]["counts"]["drawn"][what] / ROWS[name]["n"]


def w1(name: str, what: str) -> tuple[float, float]:
    one = ROWS[name]["scalars"][what]
    return one["w1"] / one["w1_band"], one["w1_error"] / one["w1_band"]


def test_the_populations_rate_lies_between_those_of_two_sets_of_test_lenses() -> None:
    """Page 13 says so of three bright images."""
    sides = ROWS[census.OTHER]["counts"]
    first, second = (sides[side]["three_images"] / 2_048 for side in ("test", "drawn"))
    assert ROWS[census.ALL]["n"] == 10_000 + 5_000 - 2 * 2_048
    assert first < share(census.ALL, "three_images") < second
    assert share(census.ALL, "two_or_ring") > 0.98 > share(FLAGSHIP, "two_or_ring")


@pytest.mark.parametrize("name", ["lens150", FLAGSHIP])
def test_rows_are_of_the_shipped_weights(name: str) -> None:
    spec = json.loads((shipped(name) / "spec.json").read_text())
    assert ROWS[name]["model_sha256"] == spec["sha256"] and ROWS[name]["n"] == 2_048


def test_rings_are_right_and_counting_is_not() -> None:
    ratio, error = w1(FLAGSHIP, "ring_radius_arcsec")
    assert ratio + 2 * error < 1.5
    for what in ("ellipticity", "flux_arcsec2"):
        ratio, error = w1(FLAGSHIP, what)
        assert abs(ratio - 1.5) < 2 * error
    ratio, error = w1(FLAGSHIP, "pieces")
    assert ratio - 2 * error > 1.5
    assert share(FLAGSHIP, "two_or_ring") < 0.97 and share(FLAGSHIP, "three_images") > 0.25
    for ratio, error in (ROWS[FLAGSHIP]["power_ratio"][name] for name in ("0 to 3", "3 to 6")):
        assert abs(0.95 - ratio) < 2 * error


def test_lens150_misses_nearly_all_and_is_worse_in_each() -> None:
    for what in ("ring_radius_arcsec", "ellipticity", "flux_arcsec2", "pieces"):
        ratio, error = w1("lens150", what)
        assert ratio - 2 * error > 1.5 and ratio > w1(FLAGSHIP, what)[0]
    for what in ("three_images", "any_but_three_images", "one_image"):
        assert share("lens150", what) > share(FLAGSHIP, what) > share(census.OTHER, what)


def test_a_classifier_tells_drawn_lenses_and_not_test_lenses() -> None:
    told = {name: row["two_sample"] for name, row in ROWS.items() if name != census.ALL}
    assert told["lens150"][0] > told[FLAGSHIP][0] > 0.6 + 2 * told[FLAGSHIP][1]
    assert told[census.OTHER][0] < 0.55


def test_no_drawn_lens_is_called_a_copy() -> None:
    assert ROWS["lens150"]["copies"]["called_copies"] == 0
    assert ROWS[FLAGSHIP]["copies"]["called_copies"] == 0


def test_the_second_stage_gained_at_high_noise() -> None:
    """In pairs: alike from the lowest level, and farther apart from each level above."""
    rows = {}
    for name in ("lens150", FLAGSHIP):
        found = json.loads((shipped(name) / "where.json").read_text())
        rows[name] = {row["sigma"]: row for row in found["rows"]}
    levels = [0.5, 2.0, 5.0, 12.0, 40.0, None]
    apart = [samplers.difference(rows["lens150"][at], rows[FLAGSHIP][at]) for at in levels]
    assert abs(apart[0][0]) < 2 * apart[0][1]
    gaps = [gap for gap, _ in apart]
    assert gaps == sorted(gaps)
    assert all(gap > 2.5 * error for gap, error in apart[2:])

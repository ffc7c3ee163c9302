"""What is stored of stochastic sampling carries what notebook 13 says of it."""

from __future__ import annotations

import numpy as np
import pytest

from lensdiff import model as models
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import stochastic
from lensdiff.studies.samplers import difference

TABLE = read_json(studies_folder() / stochastic.FILE, "")
NAMES = ("lens64-long", "lens150-long")


def of(name: str) -> dict[tuple[float, int], dict]:
    """The drawn rows of a model, of its own sampler and of stochastic DDIM, by eta and calls."""
    rows = [row for row in TABLE["rows"] if (row["name"], row["role"]) == (name, "drawn")]
    return {(row["eta"], row["calls"]): row for row in rows if row["eta"] or not ddim(row)}


def ddim(row: dict) -> bool:
    return row["sampler"] == "ddim"


def plain(name: str) -> dict[int, dict]:
    """The rows of DDIM without fresh noise by their calls."""
    rows = [row for row in TABLE["rows"] if (row["name"], row["role"]) == (name, "drawn")]
    return {row["calls"]: row for row in rows if ddim(row) and not row["eta"]}


def fewer(row: dict, other: dict, key: str) -> float:
    """How many binomial errors a count of `row` lies below that of `other`."""
    n = TABLE["n"]
    counts = np.array([one["counts"][key] for one in (row, other)])
    return float((counts[1] - counts[0]) / np.sqrt((counts * (1 - counts / n)).sum()))


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_of_the_shipped_weights_and_of_as_many_calls(name: str) -> None:
    rows = of(name)
    assert sorted(rows) == [(0.0, 20), (0.0, 40), (1.0, 20), (1.0, 40)]
    assert {row["model_sha256"] for row in rows.values()} == {models.load(name).spec["sha256"]}


def test_fresh_noise_mends_ridges_of_64_pixels_and_no_count_of_images() -> None:
    rows = of("lens64-long")
    for calls in (20, 40):
        assert fewer(rows[1.0, calls], rows[0.0, calls], "broken_ridge") > 2
        for key in ("three_images", "two_or_ring"):
            assert abs(fewer(rows[1.0, calls], rows[0.0, calls], key)) < 2
    assert fewer(rows[1.0, 40], rows[0.0, 40], "any_but_three_images") > 2
    other = of("lens150-long")
    for calls in (20, 40):
        assert 0 < fewer(other[1.0, calls], other[0.0, calls], "broken_ridge") < 2


def test_it_is_the_fresh_noise_that_mends_ridges() -> None:
    """Beside DDIM of the same order, without it."""
    small = of("lens64-long")
    large = of("lens150-long")
    for calls in (20, 40):
        control = plain("lens64-long")[calls]
        assert fewer(small[1.0, calls], control, "broken_ridge") > 2
        assert abs(fewer(small[1.0, calls], control, "three_images")) < 2
    assert fewer(large[1.0, 20], plain("lens150-long")[20], "broken_ridge") > 2
    assert 0 < fewer(large[1.0, 40], plain("lens150-long")[40], "broken_ridge") < 2
    for name, rows in (("lens64-long", small), ("lens150-long", large)):
        assert rows[1.0, 20]["distance"] > plain(name)[20]["distance"] > rows[0.0, 20]["distance"]


def test_at_150_pixels_fewer_lenses_have_two_images_at_its_own_calls() -> None:
    rows = of("lens150-long")
    assert fewer(rows[1.0, 20], rows[0.0, 20], "two_or_ring") > 2
    assert fewer(rows[0.0, 20], rows[1.0, 20], "one_image") > 2
    assert 0 < fewer(rows[1.0, 40], rows[0.0, 40], "two_or_ring") < 2


@pytest.mark.parametrize("name", NAMES)
def test_the_distance_does_not_gain_by_it_and_gains_by_more_calls(name: str) -> None:
    rows = of(name)
    own = rows[0.0, 20]
    assert all(difference(rows[1.0, calls], own)[0] > 0 for calls in (20, 40))
    gap, error = difference(rows[0.0, 40], own)
    assert gap < -2 * error
    if name == "lens150-long":
        gap, error = difference(rows[1.0, 20], own)
        assert gap > 2 * error

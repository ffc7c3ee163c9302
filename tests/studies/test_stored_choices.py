"""What is stored of the choices that the long training left open."""

from __future__ import annotations

import numpy as np
import pytest

from lensdiff import model as models
from lensdiff.storage import read_json, shipped, studies_folder
from lensdiff.studies import autoguidance, choice_training, choices, where
from lensdiff.studies.samplers import difference

STORED = read_json(studies_folder() / choices.FILE, "")
ROWS = {(row["name"], row["seed"]): row for row in STORED["rows"] if "seed" in row}
(GAP,) = [row for row in STORED["rows"] if row.get("role") == "gap"]
(TIMES,) = [row for row in STORED["rows"] if row.get("role") == "times"]


def test_every_choice_has_its_seeds_and_sees_as_many_images_as_its_control() -> None:
    assert set(ROWS) == {(name, seed) for name in choices.CHOICES for seed in choices.SEEDS}
    for (name, seed), row in ROWS.items():
        choice = choices.CHOICES[name]
        steps = choice_training.STEPS_ON if choice.goes_on else choice_training.STEPS
        assert row["images_seen"] == 32 * steps
        plan = choice_training.recipe(name, seed).as_dict()
        assert row["recipe"]["train"] == {
            **plan["train"],
            "sigmas": row["recipe"]["train"]["sigmas"],
        }
        assert row["recipe"]["train"]["sigmas"] == pytest.approx(plan["train"]["sigmas"])
        assert row["recipe"]["train"]["seed"] == seed
        assert ("distance" in row) is not choice.goes_on
    assert len({row["sha256"] for row in ROWS.values()}) == len(ROWS)
    spec = read_json(shipped(choice_training.SHIPPED) / "spec.json", "")
    assert STORED["start_sha256"] == spec["sha256"]


def logs(name: str) -> np.ndarray:
    """ln of the squared errors, (seeds, levels)."""
    return np.log([ROWS[name, seed]["errors"] for seed in choices.SEEDS])


def test_a_balanced_loss_and_muon_come_nearer_than_the_control_with_every_seed() -> None:
    for name in ("balanced", "muon"):
        for seed in choices.SEEDS:
            gap, error = difference(ROWS[name, seed], ROWS["control", seed])
            assert gap < -5 * error
            assert ROWS[name, seed]["recall"] > ROWS["control", seed]["recall"]
        middle = choices.LEVELS.index(0.5)
        assert (logs(name)[:, middle] < logs("control")[:, middle] - 0.1).all()


def test_lower_noise_levels_help_the_lowest_alone() -> None:
    apart = logs("lower") - logs("control")
    assert (apart[:, 0] < -0.3).all()
    assert (apart[:, 2:] > 0.05).all()
    for seed in choices.SEEDS:
        assert ROWS["lower", seed]["distance"] > 1.5 * ROWS["control", seed]["distance"]


def test_errors_grow_with_the_noise_and_the_gap_has_a_value_a_level() -> None:
    for row in ROWS.values():
        assert (np.diff(row["errors"]) > 0).all()
    assert len(GAP["gap"]) == len(GAP["gap_error"]) == len(GAP["levels"]) == len(choices.LEVELS)
    assert GAP["n"] == 2 * choices.SCORED
    control = np.median(TIMES["seconds"]["control"])
    for name, seconds in TIMES["seconds"].items():
        assert not choices.CHOICES[name].goes_on
        assert 0.5 < np.median(seconds) / control < 3


def test_an_early_version_of_itself_leads_nowhere() -> None:
    stored = read_json(studies_folder() / "autoguidance-64-early.json", "")
    assert stored["model_sha256"] == models.load("lens64-long").spec["sha256"]
    alone, *rows = stored["rows"]
    assert (alone["scale"], alone["calls"]) == (1.0, 20)
    for file in autoguidance.TRIALS.values():
        assert read_json(studies_folder() / file, "")["n"] == where.MOST
    for row in rows:
        gap, error = difference(row, alone)
        assert abs(gap) < min(0.1, 2 * error) if row["calls"] == 40 else gap > error
        for key in ("two_or_ring", "three_images"):
            assert abs(row["counts"][key] - alone["counts"][key]) <= 10


def test_a_little_guidance_from_a_tiny_network_is_the_most_that_may_help() -> None:
    stored = read_json(studies_folder() / "autoguidance-64.json", "")
    rows = {(row["scale"], row["calls"]): row for row in stored["rows"]}
    alone = rows[1.0, 20]
    gap, error = difference(rows[1.1, 40], alone)
    assert gap < 0 < gap + 2 * error
    gap, error = difference(rows[1.1, 20], alone)
    assert gap > 2 * error
    assert rows[1.6, 40]["distance"] > rows[1.3, 40]["distance"] > alone["distance"] + 1

"""What is stored of reflow and autoguidance is of the shipped models, and carries what is said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lensdiff import model as models
from lensdiff.storage import read_json, studies_folder
from lensdiff.studies import autoguidance, reflow, samplers

STORED = read_json(studies_folder() / reflow.FILE, "")
QUALITY = {
    (row["name"], row["sampler"], row["calls"]): row
    for row in STORED["rows"]
    if row["role"] == "quality"
}
GUIDED = read_json(studies_folder() / autoguidance.FILE, "")


def test_the_rows_are_of_the_shipped_teacher_and_of_todays_settings():
    teacher = models.load("lens64")
    assert STORED["teacher_sha256"] == teacher.spec["sha256"]
    settings = (reflow.PAIRS, reflow.UPDATES, reflow.SCORED)
    assert (STORED["pairs"], STORED["updates"], STORED["n"]) == settings
    expected = [
        (name, reflow.label(way), way.calls)
        for name in ("teacher", "student", "control")
        for way in reflow.ways(name, teacher)
    ]
    assert sorted(QUALITY) == sorted(expected)


@pytest.mark.parametrize("key", QUALITY, ids=str)
def test_each_way_has_its_pictures(key):
    picture = Image.open(studies_folder() / "reflow" / "{}-{}-{}.png".format(*key))
    assert picture.size == (8 * 64, reflow.SHOWN // 8 * 64)
    assert np.asarray(picture).std() > 5


def test_two_calls_of_the_student_come_near_sixteen_of_the_teacher_and_the_control_does_not():
    own = QUALITY["teacher", "dpmpp_2m", 28]
    for calls in reflow.CALLS:
        apart, error = samplers.difference(QUALITY["student", "ddim", calls], own)
        assert apart > 2 * error, calls
    two = QUALITY["student", "ddim", 2]
    sixteen = QUALITY["teacher", "ddim", 16]
    assert samplers.difference(two, sixteen)[0] < 2
    assert samplers.difference(QUALITY["control", "ddim", 2], two)[0] > 40
    solved, error = samplers.difference(
        QUALITY["student", "ddim", 8], QUALITY["teacher", "dpmpp_2m", 8]
    )
    assert abs(solved) < 2 * error
    levels, error = samplers.difference(
        QUALITY["teacher", "ddim", 8], QUALITY["teacher", "ddim-log", 8]
    )
    solver = samplers.difference(
        QUALITY["teacher", "ddim-log", 8], QUALITY["teacher", "dpmpp_2m", 8]
    )
    assert levels > max(3 * error, 3 * solver[0])
    bent = {row["name"]: row["bent"] for row in STORED["rows"] if row["role"] == "path"}
    assert 10 * bent["student"] < min(bent["teacher"], bent["control"])


def test_this_helper_gains_nothing():
    alone, twice, equal = GUIDED["rows"]
    apart, error = samplers.difference(twice, alone)
    assert abs(apart) < 2 * error
    apart, error = samplers.difference(equal, alone)
    assert equal["calls"] == alone["calls"] and apart > 2 * error


def test_one_row_a_scale_and_number_of_steps():
    model, weak = (models.load(name) for name in ("lens150-long", "lens150"))
    assert GUIDED["model_sha256"] == model.spec["sha256"]
    assert GUIDED["weak_sha256"] == weak.spec["sha256"]
    alone, *guided = GUIDED["rows"]
    assert (alone["scale"], alone["calls"]) == (1, model.sampling.calls)
    assert {row["calls"] for row in guided} == {model.sampling.calls, 2 * model.sampling.calls}

"""Answers with a constant of their check built in, or an argument ignored, are not right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lensdiff.notebook import exercises
from lensdiff.notebook.lessons import lesson


def right(name: str) -> object:
    """The stored answer of an exercise."""
    notebook, number = name.split(".")
    return lesson(notebook).EXERCISES[int(number)].answer


def arctan_of_a_half(theta, einstein):
    with np.errstate(divide="ignore"):
        place = np.arctan(theta[1] / theta[0])
    return theta - einstein * np.array([np.cos(place), np.sin(place)])


def step_of_one_length(x, guess, before, sigma, target, h_before):
    h = math.log(2 / 1.3)
    d = (guess - before) / h_before
    keep = target / sigma
    return keep * x + (1 - math.exp(-h)) * guess + d * (h - 1 + math.exp(-h))


def sampler_of_one_model(_denoise, x, sigmas):
    def toy(x, sigma, label=None):
        return lesson("04").toy(x, sigma, label)

    return right("04.3")(toy, x, sigmas)


def excess_without_widths(generated, other, reference):
    floor = (other.mean() - reference.mean()) ** 2
    ours = (generated.mean() - reference.mean()) ** 2
    return ours + (generated.std(ddof=1) - reference.std(ddof=1)) ** 2 - floor


def ray_from_36(bright):
    k = bright.argmax(1)
    return np.where(k > 36, k - 36, k + 36)


def error_of_four(one, other):
    gap = np.subtract(one, other)
    return gap.mean(), gap.std(ddof=1) / 2


def area_of_the_better_side(scores, member):
    area = right("07.3")(scores, member)
    return max(area, 1 - area)


def snr_of_25(difference, sigma):
    return 5 * np.sqrt((difference**2 / sigma**2).mean())


def folded_by_size(x):
    return torch.cat([x[..., i:8:2, j:6:2] for i in (0, 1) for j in (0, 1)], 1)


def mirrored_by_sign(values):
    return np.array([*values[:2], *np.abs(values[2:4]), *values[4:6], abs(values[6])])


BUILT_IN = {
    "01.4": lambda x, s, t, e: x + 1.2 * e,
    "01.5": arctan_of_a_half,
    "02.4": folded_by_size,
    "04.3": sampler_of_one_model,
    "04.4": step_of_one_length,
    "05.3": lambda x, m1, s1, m2, s2: m2 + (x - 1) * s2 / s1,
    "05.4": excess_without_widths,
    "06.3": mirrored_by_sign,
    "07.3": area_of_the_better_side,
    "07.4": snr_of_25,
    "12.4": error_of_four,
    "13.3": ray_from_36,
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_right_for_one_input_alone_is_not_right(name: str) -> None:
    assert not exercises.is_right(name, exercises.verdict(name, BUILT_IN[name]))
    assert exercises.is_right(name, exercises.verdict(name, right(name)))


def test_an_answer_may_work_in_place() -> None:
    def guided(null, given, w):
        given -= null
        given *= w
        given += null
        return given

    def jumped(x, s, t, e):
        x += (t**2 - s**2) ** 0.5 * e
        return x

    for name, answer in (("06.2", guided), ("01.4", jumped)):
        assert exercises.is_right(name, exercises.verdict(name, answer)), name


def test_the_toy_of_the_samplers_is_one_of_two() -> None:
    lesson_04 = lesson("04")
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert not torch.allclose(lesson_04.wide(x, 1.0), lesson_04.toy(x, 1.0))

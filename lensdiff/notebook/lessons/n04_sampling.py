"""Notebook 04, sampling: its parameters and exercises."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from ...diffusion import sampling
from ...diffusion.process import SCHEDULES
from ..exercises import Exercise
from ..rules import SEED, Choice, Flag, Number, Place

PARAMETERS = {
    "checkpoint": Place(),
    "seed": SEED,
    "sampler": Choice(*sampling.SAMPLERS),
    "steps": Number(3, 1000, whole=True),
    "eta": Number(0, 1),
    "samples": Number(4, 256, whole=True),
    "levels": Choice("log", "karras", *SCHEDULES),
    "high": Number(1, 1000),
    "low": Number(1e-4, 0.9),
    "clamp": Flag(),
    "grid_images": Number(16, 2048, whole=True),
}


def toy(x: torch.Tensor, sigma: float, label: object = None) -> torch.Tensor:
    """The exact guess for normal data of standard deviation 0.5."""
    return x * 0.25 / (0.25 + sigma**2)


# ---- 04.3, a sampler -----------------------------------------------------------------------------


def midpoint(denoise: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Each step takes the slope at the geometric mean of its two levels."""
    for sigma, target in pairwise(sigmas.tolist()):
        slope = (x - denoise(x, sigma)) / sigma
        if target > 0:
            place = math.sqrt(sigma * target)
            trial = x + (place - sigma) * slope
            slope = (trial - denoise(trial, place)) / place
        x = x + (target - sigma) * slope
    return x


def midpoint_euler(denoise: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """The slope at the start of each step, no trial."""
    *_, last = sampling.ddim(denoise, x, sigmas)
    return last


def midpoint_heun(denoise: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """The mean of the slopes at both ends."""
    *_, last = sampling.heun(denoise, x, sigmas)
    return last


def midpoint_arithmetic(denoise: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """The trial at the arithmetic mean of both levels."""
    for sigma, target in pairwise(sigmas.tolist()):
        slope = (x - denoise(x, sigma)) / sigma
        if target > 0:
            place = (sigma + target) / 2
            trial = x + (place - sigma) * slope
            slope = (trial - denoise(trial, place)) / place
        x = x + (target - sigma) * slope
    return x


def midpoint_half(denoise: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """The second slope from the trial point on, not from the start of the step."""
    for sigma, target in pairwise(sigmas.tolist()):
        place = math.sqrt(sigma * target)
        trial = x + (place - sigma) * (x - denoise(x, sigma)) / sigma
        if target > 0:
            trial = trial + (target - place) * (trial - denoise(trial, place)) / place
        x = trial
    return x


def midpoint_wrong_level(denoise: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """The second question asked at the first level."""
    for sigma, target in pairwise(sigmas.tolist()):
        slope = (x - denoise(x, sigma)) / sigma
        if target > 0:
            trial = x + (math.sqrt(sigma * target) - sigma) * slope
            slope = (trial - denoise(trial, sigma)) / sigma
        x = x + (target - sigma) * slope
    return x


def wide(x: torch.Tensor, sigma: float, label: object = None) -> torch.Tensor:
    """The exact guess for normal data of mean 1 and standard deviation 2."""
    return (4 * x + sigma**2) / (4 + sigma**2)


def sampled(answer: object) -> list[torch.Tensor]:
    """What a sampler makes of three starts: two kinds of data, two kinds of levels."""
    x = torch.tensor([10.0, -3.0, 20.0], dtype=torch.float64)[:, None, None, None]
    narrow = answer(toy, x.clone(), sampling.log_levels(6, 20.0, 0.2))
    return [narrow, answer(wide, x.clone(), sampling.flow_levels(8, 9.0))]


# ---- 04.4, a step --------------------------------------------------------------------------------


def line_step(x, guess, before, sigma: float, target: float, h_before: float) -> torch.Tensor:
    """A step in lambda with the line through two guesses integrated exactly."""
    h = math.log(sigma / target)
    d = (guess - before) / h_before
    return math.exp(-h) * x + (1 - math.exp(-h)) * guess + (h - 1 + math.exp(-h)) * d


def line_constant(x, guess, before, sigma: float, target: float, h_before: float) -> torch.Tensor:
    """The guess held: DDIM."""
    return guess + target / sigma * (x - guess)


def line_middle(x, guess, before, sigma: float, target: float, h_before: float) -> torch.Tensor:
    """The line's value in the middle, held: DPM-Solver++."""
    h = math.log(sigma / target)
    middle = guess + h / (2 * h_before) * (guess - before)
    return math.exp(-h) * x + (1 - math.exp(-h)) * middle


def line_undivided(x, guess, before, sigma: float, target: float, h_before: float) -> torch.Tensor:
    """The difference of the guesses, not divided by the last step."""
    return line_step(x, guess, before, sigma, target, 1.0)


def line_backwards(x, guess, before, sigma: float, target: float, h_before: float) -> torch.Tensor:
    """The slope of the line with the wrong sign."""
    return line_step(x, guess, before, sigma, target, -h_before)


def line_other_step(x, guess, before, sigma: float, target: float, h_before: float) -> torch.Tensor:
    """The slope divided by this step, not the last one."""
    return line_step(x, guess, before, sigma, target, math.log(sigma / target))


def stepped(answer: object) -> list[torch.Tensor]:
    """What two steps, a short and a long one, make of three states."""
    x = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    steps = ((2.0, 1.3, 0.7), (0.9, 0.3, 1.6))
    return [answer(x.clone(), 0.6 * x + 0.1, 0.4 * x - 0.2, *step) for step in steps]


EXERCISES = {
    1: Exercise(
        answer=(2.0, 0.5),
        explanation="Four times the calls divide an error of order 1 by 4, of order 2 by 16.",
        mistakes=(
            ((4.0, 2.0), "four times the calls, not twice: divide by 4 and by 4²."),
            ((2.0, 2.0), "the error of second order falls with the square of the number."),
            ((0.5, 2.0), "the first of the pair is first order."),
            ((2.0, 1.0), "second order divides by 4² = 16, not by 8."),
            ((0.02, 0.005), "the answer is wanted in percent."),
            ((2.0, 0.125), "that would be third order: 4³ = 64."),
        ),
        hint="an error of order p falls as the number of steps to the power −p.",
    ),
    2: Exercise(
        answer=math.sqrt(2 / 3),
        explanation="b² = η² · (1/4) · 3 shall be 1/2, so that η = √(2/3) ≈ 0.816.",
        mistakes=(
            (0.5, "half the variance is not half of η: b² goes with η²."),
            (math.sqrt(0.5), "that is b; η is b over its largest value, √3/2."),
            (2 / 3, "that is η²."),
            (1.0, "η = 1 adds three quarters of the variance here."),
            (0.75, "that is the share of new noise at η = 1."),
            (math.sqrt(3) / 2, "that is b at η = 1."),
        ),
        hint="set b² = σ'²/2 in the formula of b, and solve for η.",
    ),
    3: Exercise(
        answer=midpoint,
        explanation="The slope in the middle serves for the whole step: second order, two calls.",
        mistakes=(
            (midpoint_euler, "that is Euler's method; ask again at the level between."),
            (midpoint_heun, "that is Heun's method: the trial stops half-way, at √(σσ')."),
            (midpoint_arithmetic, "the trial's level is the geometric mean, √(σσ')."),
            (midpoint_half, "the second slope serves for the whole step, from its start."),
            (midpoint_wrong_level, "the second question has the trial's own level, √(σσ')."),
        ),
        hint="slope = (x − D)/σ at both places; x + (σ' − σ) · second slope.",
        probe=sampled,
    ),
    4: Exercise(
        answer=line_step,
        explanation="e^(−h) x + (1 − e^(−h)) guess + (h − 1 + e^(−h)) d, with d the line's slope.",
        mistakes=(
            (line_constant, "that holds the guess and is DDIM; the term with d is missing."),
            (line_middle, "that is DPM-Solver++; integrate the line: h − 1 + e^(−h)."),
            (line_undivided, "d is a slope: divide by `h_before`."),
            (line_backwards, "d = (guess − before) / h_before: mind the sign."),
            (line_other_step, "the two guesses are `h_before` apart, not h."),
        ),
        hint="h = ln(σ/σ'), and three terms: of x, of the guess, of d.",
        probe=stepped,
    ),
}

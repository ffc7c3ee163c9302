"""Notebook 03, training: its parameters and exercises."""

from __future__ import annotations

import torch
from torch import Tensor

from ..exercises import Exercise
from ..rules import SEED, Choice, Flag, Number, Place

PARAMETERS = {
    "train_minutes": Number(0, 10_000),
    "prediction": Choice("edm", "eps", "x0", "v", "flow"),
    "criterion": Choice("l2", "l1"),
    "width": Number(16, 512, whole=True),
    "data_folder": Place(),
    "train": Flag(),
    "seed": SEED,
    "recipe": Choice("lens64", "lens150"),
    "recipe_steps": Number(0, 10_000_000, whole=True),
    "recipe_batch": Number(0, 65_536, whole=True),
    "recipe_width": Number(0, 1024, whole=True),
    "checkpoint": Place(),
    "noise_levels": Choice("lognormal", "linear", "cosine", "sigmoid"),
    "T": Number(21, 100_000, whole=True),
    "weight": Choice("none", "min_snr", "edm"),
    "card_images": Number(0, 2048, whole=True),
    "samples": Number(1, 64, whole=True),
    "steps": Number(2, 1000, whole=True),
    "sampler": Choice("dpmpp_2m", "ddim", "heun"),
}


def target_v(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """What a network that predicts v should answer: F of x0 = c_skip x + c_out F."""
    return (eps - sigma * x0) / (1 + sigma**2).sqrt()


def target_noise(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """The noise."""
    return eps


def target_negative(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """The negative of v."""
    return (sigma * x0 - eps) / (1 + sigma**2).sqrt()


def target_swapped(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """x0 and eps have each other's factor."""
    return (sigma * eps - x0) / (1 + sigma**2).sqrt()


def target_flow(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """The flow's velocity."""
    return eps - x0


def target_unscaled(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """The root is missing."""
    return eps - sigma * x0


def target_squared(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """No root over 1 + sigma^2."""
    return (eps - sigma * x0) / (1 + sigma**2)


def kl_weight(high: float, low: float) -> float:
    """The bound's weight of (eps - eps_hat)^2 in the step from `high` to `low`."""
    return 0.5 * (high**2 / low**2 - 1)


def weight_of_image(high: float, low: float) -> float:
    """The weight of (x0 - D)^2."""
    return 0.5 * (1 / low**2 - 1 / high**2)


def weight_twice(high: float, low: float) -> float:
    """Without the half."""
    return high**2 / low**2 - 1


def weight_of_lower(high: float, low: float) -> float:
    """The lower level's square in place of the higher one's."""
    return 0.5 * (1 - low**2 / high**2)


def weight_negative(high: float, low: float) -> float:
    """The levels exchanged."""
    return 0.5 * (low**2 / high**2 - 1)


def weight_linear(high: float, low: float) -> float:
    """Levels without their squares."""
    return 0.5 * (high / low - 1)


def asked(answer: object) -> Tensor:
    """What a target is for a few images, noises and levels."""
    x0 = torch.tensor([0.3, -1.2, 0.8, 0.1])
    eps = torch.tensor([1.1, 0.4, -0.7, 0.2])
    return answer(x0, eps, torch.tensor([0.1, 0.7, 2.0, 5.0]))


def weighed(answer: object) -> list[float]:
    """A weight for three steps."""
    return [float(answer(high, low)) for high, low in ((0.8, 0.5), (2.0, 1.0), (40.0, 30.0))]


EXERCISES = {
    1: Exercise(
        answer=1.25,
        explanation="1 / c_out² = (1 + σ²) / σ², which is 1 + 1/σ².",
        mistakes=(
            (0.8, "that is c_out², which multiplies an error of F; you want its inverse."),
            (0.25, "that is the weight when the network predicts noise, 1/σ²."),
            (5.0, "that is 1 + σ²; c_out has σ² in it as well."),
            (1.0, "only a network that predicts x0 weighs all levels alike."),
            (1.118, "that is 1 / |c_out|; the loss squares it."),
            (2.25, "that is the flow's, (1 + 1/σ)²."),
            (4.25, "that is EDM's, 1/σ² + 1/d² with d = 0.5."),
            (1.5, "the level enters squared: 1 + 1/σ²."),
        ),
        hint="the table's last column, at σ = 2.",
    ),
    2: Exercise(
        answer=0.35,
        explanation="(5 · 0.2 + 3 · 0.6) / 8: the sum of all losses over their number.",
        mistakes=(
            (0.4, "that is the mean of means; process 0 has more images."),
            (0.8, "that is the sum of the means; weigh each by its images, and divide by all."),
            (2.8, "that is the sum of all losses; divide by the number of images."),
            (0.45, "each mean has the weight of its own number of images, not of the other's."),
            (1.4, "divide the sum of all losses by the number of images, not of processes."),
            (0.175, "divide by the number of images once, not by that of processes too."),
        ),
        hint="the sum of all eight losses, over eight.",
    ),
    3: Exercise(
        answer=target_v,
        explanation="(x0 - c_skip x) / c_out, with x = x0 + σ ε, is (ε - σ x0) / √(1 + σ²).",
        mistakes=(
            (target_noise, "that is the target of a network that predicts noise: c_skip is 1."),
            (target_negative, "the sign: c_out is negative."),
            (target_swapped, "x0 and ε have each other's factor; solve for F once more."),
            (target_flow, "that is the flow's target; its coefficients have 1 + σ, not 1 + σ²."),
            (target_unscaled, "a factor of 1/√(1 + σ²) is missing: c_out = -σ / √(1 + σ²)."),
            (target_squared, "1 + σ² stands under a root."),
        ),
        hint="solve x0 = c_skip x + c_out F for F, with x = x0 + σ ε.",
        probe=asked,
    ),
    4: Exercise(
        answer=kl_weight,
        explanation="½ (1/low² - 1/high²) |x0 - D|², and |x0 - D|² = high² |ε - ε̂|².",
        mistakes=(
            (weight_of_image, "that is the weight of |x0 - D|²; write it for the noise."),
            (weight_twice, "the divergence of two Gaussians has a factor of one half."),
            (weight_of_lower, "D is asked at the higher level: |x0 - D|² = high² |ε - ε̂|²."),
            (weight_negative, "it is negative: high and low are exchanged."),
            (weight_linear, "the signal-to-noise ratio is 1/σ², not 1/σ."),
        ),
        hint="the formula of one step, with σ² |ε - ε̂|² in place of |x0 - D|².",
        probe=weighed,
    ),
}

"""Notebook 03, training: its parameters and exercises."""

from __future__ import annotations

import torch

from ..exercises import Exercise
from ..rules import SEED, Choice, Flag, Number, Place

PARAMETERS = {
    "train_minutes": Number(0, 10_000),
    "prediction": Choice("edm", "eps", "x0", "v", "flow"),
    "criterion": Choice("l2", "l1"),
    "width": Number(16, 512, whole=True, multiple=16),
    "data_folder": Place(),
    "train": Flag(),
    "seed": SEED,
    "recipe": Choice("lens64", "lens150"),
    "recipe_steps": Number(0, 10_000_000, whole=True),
    "recipe_batch": Number(0, 65_536, whole=True),
    "recipe_width": Number(0, 1024, whole=True, multiple=16),
    "checkpoint": Place(),
    "noise_levels": Choice("lognormal", "linear", "cosine", "sigmoid"),
    "T": Number(21, 100_000, whole=True),
    "weight": Choice("none", "min_snr", "edm"),
    "card_images": Number(0, 2048, whole=True),
    "samples": Number(1, 64, whole=True),
    "steps": Number(2, 1000, whole=True),
    "sampler": Choice("dpmpp_2m", "ddim", "heun"),
}


def target(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """What must be added to x = x0 + sigma eps to get x0."""
    return -sigma * eps


def target_negative(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """What was added."""
    return sigma * eps


def target_noise(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The noise."""
    return eps


def target_minus_noise(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The noise, negative, without its level."""
    return -eps


def target_image(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The clean image."""
    return x0


def target_noisy(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The noisy image."""
    return x0 + sigma * eps


def target_flow(x0: torch.Tensor, eps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The flow's velocity."""
    return eps - x0


def factor(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """min-SNR's weight on |D - x0|^2 = sigma^2 |eps_hat - eps|^2, written for the noise."""
    return (sigma**2 * gamma).clamp(max=1)


def factor_of_image(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """The weight on |D - x0|^2."""
    return (sigma**-2).clamp(max=gamma)


def factor_largest(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """max in place of min."""
    return (sigma**2 * gamma).clamp(min=1)


def factor_divided(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """Divided by sigma^2 instead of multiplied."""
    return (sigma**-2).clamp(max=gamma) / sigma**2


def factor_linear(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """sigma without its square."""
    return (sigma * gamma).clamp(max=1)


def factor_of_snr(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """The signal-to-noise ratio taken for sigma^2."""
    return (sigma**2).clamp(max=gamma) * sigma**2


def factor_without(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """No limit."""
    return torch.ones_like(sigma)


def factor_of_five(sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """gamma left out."""
    return (sigma**2 * 5.0).clamp(max=1)


def asked(answer: object) -> torch.Tensor:
    """What a target is for a few images, noises and levels."""
    x0 = torch.tensor([0.3, -1.2, 0.8, 0.1])
    eps = torch.tensor([1.1, 0.4, -0.7, 0.2])
    return answer(x0, eps, torch.tensor([0.1, 0.7, 2.0, 5.0]))


def weighed(answer: object) -> torch.Tensor:
    """Factors of a few levels, at two gamma."""
    sigma = torch.tensor([0.05, 0.2, 0.4, 0.6, 2.0])
    return torch.cat([answer(sigma, gamma) for gamma in (5.0, 2.0)])


EXERCISES = {
    1: Exercise(
        answer=0.5,
        explanation="1/σ² + 1/d² = 2/d² at σ = d, where noise and data are equally wide.",
        mistakes=(
            (2.0, "at σ = 2 the weight is 4.25; it tends to 1/d² = 4 at high noise."),
            (0.25, "there 1/σ² is 16; it must equal 1/d² = 4."),
            (0.35355, "there 1/σ² is 8; the other term, 1/d² = 4, counts as well."),
            (0.70711, "there 1/σ² is 2; it must equal 1/d² = 4."),
            (4.0, "that is the weight at very high noise, 1/d²; which σ doubles it?"),
            (8.0, "that is the weight you look for; which σ has it?"),
            (1.0, "there the weight is 5; at very high noise it is 4."),
        ),
        hint="the table's last row: 1/σ² + 1/d², and its limit for large σ.",
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
        answer=target,
        explanation="F = (x0 - c_skip x) / c_out = x0 - (x0 + σ ε).",
        mistakes=(
            (target_negative, "that is what was added to x0; the network must take it away."),
            (target_noise, "that is the target for c_out = -σ; here c_out is 1."),
            (target_minus_noise, "the noise was multiplied by its level before it was added."),
            (target_image, "that is the target for c_skip = 0; here D = x + F."),
            (target_noisy, "that is x itself; D = x + F must be x0."),
            (target_flow, "that is the flow's target; solve x0 = x + F for F."),
        ),
        hint="solve x0 = c_skip x + c_out F for F, with x = x0 + σ ε and both coefficients 1.",
        probe=asked,
    ),
    4: Exercise(
        answer=factor,
        explanation="min(1/σ², γ) |D - x0|², and |D - x0|² = σ² |ε̂ - ε|²: min(1, γ σ²).",
        mistakes=(
            (factor_of_image, "that is the weight on |D - x0|², which is σ² |ε̂ - ε|²."),
            (factor_largest, "min-SNR takes the smaller of the two."),
            (factor_divided, "|D - x0|² is σ² times |ε̂ - ε|²: multiply."),
            (factor_linear, "the signal-to-noise ratio is 1/σ², not 1/σ."),
            (factor_of_snr, "the signal-to-noise ratio is 1/σ², not σ²."),
            (factor_without, "that is right only where 1/σ² is below γ."),
            (factor_of_five, "γ is what is given; it need not be 5."),
        ),
        hint="c_out² is σ²: multiply min(1/σ², γ) by it.",
        probe=weighed,
    ),
}

"""Gaussian numbers, and data N(M, S^2), whose denoiser is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from lensdiff.diffusion.sampling import noise

M = 0.3
S = 0.5
SHAPE = (1, 4, 4)
SEEDS = (3, 14, 15)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers of a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
    """E[x0 | x] of data N(M, S^2)."""
    return (S**2 * x + sigma**2 * M) / (S**2 + sigma**2)


def start(sigma: float) -> Tensor:
    """The samplers' first state, in float64."""
    return noise(SEEDS, SHAPE).double() * sigma

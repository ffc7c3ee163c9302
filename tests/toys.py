"""Small networks that the tests share."""

from __future__ import annotations

import torch

from lensdiff.networks.unet import UNet


def perturb(module: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> torch.nn.Module:
    """The module with noise on every weight, those that start at zero too, so that every path
    carries a signal.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


def small_unet(**arguments: object) -> UNet:
    """A UNet of two small levels with perturbed weights, the same on every call."""
    torch.manual_seed(0)
    return perturb(
        UNet(**{"channels": (16, 32), "blocks": 1, "attention_levels": (1,), **arguments})
    ).eval()

"""Denoisers that wrap another: guided by a label, or clamped to the limits of real pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lensdiff.diffusion.sampling import SAMPLERS, clamped, draw, guided, log_levels


@pytest.mark.parametrize(
    ("scale", "expected", "called"), [(0.0, 2.0, 2), (1.0, 5.0, 1), (3.0, 11.0, 2)]
)
def test_guidance(scale: float, expected: float, called: int) -> None:
    count = 0

    def denoise(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        nonlocal count
        count += 1
        if label is None:
            return torch.full_like(x, 2.0)
        return 2.0 + label.view(-1, 1, 1, 1).float() + torch.zeros_like(x)

    x = torch.zeros(2, 1, 2, 2)
    estimate = guided(denoise, scale)(x, 1.0, torch.tensor([3, 3]))
    torch.testing.assert_close(estimate, torch.full_like(x, expected))
    assert count == called
    torch.testing.assert_close(guided(denoise, scale)(x, 1.0), torch.full_like(x, 2.0))
    assert count == called + 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clamped_samples_lie_within_the_limits(sampler: str) -> None:
    loud = clamped(lambda x, sigma, label=None: 10 * x, -0.4, 0.7)
    (x,) = draw(loud, (1, 8, 8), [0, 1], log_levels(5), sampler)
    assert -0.4 - 1e-6 <= float(x.min()) < -0.3 and 0.6 < float(x.max()) <= 0.7 + 1e-6
    identity = clamped(lambda x, sigma, label=None: x, -0.4, 0.7)
    estimate = identity(torch.tensor([-1.0, 0.1, 3.0]), 1.0)
    torch.testing.assert_close(estimate, torch.tensor([-0.4, 0.1, 0.7]))

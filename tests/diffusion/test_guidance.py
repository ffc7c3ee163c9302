"""Denoisers that wrap another: guided by a label, or clamped to the limits of real pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lensdiff.diffusion.sampling import SAMPLERS, autoguided, clamped, draw, guided, log_levels


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


@pytest.mark.parametrize(
    ("scale", "expected", "asked"), [(0.0, 2.0, 1), (1.0, 5.0, 0), (2.0, 8.0, 1)]
)
def test_autoguidance_leads_away_from_the_weak_model(scale: float, expected: float, asked: int):
    seen = []

    def weak(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        seen.append((sigma, label))
        return torch.full_like(x, 2.0)

    def strong(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        return torch.full_like(x, 5.0)

    label = torch.tensor([1])
    estimate = autoguided(strong, weak, scale)(torch.zeros(1, 1, 2, 2), 0.7, label)
    torch.testing.assert_close(estimate, torch.full_like(estimate, expected))
    assert seen == [(0.7, label)] * asked


def test_autoguidance_undoes_an_error_that_the_weak_model_has_more_of():
    """Data are 0.5 * N(0, 1); both denoisers believe in too large a width, the weak one more."""

    def of_width(width: float):
        return lambda x, sigma, label=None: x * width**2 / (width**2 + sigma**2)

    def drawn(denoise) -> float:
        (x,) = draw(denoise, (1, 8, 8), range(64), log_levels(40), "ddim", batch=64)
        return float(x.std())

    alone = drawn(of_width(0.6))
    helped = drawn(autoguided(of_width(0.6), of_width(0.7), 1.8))
    assert alone == pytest.approx(0.6, rel=0.05)
    assert helped == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clamped_samples_lie_within_the_limits(sampler: str) -> None:
    loud = clamped(lambda x, sigma, label=None: 10 * x, -0.4, 0.7)
    (x,) = draw(loud, (1, 8, 8), [0, 1], log_levels(5), sampler)
    assert -0.4 - 1e-6 <= float(x.min()) < -0.3 and 0.6 < float(x.max()) <= 0.7 + 1e-6
    identity = clamped(lambda x, sigma, label=None: x, -0.4, 0.7)
    estimate = identity(torch.tensor([-1.0, 0.1, 3.0]), 1.0)
    torch.testing.assert_close(estimate, torch.tensor([-0.4, 0.1, 0.7]))

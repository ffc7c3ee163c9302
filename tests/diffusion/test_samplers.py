"""The samplers against the exact solution, with the exact denoiser of Gaussian data N(M, S^2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from gaussian import SEEDS, SHAPE, M, S, exact, start
from torch import Tensor, nn

from lensdiff.diffusion.process import Denoiser, schedule
from lensdiff.diffusion.sampling import (
    SAMPLERS,
    ancestral,
    calls,
    ddim,
    log_levels,
    noise,
    table_levels,
)
from lensdiff.errors import SamplingError

# ---- the exact solution --------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(sampler: str, order: int) -> None:
    """The error at the lowest level, before the last step to 0, falls as steps^-order."""
    high = 40.0
    low = 0.01
    x = start(high)
    solution = M + (x - M) * math.sqrt((S**2 + low**2) / (S**2 + high**2))
    errors = []
    for steps in (60, 120, 240):
        states = list(SAMPLERS[sampler](exact, x, log_levels(steps + 1, high, low)))
        errors.append(float((states[-2] - solution).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert errors[-1] < (0.02 if order == 1 else 5e-4)


def test_steps_of_ancestral_sampling_keep_the_exact_marginal() -> None:
    """With samples of p(x0 | x) in place of their mean, the state is N(M, S^2 + sigma^2).

    At every level, and for every eta.
    """
    shape = (1, 256, 256)
    sigmas = log_levels(8, 40.0, 0.05)
    pixels = 256 * 256

    def sampled(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        std = S * sigma / math.sqrt(S**2 + sigma**2)
        return exact(x, sigma) + std * torch.randn(x.shape, generator=generator)

    for eta in (0.0, 0.5, 1.0):
        generator = torch.Generator().manual_seed(987_654_321)  # not one that noise() uses
        x = M + noise([0], shape) * math.hypot(S, 40.0)
        states = ddim(sampled, x, sigmas, eta=eta, seeds=[0])
        for state, target in zip(states, sigmas[1:], strict=True):
            variance = S**2 + float(target) ** 2
            # five standard errors
            assert float(state.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / pixels))
            assert float(state.mean()) == pytest.approx(M, abs=5 * math.sqrt(variance / pixels))


def ddpm_variances(sigmas: Tensor) -> list[float]:
    """Variance of the state after each step of eta = 1 from the exact mean, in closed form.

    The sampler is linear in x and in its noise.
    """
    variance = float(sigmas[0]) ** 2 + S**2
    variances = []
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        keep, added = ancestral(sigma, target, 1.0)
        slope = S**2 / (S**2 + sigma**2)
        variance = (slope + keep / sigma * (1 - slope)) ** 2 * variance + added**2
        variances.append(variance)
    return variances


def test_ddpm_variance_is_the_marginals_in_the_limit_of_many_steps() -> None:
    """DDPM's fixed variance leaves out the width of p(x0 | x).

    That is of first order in the step, so that it halves as the steps double.
    """
    worst = []
    for steps in (250, 500, 1000):
        sigmas = log_levels(steps, 40.0, 0.01)
        exact_variances = [S**2 + s**2 for s in sigmas[1:].tolist()]
        ratios = [a / b - 1 for a, b in zip(ddpm_variances(sigmas), exact_variances, strict=True)]
        worst.append(max(abs(r) for r in ratios))
    assert worst[-1] < 0.01
    assert worst[0] / worst[1] == pytest.approx(2, abs=0.1)
    assert worst[1] / worst[2] == pytest.approx(2, abs=0.1)


def test_ddpm_variance_at_every_step_is_the_closed_form() -> None:
    shape = (1, 256, 256)
    sigmas = table_levels(schedule("linear"), 25)
    x = M + noise([0], shape) * math.hypot(S, float(sigmas[0]))
    states = ddim(exact, x, sigmas, eta=1.0, seeds=[0])
    for state, variance in zip(states, ddpm_variances(sigmas), strict=True):
        assert float(state.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / 256**2))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_squares_of_kept_and_added_noise_add_up(eta: float) -> None:
    for sigma, target in ((40.0, 20.0), (1.0, 0.999), (0.5, 0.01), (0.5, 0.0)):
        keep, added = ancestral(sigma, target, eta)
        assert keep**2 + added**2 == pytest.approx(target**2)
        assert (added > 0) == (eta > 0 and target > 0)


# ---- states and calls ----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_state_a_step_and_so_many_calls(sampler: str) -> None:
    count = 0

    def counted(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        nonlocal count
        count += 1
        return exact(x, sigma)

    states = SAMPLERS[sampler](counted, start(40.0), log_levels(6))
    assert isinstance(states, Iterator)
    first = next(states)
    assert first.shape == (3, *SHAPE)
    assert count == (2 if sampler == "heun" else 1)  # nothing is computed ahead
    rest = list(states)
    assert len(rest) == 5
    assert count == calls(sampler, 6)
    # no step overwrites the one before
    assert len({float(state[0, 0, 0, 0]) for state in (first, *rest)}) == 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_is_the_estimate(sampler: str) -> None:
    (only,) = SAMPLERS[sampler](exact, start(40.0), log_levels(1))
    torch.testing.assert_close(only, exact(start(40.0), 40.0))


class _Rough(nn.Module):
    """A network whose output is coarse in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.seen = set()

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        out = self.conv(x)
        self.seen.add(out.dtype)
        return out


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_state_stays_in_float64_while_the_network_runs_in_bfloat16(sampler: str) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(net := _Rough(), precision="bf16")
    options = {"eta": 1.0, "seeds": SEEDS} if sampler == "ddim" else {}
    with torch.no_grad():
        states = list(SAMPLERS[sampler](denoiser, start(40.0), log_levels(6), **options))
    assert net.seen == {torch.bfloat16}
    for state in states:
        assert state.dtype == torch.float64
        assert (state != state.float().double()).any()  # it holds digits that float32 has not


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_lies_between_0_and_1(eta: float) -> None:
    with pytest.raises(SamplingError, match=r"eta must be in \[0, 1\]"):
        next(ddim(exact, start(1.0), log_levels(2), eta=eta, seeds=SEEDS))


def test_added_noise_needs_seeds() -> None:
    for seeds in (None, [0], range(4)):
        with pytest.raises(SamplingError, match="one for each of the 3 samples"):
            next(ddim(exact, start(1.0), log_levels(2), eta=0.5, seeds=seeds))

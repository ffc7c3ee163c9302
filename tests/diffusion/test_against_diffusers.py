"""The samplers against those of diffusers, with the exact denoiser of Gaussian data."""

from __future__ import annotations

import math

import diffusers.schedulers.scheduling_ddpm as diffusers_ddpm
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
)
from gaussian import SEEDS, SHAPE, M, S, exact, start
from torch import Tensor

from lensdiff.diffusion.process import alpha_bar, schedule
from lensdiff.diffusion.sampling import (
    ddim,
    dpmpp_2m,
    heun,
    karras_levels,
    noise,
    posterior,
    table_levels,
)


def ddpm(x: Tensor, sigma: float) -> Tensor:
    """x0 + sigma eps as the state of a DDPM, with variances that add up to one."""
    return x / math.sqrt(1 + sigma**2)


def exact_eps(state: Tensor, sigma: float) -> Tensor:
    """What a perfect eps network answers at a DDPM state."""
    x = state * math.sqrt(1 + sigma**2)
    return (x - exact(x, sigma)) / sigma


def same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


# A scheduler of diffusers holds float32 tables: "as it is" it has to agree within 1e-5; with its
# table replaced by ours in float64 the same code of theirs has to agree to the rounding of float64.
TABLES = pytest.mark.parametrize(
    ("replace", "tolerance"), [(False, 1e-5), (True, 1e-11)], ids=["as_it_is", "float64"]
)
# The variance of a DDPM step holds 1 - alpha_bar, which float32 knows to 1e-3 only at the first
# entries (1e-4, 2e-4, ...): up to 7e-5 of x.
DDPM_TABLES = pytest.mark.parametrize(
    ("replace", "tolerance"), [(False, 1e-4), (True, 1e-11)], ids=["as_it_is", "float64"]
)


@TABLES
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(eta: float, replace: bool, tolerance: float) -> None:
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    if replace:
        scheduler.alphas_cumprod = alpha_bar("linear")
    sigmas = torch.cat([schedule("linear")[scheduler.timesteps], torch.zeros(1)])
    ours = list(ddim(exact, start(float(sigmas[0])), sigmas, eta=eta, seeds=SEEDS))
    theirs = ddpm(start(float(sigmas[0])), float(sigmas[0]))
    for k, t in enumerate(scheduler.timesteps):
        added = noise(SEEDS, SHAPE, stream=k + 1).double()
        theirs = scheduler.step(
            exact_eps(theirs, float(sigmas[k])), int(t), theirs, eta=eta, variance_noise=added
        ).prev_sample
        same(ddpm(ours[k], float(sigmas[k + 1])), theirs, tolerance)


@DDPM_TABLES
def test_ancestral_sampling_is_the_ddpm_of_diffusers(
    replace: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 1000 steps, with the same noise on both sides."""
    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    if replace:
        scheduler.alphas_cumprod = alpha_bar("linear")
    sigmas = table_levels(schedule("linear"), 1000)
    stream = iter(range(1, 1001))
    monkeypatch.setattr(
        diffusers_ddpm,
        "randn_tensor",
        lambda *_, **__: noise(SEEDS, SHAPE, stream=next(stream)).double(),
    )
    theirs = ddpm(start(float(sigmas[0])), float(sigmas[0]))
    for k, ours in enumerate(ddim(exact, start(float(sigmas[0])), sigmas, eta=1.0, seeds=SEEDS)):
        theirs = scheduler.step(exact_eps(theirs, float(sigmas[k])), 999 - k, theirs).prev_sample
        if k % 50 == 0 or k > 990:
            same(ddpm(ours, float(sigmas[k + 1])), theirs, tolerance)


@DDPM_TABLES
@pytest.mark.parametrize("t", [1, 10, 500, 999])
def test_posterior_is_that_of_diffusers(t: int, replace: bool, tolerance: float) -> None:
    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    if replace:
        scheduler.alphas_cumprod = alpha_bar("linear")
    sigma = float(schedule("linear")[t])
    target = float(schedule("linear")[t - 1])
    x0 = M + S * noise(SEEDS, SHAPE).double()
    eps = noise(SEEDS, SHAPE, stream=1).double()
    x = x0 + sigma * eps
    theirs = scheduler.step(
        eps, t, ddpm(x, sigma), generator=torch.Generator().manual_seed(5)
    ).prev_sample
    added = torch.randn(eps.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mean, std = posterior(x, x0, sigma, target)
    same(ddpm(mean + std * added, target), theirs, tolerance)
    assert ddpm(torch.tensor(std), target) == pytest.approx(
        float(scheduler._get_variance(t) ** 0.5), rel=1e-6 if replace else 1e-3
    )


@TABLES
@pytest.mark.parametrize("steps", [6, 18])
def test_dpmpp_2m_is_that_of_diffusers(steps: int, replace: bool, tolerance: float) -> None:
    scheduler = EDMDPMSolverMultistepScheduler(sigma_min=0.01, sigma_max=40.0, sigma_data=1.0)
    scheduler.set_timesteps(steps)
    sigmas = karras_levels(steps)
    if replace:
        scheduler.sigmas = sigmas
    theirs = start(40.0)
    for k, ours in enumerate(dpmpp_2m(exact, start(40.0), sigmas)):
        s = float(scheduler.sigmas[k])
        # their scheduler turns it back into exact()
        answer = (exact(theirs, s) - theirs / (s**2 + 1)) / (s / math.sqrt(s**2 + 1))
        theirs = scheduler.step(answer, scheduler.timesteps[k], theirs).prev_sample
        same(ours, theirs, tolerance)


def test_dpmpp_2m_is_that_of_diffusers_in_ddpm_variables() -> None:
    """Their other implementation; it computes each step in float32, whatever it is given."""
    scheduler = DPMSolverMultistepScheduler(timestep_spacing="linspace", final_sigmas_type="zero")
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.double()
    theirs = ddpm(start(float(sigmas[0])), float(sigmas[0]))
    for k, ours in enumerate(dpmpp_2m(exact, start(float(sigmas[0])), sigmas)):
        theirs = scheduler.step(
            exact_eps(theirs, float(sigmas[k])), scheduler.timesteps[k], theirs
        ).prev_sample
        same(ddpm(ours, float(sigmas[k + 1])), theirs, 1e-5)


@TABLES
def test_heun_is_that_of_diffusers(replace: bool, tolerance: float) -> None:
    steps = 18
    scheduler = HeunDiscreteScheduler(prediction_type="sample", use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    if replace:
        scheduler.sigmas = scheduler.sigmas.double()
    levels = scheduler.sigmas.double()  # each but the first and the last stands there twice
    sigmas = torch.cat([levels[:1], levels[1:-1:2], levels[-1:]])
    theirs = start(float(sigmas[0]))
    states = []
    for k, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(exact(theirs, float(levels[k])), t, theirs).prev_sample
        if k % 2 == 1 or k == 2 * steps - 2:
            states.append(theirs)
    ours = list(heun(exact, start(float(sigmas[0])), sigmas))
    assert len(states) == len(ours) == steps
    for mine, other in zip(ours, states, strict=True):
        same(mine, other, tolerance)

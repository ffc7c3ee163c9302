"""The levels of a sampler: where diffusers puts them, and what a sampler refuses."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from gaussian import exact, start

from lensdiff.diffusion.process import schedule
from lensdiff.diffusion.sampling import (
    SAMPLERS,
    ddim,
    flow_levels,
    karras_levels,
    log_levels,
    table_levels,
)
from lensdiff.errors import SamplingError


@pytest.mark.parametrize(
    ("levels", "name"), [(karras_levels, "karras"), (log_levels, "exponential")]
)
def test_levels_are_those_of_diffusers(levels, name: str) -> None:
    scheduler = EDMEulerScheduler(sigma_min=0.02, sigma_max=30.0, sigma_schedule=name)
    scheduler.set_timesteps(12)
    ours = levels(12, 30.0, 0.02)
    assert ours.dtype == torch.float64 and len(ours) == 13 and ours[-1] == 0
    torch.testing.assert_close(ours, scheduler.sigmas.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [2, 7, 50, 1000])
def test_table_levels_are_the_linspace_of_diffusers(steps: int) -> None:
    scheduler = DDPMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    table = schedule("linear")
    assert table_levels(table, steps).tolist() == [*table[scheduler.timesteps].tolist(), 0.0]
    assert table_levels(table, 1).tolist() == [float(table[-1]), 0.0]


def test_ddim_at_a_flows_levels_is_the_flow_of_diffusers() -> None:
    steps = 12
    scheduler = FlowMatchEulerDiscreteScheduler()
    begin = 40 / 41
    times = torch.linspace(begin, begin / steps, steps, dtype=torch.float64)
    scheduler.set_timesteps(sigmas=times.tolist())
    levels = flow_levels(steps, 40.0)
    assert levels.dtype == torch.float64 and levels[0] == pytest.approx(40) and levels[-1] == 0
    theirs = start(40.0) / 41
    for k, ours in enumerate(ddim(exact, start(40.0), levels)):
        sigma = float(levels[k])
        x = theirs * (1 + sigma)
        guess = exact(x, sigma)
        velocity = (x - guess) / sigma - guess
        theirs = scheduler.step(velocity, scheduler.timesteps[k], theirs).prev_sample.double()
        torch.testing.assert_close(ours / (1 + levels[k + 1]), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigmas", [[1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0], [0.0], []])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_levels_must_descend_to_zero(sampler: str, sigmas: list[float]) -> None:
    with pytest.raises(SamplingError, match="descend strictly and end in 0"):
        next(SAMPLERS[sampler](exact, start(1.0), torch.tensor(sigmas)))


def test_wrong_numbers_of_steps() -> None:
    for levels in (
        karras_levels,
        log_levels,
        flow_levels,
        lambda n: table_levels(schedule("linear"), n),
    ):
        with pytest.raises(SamplingError, match="one step or more, got 0"):
            levels(0)
    with pytest.raises(SamplingError, match=r"101 steps.*100"):
        table_levels(schedule("cosine", 100), 101)


@pytest.mark.parametrize("levels", [karras_levels, log_levels])
@pytest.mark.parametrize("ends", [(40.0, 0.0), (40.0, -1.0), (0.0, 0.01), (0.01, 0.02)])
def test_levels_that_are_none_are_refused(levels, ends: tuple[float, float]) -> None:
    with pytest.raises(SamplingError, match="Levels go down and are positive; these go from"):
        levels(5, *ends)
    with pytest.raises(SamplingError, match="Levels go down"):
        flow_levels(5, -0.1)

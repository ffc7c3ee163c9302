"""Tables and distributions of sigma, against the papers' formulas and against diffusers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy import stats
from torch import Tensor

from lensdiff.diffusion.process import (
    SCHEDULES,
    LogNormal,
    ScheduleWarning,
    Uniform,
    alpha_bar,
    schedule,
)

# ---- tables of sigma -----------------------------------------------------------------------------


def close_to_diffusers(ours: Tensor, **config: object) -> None:
    """diffusers keeps float32 tables, so that alpha_bar is compared, not sigma."""
    theirs = DDPMScheduler(num_train_timesteps=len(ours), **config).alphas_cumprod.double()
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_linear_is_that_of_diffusers() -> None:
    close_to_diffusers(alpha_bar("linear"), beta_schedule="linear")


def test_linear_of_another_length_is_rescaled() -> None:
    close_to_diffusers(alpha_bar("linear", 200), beta_start=5e-4, beta_end=0.1)
    assert alpha_bar("linear", 200)[-1] < 1e-4
    assert alpha_bar("linear", 4000)[-1] < 1e-4


def test_short_linear_without_rescaling_warns_and_is_that_of_diffusers() -> None:
    with pytest.warns(ScheduleWarning, match=r"T = 200 is 0\.13"):
        ours = alpha_bar("linear", 200, rescale=False)
    close_to_diffusers(ours, beta_schedule="linear")
    assert ours[-1] > 0.1


def test_the_warning_is_an_error_in_these_tests() -> None:
    with pytest.raises(ScheduleWarning):
        schedule("linear", 200, rescale=False)


@pytest.mark.parametrize("T", [50, 1000])
def test_cosine_is_squaredcos_cap_v2(T: int) -> None:
    close_to_diffusers(alpha_bar("cosine", T), beta_schedule="squaredcos_cap_v2")


@pytest.mark.parametrize("T", [50, 1000])
def test_sigmoid_is_that_of_jabri(T: int) -> None:
    def gamma(
        t: np.ndarray,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        clip_min: float = 1e-9,
    ) -> np.ndarray:
        first = 1 / (1 + math.exp(-start / tau))
        last = 1 / (1 + math.exp(-end / tau))
        now = 1 / (1 + np.exp(-(t * (end - start) + start) / tau))
        return np.clip((last - now) / (last - first), clip_min, 1.0)

    ours = alpha_bar("sigmoid", T).numpy()
    np.testing.assert_allclose(ours, gamma(np.arange(1, T + 1) / T), rtol=1e-9, atol=1e-15)
    assert (np.diff(ours) < 0).all()
    assert ours[-1] == 1e-9


@pytest.mark.parametrize("T", [21, 200, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_sigma_ascends_and_ends_in_noise(name: str, T: int) -> None:
    table = schedule(name, T)
    assert table.shape == (T,) and table.dtype == torch.float64
    assert (table.diff() > 0).all()
    assert table[-1] > 50
    torch.testing.assert_close(1 / (1 + table**2), alpha_bar(name, T), rtol=1e-12, atol=0)


def test_schedule_errors() -> None:
    with pytest.raises(ValueError, match=r"'linear', 'cosine', 'sigmoid'.*'quadratic'"):
        alpha_bar("quadratic")
    with pytest.raises(ValueError, match="2 or more, got 1"):
        alpha_bar("cosine", 1)
    with pytest.raises(ValueError, match="use 21 or more"):
        schedule("linear", 20)


# ---- distributions of sigma ----------------------------------------------------------------------


def test_lognormal_quantiles_are_scipys() -> None:
    u = torch.linspace(0.001, 0.999, 401, dtype=torch.float64)
    expected = stats.lognorm(s=0.7, scale=math.exp(-1.5)).ppf(u.numpy())
    np.testing.assert_allclose(LogNormal(-1.5, 0.7).at(u).numpy(), expected, rtol=1e-6)


def test_lognormal_is_finite_at_the_ends() -> None:
    ends = LogNormal().at(torch.tensor([0.0, 1.0]))
    assert ends.isfinite().all() and (ends > 0).all()


def test_uniform_picks_every_entry_equally_often() -> None:
    T = 40
    times = 25
    quantiles = (torch.arange(T * times, dtype=torch.float64) + 0.5) / (T * times)
    picked = Uniform("cosine", T).at(quantiles)
    values, counts = picked.unique(return_counts=True)
    torch.testing.assert_close(values, schedule("cosine", T).float())
    assert counts.tolist() == [times] * T
    assert Uniform("cosine", T).at(torch.tensor([0.0, 1.0])).tolist() == [values[0], values[-1]]

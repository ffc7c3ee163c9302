"""Samplers against diffusers and against the exact solution, with the exact denoiser of Gaussian data N(M, S^2)."""
from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import diffusers.schedulers.scheduling_ddpm as diffusers_ddpm
import pytest
import torch
from conftest import small_unet
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor, nn

from lensdiff.diffusion.process import Denoiser, alpha_bar, schedule
from lensdiff.diffusion.sampling import (
    SAMPLERS,
    ancestral,
    calls,
    clamped,
    ddim,
    dpmpp_2m,
    draw,
    guided,
    heun,
    karras_levels,
    log_levels,
    noise,
    posterior,
    table_levels,
)
from lensdiff.errors import SamplingError
from lensdiff.model import Sampling

M, S = 0.3, 0.5
SHAPE, SEEDS = (1, 4, 4), (3, 14, 15)


def exact(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
    """E[x0 | x] of data N(M, S^2)."""
    return (S**2 * x + sigma**2 * M) / (S**2 + sigma**2)


def start(sigma: float) -> Tensor:
    """The samplers' first state, in float64."""
    return noise(SEEDS, SHAPE).double() * sigma


def ddpm(x: Tensor, sigma: float) -> Tensor:
    """x0 + sigma eps as the state of a DDPM, with variances that add up to one."""
    return x / math.sqrt(1 + sigma**2)


def exact_eps(state: Tensor, sigma: float) -> Tensor:
    """What a perfect eps network answers at a DDPM state."""
    x = state * math.sqrt(1 + sigma**2)
    return (x - exact(x, sigma)) / sigma


def same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


# A scheduler of diffusers holds float32 tables: "as it is" it has to agree within 1e-5; with its table replaced by ours in float64
# the same code of theirs has to agree to the rounding of float64.
TABLES = pytest.mark.parametrize(("replace", "tolerance"), [(False, 1e-5), (True, 1e-11)], ids=["as_it_is", "float64"])
# The variance of a DDPM step holds 1 - alpha_bar, which float32 knows to 1e-3 only at the first entries (1e-4, 2e-4, ...): up to 7e-5 of x.
DDPM_TABLES = pytest.mark.parametrize(("replace", "tolerance"), [(False, 1e-4), (True, 1e-11)], ids=["as_it_is", "float64"])


# ---- against diffusers ------------------------------------------------------------------------------------------------------


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
        theirs = scheduler.step(exact_eps(theirs, float(sigmas[k])), int(t), theirs, eta=eta, variance_noise=added).prev_sample
        same(ddpm(ours[k], float(sigmas[k + 1])), theirs, tolerance)


@DDPM_TABLES
def test_ancestral_sampling_is_the_ddpm_of_diffusers(replace: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 1000 steps, with the same noise on both sides."""
    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    if replace:
        scheduler.alphas_cumprod = alpha_bar("linear")
    sigmas = table_levels(schedule("linear"), 1000)
    stream = iter(range(1, 1001))
    monkeypatch.setattr(diffusers_ddpm, "randn_tensor", lambda *_, **__: noise(SEEDS, SHAPE, stream=next(stream)).double())
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
    sigma, target = (float(schedule("linear")[k]) for k in (t, t - 1))
    x0 = M + S * noise(SEEDS, SHAPE).double()
    eps = noise(SEEDS, SHAPE, stream=1).double()
    x = x0 + sigma * eps
    theirs = scheduler.step(eps, t, ddpm(x, sigma), generator=torch.Generator().manual_seed(5)).prev_sample
    added = torch.randn(eps.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mean, std = posterior(x, x0, sigma, target)
    same(ddpm(mean + std * added, target), theirs, tolerance)
    assert ddpm(torch.tensor(std), target) == pytest.approx(float(scheduler._get_variance(t) ** 0.5), rel=1e-6 if replace else 1e-3)


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
        answer = (exact(theirs, s) - theirs / (s**2 + 1)) / (s / math.sqrt(s**2 + 1))  # their scheduler turns it back into exact()
        theirs = scheduler.step(answer, scheduler.timesteps[k], theirs).prev_sample
        same(ours, theirs, tolerance)


def test_dpmpp_2m_is_that_of_diffusers_in_ddpm_variables() -> None:
    """Their other implementation; it computes each step in float32, whatever it is given."""
    scheduler = DPMSolverMultistepScheduler(timestep_spacing="linspace", final_sigmas_type="zero")
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.double()
    theirs = ddpm(start(float(sigmas[0])), float(sigmas[0]))
    for k, ours in enumerate(dpmpp_2m(exact, start(float(sigmas[0])), sigmas)):
        theirs = scheduler.step(exact_eps(theirs, float(sigmas[k])), scheduler.timesteps[k], theirs).prev_sample
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


@pytest.mark.parametrize(("levels", "name"), [(karras_levels, "karras"), (log_levels, "exponential")])
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


# ---- against the exact solution ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(sampler: str, order: int) -> None:
    """The error at the lowest level, before the last step to 0, falls as steps^-order."""
    high, low = 40.0, 0.01
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
    """With guesses drawn from p(x0 | x) in place of their mean, the state is N(M, S^2 + sigma^2) at every level and for every eta."""
    shape, sigmas = (1, 256, 256), log_levels(8, 40.0, 0.05)
    pixels = 256 * 256

    def drawn(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        std = S * sigma / math.sqrt(S**2 + sigma**2)
        return exact(x, sigma) + std * torch.randn(x.shape, generator=generator)

    for eta in (0.0, 0.5, 1.0):
        generator = torch.Generator().manual_seed(987_654_321)  # not one that noise() uses
        x = M + noise([0], shape) * math.hypot(S, 40.0)
        for x, target in zip(ddim(drawn, x, sigmas, eta=eta, seeds=[0]), sigmas[1:], strict=True):  # noqa: B020
            variance = S**2 + float(target) ** 2
            assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / pixels))  # five standard errors
            assert float(x.mean()) == pytest.approx(M, abs=5 * math.sqrt(variance / pixels))


def ddpm_variances(sigmas: Tensor) -> list[float]:
    """Variance of the state after each step of eta = 1 from the exact mean, in closed form: the sampler is linear in x and in its noise."""
    variance, variances = float(sigmas[0]) ** 2 + S**2, []
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        keep, added = ancestral(sigma, target, 1.0)
        slope = S**2 / (S**2 + sigma**2)
        variance = (slope + keep / sigma * (1 - slope)) ** 2 * variance + added**2
        variances.append(variance)
    return variances


def test_ddpm_variance_is_the_marginals_in_the_limit_of_many_steps() -> None:
    """DDPM's fixed variance leaves out what p(x0 | x) is wide: of first order in the step, so that it halves as the steps double."""
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
    shape, sigmas = (1, 256, 256), table_levels(schedule("linear"), 25)
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


# ---- seeds ------------------------------------------------------------------------------------------------------------------


def test_noise_depends_on_seed_and_stream_alone() -> None:
    shape = (2, 32, 32)
    all_of_them = noise(range(6), shape)
    for seed in range(6):
        torch.testing.assert_close(noise([seed], shape)[0], all_of_them[seed], rtol=0, atol=0)
    others = torch.stack([*all_of_them, *noise(range(6), shape, stream=1), noise([65_537], shape)[0]]).flatten(1)
    assert torch.corrcoef(others).fill_diagonal_(0).abs().max() < 5 / math.sqrt(2048)
    assert float(others.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("sampler", "options"), [("ddim", {"eta": 1.0}), ("ddim", {}), ("heun", {}), ("dpmpp_2m", {})])
def test_a_sample_depends_on_its_seed_alone(sampler: str, options: dict) -> None:
    denoiser, shape, sigmas = Denoiser(small_unet()), (1, 16, 16), log_levels(5, 10.0, 0.05)

    def samples(seeds: list[int], batch: int) -> Tensor:
        return torch.cat(list(draw(denoiser, shape, seeds, sigmas, sampler, batch=batch, **options)))

    together = samples([0, 1, 2, 3, 4], batch=5)
    assert (together[0] - together[1]).abs().max() > 0.1
    torch.testing.assert_close(samples([0, 1, 2, 3, 4], batch=2), together, rtol=0, atol=1e-5)
    torch.testing.assert_close(samples([17, 3, 99], batch=8)[1], together[3], rtol=0, atol=1e-5)


def test_draw_yields_batches_with_their_labels() -> None:
    def labelled(x: Tensor, sigma: float, label: Tensor) -> Tensor:
        return label.view(-1, 1, 1, 1).expand_as(x).float()

    label = torch.arange(7)
    batches = list(draw(labelled, (1, 2, 2), range(7), log_levels(3), label=label, batch=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == label.tolist()
    assert list(draw(labelled, (1, 2, 2), [], log_levels(3))) == []


def test_draw_builds_no_graph_and_leaves_gradients_on() -> None:
    for x in draw(Denoiser(small_unet()), (1, 8, 8), [0, 1], log_levels(2), batch=1):
        assert not x.requires_grad
        assert torch.is_grad_enabled()


# ---- the ways samplers are used ---------------------------------------------------------------------------------------------


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
    assert count == (2 if sampler == "heun" else 1)  # nothing is computed before it is asked for
    rest = list(states)
    assert len(rest) == 5
    assert count == calls(sampler, 6) == Sampling(sampler, 6).calls
    assert len({float(state[0, 0, 0, 0]) for state in (first, *rest)}) == 6  # no step overwrites the one before


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_is_the_guess(sampler: str) -> None:
    (only,) = SAMPLERS[sampler](exact, start(40.0), log_levels(1))
    torch.testing.assert_close(only, exact(start(40.0), 40.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clamped_samples_lie_within_the_limits(sampler: str) -> None:
    loud = clamped(lambda x, sigma, label=None: 10 * x, -0.4, 0.7)
    (x,) = draw(loud, (1, 8, 8), [0, 1], log_levels(5), sampler)
    assert -0.4 - 1e-6 <= float(x.min()) < -0.3 and 0.6 < float(x.max()) <= 0.7 + 1e-6
    guess = clamped(lambda x, sigma, label=None: x, -0.4, 0.7)(torch.tensor([-1.0, 0.1, 3.0]), 1.0)
    torch.testing.assert_close(guess, torch.tensor([-0.4, 0.1, 0.7]))


@pytest.mark.parametrize(("scale", "expected", "asked"), [(0.0, 2.0, 2), (1.0, 5.0, 1), (3.0, 11.0, 2)])
def test_guidance(scale: float, expected: float, asked: int) -> None:
    count = 0

    def denoise(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        nonlocal count
        count += 1
        return torch.full_like(x, 2.0) if label is None else 2.0 + label.view(-1, 1, 1, 1).float() + torch.zeros_like(x)

    x = torch.zeros(2, 1, 2, 2)
    guess = guided(denoise, scale)(x, 1.0, torch.tensor([3, 3]))
    torch.testing.assert_close(guess, torch.full_like(x, expected))
    assert count == asked
    torch.testing.assert_close(guided(denoise, scale)(x, 1.0), torch.full_like(x, 2.0))
    assert count == asked + 1


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


# ---- errors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmas", [[1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0], [0.0], []])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_levels_must_descend_to_zero(sampler: str, sigmas: list[float]) -> None:
    with pytest.raises(SamplingError, match="descend strictly and end in 0"):
        next(SAMPLERS[sampler](exact, start(1.0), torch.tensor(sigmas)))


def test_wrong_numbers_of_steps() -> None:
    for levels in (karras_levels, log_levels, lambda n: table_levels(schedule("linear"), n)):
        with pytest.raises(SamplingError, match="one step or more, got 0"):
            levels(0)
    with pytest.raises(SamplingError, match=r"101 steps.*100"):
        table_levels(schedule("cosine", 100), 101)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_lies_between_0_and_1(eta: float) -> None:
    with pytest.raises(SamplingError, match=r"eta must be in \[0, 1\]"):
        next(ddim(exact, start(1.0), log_levels(2), eta=eta, seeds=SEEDS))


def test_added_noise_needs_seeds() -> None:
    for seeds in (None, [0], range(4)):
        with pytest.raises(SamplingError, match="one for each of the 3 samples"):
            next(ddim(exact, start(1.0), log_levels(2), eta=0.5, seeds=seeds))


def test_unknown_sampler_and_levels() -> None:
    with pytest.raises(SamplingError, match=r"'dpmpp_2m'.*'euler'"):
        next(draw(exact, SHAPE, SEEDS, log_levels(2), "euler"))
    with pytest.raises(SamplingError, match=r"'karras'.*'polynomial'"):
        Sampling(levels="polynomial").sigmas()


def test_a_denoiser_that_breaks_down_is_told() -> None:
    def broken(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        return torch.where(x == x.flatten()[0], math.nan, x)

    with pytest.raises(SamplingError, match=r"dpmpp_2m gave NaN.*clamped"):
        next(draw(broken, SHAPE, SEEDS, log_levels(2)))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(steps=9, levels="karras", high=20.0, low=0.1), karras_levels(9, 20.0, 0.1)),
        (Sampling(steps=9, levels="log", high=20.0, low=0.1), log_levels(9, 20.0, 0.1)),
        (Sampling(steps=9, levels="cosine"), table_levels(schedule("cosine"), 9)),
    ],
)
def test_sampling_makes_its_levels(sampling: Sampling, expected: Tensor) -> None:
    assert sampling.sigmas().tolist() == expected.tolist()


# ---- on a GPU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(("sampler", "options"), [("ddim", {"eta": 1.0}), ("heun", {}), ("dpmpp_2m", {})])
def test_sampling_on_cuda_is_that_on_the_cpu(sampler: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    sigmas, label = log_levels(6, 10.0, 0.05), torch.tensor([0, 1, 2])
    drawn = {}
    for device in ("cpu", "cuda"):
        denoiser = Denoiser(small_unet(classes=3)).to(device)
        (x,) = draw(denoiser, (1, 16, 16), SEEDS, sigmas, sampler, label=label, device=device, **options)
        assert x.device.type == device
        drawn[device] = x.cpu()
    torch.testing.assert_close(drawn["cuda"], drawn["cpu"], rtol=0, atol=1e-3)

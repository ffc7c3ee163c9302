"""Samplers: from noise to images, each a generator that yields every intermediate state.

The state is x = x0 + sigma * eps, kept in float32 or better while the network may run in bfloat16.
`sigmas` (steps + 1,) descends and ends in 0; all functions that make such levels raise
SamplingError for less than one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import SamplingError
from ..runtime import enough_memory

Denoise = Callable[..., Tensor]  # (x, sigma, label) -> E[x0 | x]
States = Iterator[Tensor]  # x after each step


def karras_levels(steps: int, high: float = 40.0, low: float = 0.01, rho: float = 7.0) -> Tensor:
    """sigma from `high` to `low`, evenly in sigma^(1/rho), then 0 (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, _positive(steps, high, low), dtype=torch.float64)
    table = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([table, torch.zeros(1, dtype=torch.float64)])


def log_levels(steps: int, high: float = 40.0, low: float = 0.01) -> Tensor:
    """sigma evenly spaced in its logarithm, from `high` to `low`, then 0: (steps + 1,), float64."""
    steps = _positive(steps, high, low)
    ramp = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)
    return torch.cat([ramp.exp(), torch.zeros(1, dtype=torch.float64)])


def flow_levels(steps: int, high: float = 40.0) -> Tensor:
    """sigma = t / (1 - t) for times t evenly from that of `high` to 0: (steps + 1,), float64.

    The levels at which a flow with straight lines is sampled (Liu et al. 2022, section 2).
    """
    t = torch.linspace(high / (1 + high), 0, _positive(steps, high) + 1, dtype=torch.float64)
    return t / (1 - t)


def table_levels(table: Tensor, steps: int) -> Tensor:
    """`steps` entries of an ascending schedule, its last among them, downwards, then 0.

    They are evenly spaced (Song et al. 2021, appendix D). Raises SamplingError for too many steps.
    """
    most = len(table)
    if _positive(steps) > most:
        raise SamplingError(f"A schedule of {most} has no {steps} steps; take {most} or fewer.")
    first = 0 if steps > 1 else most - 1
    index = torch.linspace(first, most - 1, steps, dtype=torch.float64).round().long()
    return torch.cat([table.double()[index].flip(0), torch.zeros(1, dtype=torch.float64)])


def _positive(steps: int, high: float = 1.0, low: float = 1e-9) -> int:
    """`steps`, checked, as are the levels that they go down from and to."""
    if steps < 1:
        raise SamplingError(f"A sampler needs one step or more, got {steps}.")
    if not (math.isfinite(high) and min(high, low) > 0) or (steps > 1 and not low <= high):
        raise SamplingError(f"Levels go down and are positive; these go from {high:g} to {low:g}.")
    return steps


def noise(
    seeds: Iterable[int],
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    stream: int = 0,
) -> Tensor:
    """Standard normal noise (n, *shape), float32; sample i depends on its seed alone.

    It does not depend on the batch (Karras et al. 2022, their code). Streams of a seed differ; 1 of
    seed 65,535 + k is 0 of seed k. Raises SamplingError for a seed outside of 0 to 2**32 - 1.
    """
    samples = []
    for seed in seeds:
        if not 0 <= seed < 2**32:  # all that torch's generator tells apart
            raise SamplingError(f"A seed is a whole number from 0 to 2**32 - 1, not {seed}.")
        generator = torch.Generator().manual_seed(int(seed) * 65_537 + stream)
        samples.append(torch.randn(shape, generator=generator))
    layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format
    return torch.stack(samples).to(device, memory_format=layout)


def clamped(denoise: Denoise, low: float, high: float) -> Denoise:
    """The denoiser with E[x0 | x] clamped to [low, high], in the network's units.

    These are the limits of real pixels (Ho et al. 2020, their code).
    """
    return lambda x, sigma, label=None: denoise(x, sigma, label).clamp(low, high)


def guided(denoise: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance, D = D_null + scale * (D_label - D_null).

    Ho & Salimans 2022, eq. 6; scale 1 is the conditional denoiser.
    """

    def null(x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
        return denoise(x, sigma, None)

    led = autoguided(denoise, null, scale)

    def denoise_guided(x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
        return denoise(x, sigma, None) if label is None else led(x, sigma, label)

    return denoise_guided


def autoguided(denoise: Denoise, weak: Denoise, scale: float) -> Denoise:
    """Autoguidance, D = D_weak + scale * (D - D_weak), away from what a worse model believes.

    Karras et al. 2024 (Guiding a diffusion model with a bad version of itself), section 4: `weak`
    is smaller or less trained, on the same data; scale 1 is the denoiser alone.
    """

    def denoise_guided(x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
        strong = denoise(x, sigma, label)
        if scale == 1:
            return strong
        worse = weak(x, sigma, label)
        return worse + scale * (strong - worse)

    return denoise_guided


def _pairs(sigmas: Tensor) -> list[tuple[float, float]]:
    """(sigma, target) of every step. Raises SamplingError for levels that don't descend to 0."""
    values = [float(s) for s in sigmas]
    if len(values) < 2 or values[-1] or not all(math.inf > a > b for a, b in pairwise(values)):
        raise SamplingError("sigmas must descend strictly and end in 0.")
    return list(pairwise(values))


def ancestral(sigma: float, target: float, eta: float) -> tuple[float, float]:
    """(deterministic, added) noise of a step from `sigma` to `target` (Song et al. 2021, eq. 16).

    Their squares add up to target^2. At eta = 1 the added noise is the standard deviation of the
    DDPM posterior q(x_{t-1} | x_t, x0) (Ho et al. 2020, eq. 7).
    """
    added = eta * target / sigma * math.sqrt(max(sigma**2 - target**2, 0.0))
    return math.sqrt(max(target**2 - added**2, 0.0)), added


def posterior(x: Tensor, x0: Tensor, sigma: float, target: float) -> tuple[Tensor, float]:
    """Mean and std of q(x_target | x_sigma, x0), x = x0 + sigma eps (Ho et al. 2020, eq. 6, 7)."""
    keep, added = ancestral(sigma, target, 1.0)
    return x0 + keep / sigma * (x - x0), added


def ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    label: Tensor | None = None,
    eta: float = 0.0,
    seeds: Iterable[int] | None = None,
) -> States:
    """First order (Song et al. 2021, eq. 12), deterministic (eta = 0) to ancestral (eta = 1).

    eta = 0 is DDIM, which is Euler's method on the flow ODE; eta = 1 is DDPM's ancestral sampling.
    `x` (n, C, H, W) is noise times sigmas[0]; `seeds` (n,) are those of the noise that eta > 0
    adds. Raises SamplingError for another eta, or where it needs seeds and has none.
    """
    if not 0 <= eta <= 1:
        raise SamplingError(f"eta must be in [0, 1], got {eta}.")
    seeds = None if seeds is None else list(seeds)
    if eta > 0 and (seeds is None or len(seeds) != len(x)):
        raise SamplingError(f"eta > 0 needs `seeds`, one for each of the {len(x)} samples.")
    for step, (sigma, target) in enumerate(_pairs(sigmas)):
        estimate = denoise(x, sigma, label)
        keep, added = ancestral(sigma, target, eta)
        x = estimate + keep / sigma * (x - estimate)
        if added > 0:
            x = x + added * noise(seeds, x.shape[1:], x.device, stream=step + 1).to(x.dtype)
        yield x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, label: Tensor | None = None) -> States:
    """Second order, 2 * steps - 1 network calls (Karras et al. 2022, algorithm 1)."""
    for sigma, target in _pairs(sigmas):
        slope = (x - denoise(x, sigma, label)) / sigma
        euler = x + (target - sigma) * slope
        if target > 0:
            slope = (slope + (euler - denoise(euler, target, label)) / target) / 2
            euler = x + (target - sigma) * slope
        x = euler
        yield x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, label: Tensor | None = None) -> States:
    """DPM-Solver++(2M), of second order, to 0 of first; a call a step (Lu et al. 2022, alg. 2)."""
    before = None
    h_before = None
    for sigma, target in _pairs(sigmas):
        estimate = denoise(x, sigma, label)
        if target == 0:
            x = estimate
        else:
            h = math.log(sigma / target)
            mixed = estimate
            if before is not None:
                mixed = estimate + h / h_before / 2 * (estimate - before)
            x = target / sigma * x - math.expm1(-h) * mixed
            before = estimate
            h_before = h
        yield x


SAMPLERS = {"ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}


def calls(sampler: str, steps: int) -> int:
    """Network calls that a sampler makes in `steps` steps."""
    return 2 * steps - 1 if sampler == "heun" else steps


@torch.no_grad()
def draw(
    denoise: Denoise,
    shape: tuple[int, int, int],
    seeds: Iterable[int],
    sigmas: Tensor,
    sampler: str = "dpmpp_2m",
    label: Tensor | None = None,
    batch: int = 64,
    device: torch.device | str = "cpu",
    **options,
) -> Iterator[Tensor]:
    """Yield finished samples, at most `batch` at a time, (<= batch, *shape), one for each seed.

    `options` go to the sampler. Raises SamplingError for an unknown sampler, labels that don't
    match the seeds, a batch below 1 or too large for the memory, or samples that are not finite.
    """
    if sampler not in SAMPLERS:
        raise SamplingError(f"sampler must be one of {tuple(SAMPLERS)}, not {sampler!r}.")
    if batch < 1:
        raise SamplingError(f"batch must be 1 or more, got {batch}.")
    seeds = list(seeds)
    if label is not None and len(label) != len(seeds):
        raise SamplingError(f"{len(label)} labels for {len(seeds)} seeds: give one for each.")
    smaller = "Give `generate` a smaller `batch`"
    smaller += ", or set LENSDIFF_DEVICE=cpu and load the model again"
    for start in range(0, len(seeds), batch):
        mine = seeds[start : start + batch]
        own = None if label is None else label[start : start + batch].to(device)
        if sampler == "ddim":
            options["seeds"] = mine
        with enough_memory(SamplingError, f"{len(mine)} images", smaller, device):
            x = noise(mine, shape, device) * float(sigmas[0])
            for state in SAMPLERS[sampler](denoise, x, sigmas, own, **options):
                x = state
        if not x.isfinite().all():
            cure = "For a network that predicts eps, use its own levels and `clamped`."
            raise SamplingError(f"{sampler} gave NaN or infinity. {cure}")
        yield x

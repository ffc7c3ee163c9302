"""The noise process x = x0 + sigma * eps, and the denoiser D(x, sigma, label) -> E[x0 | x].

Noise schedules are tables of sigma. With the textbook's alpha_bar, sigma = sqrt(1 / alpha_bar - 1)
and the DDPM state is x / sqrt(1 + sigma^2). What a network predicts (eps, x0, v, a flow, EDM's
mixture) is a choice of three coefficients, a `Scaling`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from ..runtime import PRECISIONS, autocast

SCHEDULES = ("linear", "cosine", "sigmoid")


class ScheduleWarning(UserWarning):
    """The schedule ends before the signal is gone: sampling starts from what training never saw."""


def alpha_bar(name: str, T: int = 1000, rescale: bool = True) -> Tensor:
    """alpha_bar_t, the share of the signal's variance left after step t: (T,), float64, decreasing.

    - linear (Ho et al. 2020, section 4): beta from 1e-4 to 0.02. `rescale` multiplies both by
      1000 / T, so that any T ends in noise; without it a small T leaves signal in, and a
      `ScheduleWarning` says so.
    - cosine (Nichol & Dhariwal 2021, eq. 17): s = 0.008, beta capped at 0.999.
    - sigmoid (Jabri et al. 2022, appendix B; on alpha_bar, not on beta): from -3 to 3, tau = 1,
      floor 1e-9.

    Raises ParameterError for another name, T < 2, or a rescaled beta of 1 or more.
    """
    if name not in SCHEDULES:
        raise ParameterError(f"schedule must be one of {SCHEDULES}, not {name!r}.")
    if T < 2:
        raise ParameterError(f"T must be 2 or more, got {T}.")
    t = torch.arange(1, T + 1, dtype=torch.float64) / T
    if name == "sigmoid":
        edge = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))
        table = ((edge[1] - torch.sigmoid(6 * t - 3)) / (edge[1] - edge[0])).clamp(min=1e-9)
    else:
        table = torch.cumprod(1 - _betas(name, T, t, rescale), 0)
    if table[-1] > 0.01:
        warnings.warn(
            f"alpha_bar at T = {T} is {table[-1]:.3g}: a share of the image is left when "
            "sampling starts. Use rescale=True or a larger T.",
            ScheduleWarning,
            stacklevel=2,
        )
    return table


def _betas(name: str, T: int, t: Tensor, rescale: bool) -> Tensor:
    """The variances beta_t of the linear or the cosine schedule, (T,), float64."""
    if name == "cosine":

        def f(u: Tensor) -> Tensor:
            return torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        return (1 - f(t) / f(t - 1 / T)).clamp(max=0.999)
    scale = 1000 / T if rescale else 1.0
    if 0.02 * scale >= 1:
        raise ParameterError(
            f"T = {T} is too small for the rescaled linear schedule (its last beta is "
            f"{0.02 * scale:.2g}); use 21 or more."
        )
    return torch.linspace(1e-4 * scale, 0.02 * scale, T, dtype=torch.float64)


def schedule(name: str, T: int = 1000, rescale: bool = True) -> Tensor:
    """Table of sigma_t = sqrt(1 / alpha_bar_t - 1), (T,), float64, ascending; see `alpha_bar`."""
    return (1 / alpha_bar(name, T, rescale) - 1).sqrt()


@dataclass(frozen=True)
class LogNormal:
    """Continuous sigma, ln(sigma) ~ N(mean, std^2) (Karras et al. 2022, table 1)."""

    mean: float = -1.0
    std: float = 1.2

    def at(self, u: Tensor) -> Tensor:
        """sigma at the quantiles `u` in (0, 1)."""
        normal = torch.special.ndtri(u.double().clamp(1e-7, 1 - 1e-7))
        return (self.mean + self.std * normal).exp().float()


@dataclass(frozen=True)
class Uniform:
    """Discrete sigma, every step of a schedule equally often (Ho et al. 2020, algorithm 1)."""

    schedule: str = "linear"
    T: int = 1000
    rescale: bool = True

    def at(self, u: Tensor) -> Tensor:
        """sigma at the quantiles `u` in (0, 1)."""
        table = schedule(self.schedule, self.T, self.rescale).to(u.device)
        return table[(u * self.T).long().clamp(0, self.T - 1)].float()


@dataclass(frozen=True)
class Scaling:
    """D = skip * x + out * net(inp * x, ln(sigma) / 4, label) (Karras et al. 2022, eq. 7).

    `skip`, `out` and `inp` are functions of sigma.
    """

    name: str
    skip: Callable[[Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    inp: Callable[[Tensor], Tensor]


def scaling(name: str, data_std: float = 0.5) -> Scaling:
    """The coefficients for what the network predicts: 'eps', 'x0', 'v', 'flow' or 'edm'.

    - eps (Ho et al. 2020), x0, v (Salimans & Ho 2022)
    - flow (Lipman et al. 2023): the straight path x_t = (1 - t) x0 + t eps, t = sigma / (1 + sigma)
    - edm (Karras et al. 2022, table 1): `data_std` is the data's std in the units of x

    Raises ParameterError for another name.
    """

    def unit(s: Tensor) -> Tensor:
        return (1 + s**2).rsqrt()

    d = data_std
    table = {
        "eps": (torch.ones_like, lambda s: -s, unit),
        "x0": (torch.zeros_like, torch.ones_like, unit),
        "v": (lambda s: 1 / (1 + s**2), lambda s: -s * unit(s), unit),
        "flow": (lambda s: 1 / (1 + s), lambda s: -s / (1 + s), lambda s: 1 / (1 + s)),
        "edm": (
            lambda s: d**2 / (s**2 + d**2),
            lambda s: s * d * (s**2 + d**2).rsqrt(),
            lambda s: (s**2 + d**2).rsqrt(),
        ),
    }
    if name not in table:
        raise ParameterError(f"prediction must be one of {tuple(table)}, not {name!r}.")
    return Scaling(name, *table[name])


def min_snr(sigma: Tensor, out: Tensor, gamma: float = 5.0) -> Tensor:
    """Weight min(SNR, gamma) in x0 space, with SNR = 1 / sigma^2 (Hang et al. 2023, eq. 8)."""
    return (sigma**-2).clamp(max=gamma) * out**2


def edm_weight(sigma: Tensor, out: Tensor, data_std: float = 0.5, most: float = 400.0) -> Tensor:
    """Weight 1 / sigma^2 + 1 / data_std^2 in x0 space (Karras et al. 2022, eq. 8 and table 1).

    The first term stops at `most`, so that levels below 0.05 don't drown the others.
    """
    return ((sigma**-2).clamp(max=most) + data_std**-2) * out**2


CRITERIA = {"l2": lambda a, b: (a - b) ** 2, "l1": lambda a, b: (a - b).abs()}
WEIGHTS = {"none": lambda sigma, out: torch.ones_like(sigma), "min_snr": min_snr, "edm": edm_weight}


class Denoiser(nn.Module):
    """A network with its scaling: it gives E[x0 | x] (with an L1 loss, the conditional median)."""

    def __init__(
        self,
        net: nn.Module,
        prediction: str = "edm",
        data_std: float = 0.5,
        precision: str = "fp32",
    ):
        super().__init__()
        if precision not in PRECISIONS:
            raise ParameterError(f"precision must be one of {PRECISIONS}, not {precision!r}.")
        self.net = net
        self.scaling = scaling(prediction, data_std)
        self.data_std = data_std
        self.precision = precision

    def _net(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Network output (n, C, H, W), float32, at noisy `x` and `sigma` (n,)."""
        s = sigma.view(-1, 1, 1, 1)
        with autocast(x.device, self.precision):
            return self.net(self.scaling.inp(s) * x, sigma.clamp(min=1e-6).log() / 4, label).float()

    def forward(self, x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
        """E[x0 | x] for x (n, C, H, W), sigma >= 0 a number or (n,), label (n, ...) or None.

        The answer has the dtype of x; the network gets x in float32, and computes in its own.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        s = sigma.to(torch.promote_types(x.dtype, torch.float32)).view(-1, 1, 1, 1)
        answer = self._net(x.float(), sigma, label).to(s.dtype)
        return (self.scaling.skip(s) * x + self.scaling.out(s) * answer).to(x.dtype)

    def loss(
        self,
        x0: Tensor,
        sigma: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        criterion: str = "l2",
        weight: str = "none",
    ) -> Tensor:
        """Loss of each image, (n,): criterion(net, (x0 - skip x) / out), the mean over pixels.

        The weight at sigma multiplies it. Raises ParameterError for another criterion or weight.
        """
        if criterion not in CRITERIA or weight not in WEIGHTS:
            known = f"criterion must be one of {tuple(CRITERIA)}, weight one of {tuple(WEIGHTS)}"
            raise ParameterError(f"{known}; got {criterion!r}, {weight!r}.")
        s = sigma.to(x0.dtype).view(-1, 1, 1, 1)
        x = x0 + s * eps
        out = self.scaling.out(s)
        target = (x0 - self.scaling.skip(s) * x) / out
        error = CRITERIA[criterion](self._net(x.float(), sigma.float(), label), target)
        more = (self.data_std,) if weight == "edm" else ()
        size = out.flatten() if criterion == "l2" else out.flatten().abs().sqrt()  # of |D - x0|
        return error.mean((1, 2, 3)) * WEIGHTS[weight](sigma, size, *more)

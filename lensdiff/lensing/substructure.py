"""How much of a lens's substructure its image can show at all: the limit of every classifier."""

from __future__ import annotations

import numpy as np
import torch

from . import simulate as sim
from .survey import Survey

SUBSTRUCTURE = (
    "axion_mass_ev",
    "string_angle_rad",
    "string_half_length_arcsec",
    "string_mass_msun",
    "n_subhalos",
)
FITTED = (
    "einstein_radius_arcsec",
    "source_x_arcsec",
    "source_y_arcsec",
    "source_radius_arcsec",
    "source_amplitude_cps",
)
SHEAR = ("shear_1", "shear_2")


def without_substructure(params: np.ndarray) -> np.ndarray:
    """The truth (n,) of the same lenses, sources and exposures with nothing inside the lens."""
    bare = params.copy()
    for name in (*SUBSTRUCTURE, "subhalo_x_arcsec", "subhalo_y_arcsec", "subhalo_mass_msun"):
        bare[name] = 0
    bare["label"] = 0
    return bare


def noise_variance(light: torch.Tensor, params: np.ndarray, survey: Survey) -> torch.Tensor:
    """Variance (n, H, W) of `light` (n, H, W) by shot noise and background, in (counts/s)^2.

    DeepLenseSim's Model I draws shot noise twice; that it clips at zero in between is left out.
    """
    exposure = torch.as_tensor(params["exposure_s"], dtype=light.dtype)[:, None, None]
    return (2 if survey.double_poisson else 1) * light / exposure + survey.background_rms_cps**2


def _step(params: np.ndarray, name: str) -> np.ndarray:
    """A small change of a field (n,), in its unit: a hundredth of a brightness, else 0.002."""
    return params[name] * 0.01 if name.endswith("_cps") else np.full(len(params), 2e-3)


def _templates(params: np.ndarray, survey: Survey, fitted: tuple[str, ...]) -> torch.Tensor:
    """How the light changes with each of `fitted`, times a small step: (n, len(fitted), H, W)."""
    light = sim.render(params, survey)
    changes = []
    for name in fitted:
        moved = params.copy()
        moved[name] += _step(params, name)
        changes.append(sim.render(moved, survey) - light)
    return torch.stack(changes, 1)


def best_without(
    params: np.ndarray, survey: Survey, fitted: tuple[str, ...] = (*FITTED, *SHEAR), rounds: int = 8
) -> np.ndarray:
    """The lenses without substructure (n,) that come nearest to the light of `params` (n,).

    Their fields `fitted` are changed by `rounds` steps of Gauss and Newton, each weighted by the
    noise; a round counts only for lenses that it brings nearer, and is halved for the others.
    """
    target = sim.render(params, survey)
    best = without_substructure(params)
    least, light, sigma = _misfit(best, target, survey)
    share = np.ones(len(params))
    for _ in range(rounds):
        basis = (_templates(best, survey, fitted) / sigma[:, None]).flatten(2).double().mT
        left = ((target - light) / sigma).flatten(1).double()[:, :, None]
        steps = torch.linalg.lstsq(basis, left).solution[:, :, 0].numpy()
        moved = best.copy()
        for column, name in enumerate(fitted):
            moved[name] += share * steps[:, column] * _step(best, name)
        moved["source_radius_arcsec"] = np.maximum(moved["source_radius_arcsec"], 0.02)
        misfit, *_ = _misfit(moved, target, survey)
        nearer = misfit < least
        best = np.where(nearer, moved, best)
        share = np.where(nearer, 1.0, share / 2)
        least, light, sigma = _misfit(best, target, survey)
    return best


def _misfit(
    params: np.ndarray, target: torch.Tensor, survey: Survey
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Chi square (n,) of lenses against `target` (n, H, W); their light, and std of its noise."""
    light = sim.render(params, survey)
    sigma = noise_variance(light, params, survey).sqrt()
    return ((target - light) / sigma).square().sum((1, 2)).numpy(), light, sigma


def signal_to_noise(
    params: np.ndarray, survey: Survey, fitted: tuple[str, ...] = (), chunk: int = 64
) -> np.ndarray:
    """Signal-to-noise ratio (n,) of the substructure.

    It is how many sigma the image lies from that of the same lens without it: the root of the sum
    over pixels of (difference)^2 / variance, that of the matched filter (Turin 1960, eq. 13).
    Fields of `population.PARAMS` in `fitted` are taken as unknown: of the difference only what no
    small change of them explains is counted (Tegmark, Taylor & Heavens 1997, section 2: the
    marginalised Fisher matrix). `FITTED` are those that an astronomer would have to fit.
    """
    found = np.zeros(len(params))
    for rows in np.array_split(
        np.flatnonzero(params["label"] > 0), max(1, -(-len(params) // chunk))
    ):
        part = params[rows]
        if len(part):
            bare = without_substructure(part)
            light = sim.render(bare, survey)
            sigma = noise_variance(light, part, survey).sqrt()
            left = (sim.render(part, survey) - light) / sigma
            left = left.flatten(1).double()[:, :, None]
            if fitted:
                basis = (_templates(bare, survey, fitted) / sigma[:, None]).flatten(2).double().mT
                axes = torch.linalg.qr(basis / basis.norm(dim=1, keepdim=True)).Q
                left = left - axes @ (axes.mT @ left)
            found[rows] = left.norm(dim=1)[:, 0].numpy()
    return found


def twin(params: np.ndarray, survey: Survey, seed: int, first: int) -> np.ndarray:
    """Images (n, H, W), counts/s/pixel, of the same lenses without substructure.

    Their noise comes from the same (seed, index).
    """
    bare = without_substructure(params)
    return sim.observe(sim.render(bare, survey), bare, survey, seed, first)

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


def _templates(params: np.ndarray, survey: Survey, fitted: tuple[str, ...]) -> torch.Tensor:
    """How the light changes with each of `fitted`, times a small step: (n, len(fitted), H, W)."""
    light = sim.render(params, survey)
    changes = []
    for name in fitted:
        moved = params.copy()
        moved[name] = moved[name] * 1.01 if name.endswith("_cps") else moved[name] + 2e-3
        changes.append(sim.render(moved, survey) - light)
    return torch.stack(changes, 1)


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
            left = ((sim.render(part, survey) - light) / sigma).flatten(1).double()[:, :, None]
            if fitted:
                basis = (
                    (_templates(bare, survey, fitted) / sigma[:, None])
                    .flatten(2)
                    .double()
                    .transpose(1, 2)
                )
                axes = torch.linalg.qr(basis / basis.norm(dim=1, keepdim=True)).Q
                left = left - axes @ (axes.transpose(1, 2) @ left)
            found[rows] = left.norm(dim=1)[:, 0].numpy()
    return found


def twin(params: np.ndarray, survey: Survey, seed: int, first: int) -> np.ndarray:
    """Images (n, H, W), counts/s/pixel, of the same lenses without substructure.

    Their noise comes from the same (seed, index).
    """
    bare = without_substructure(params)
    return sim.observe(sim.render(bare, survey), bare, survey, seed, first)

"""Strong gravitational lenses with three kinds of dark-matter substructure.

A singular isothermal ellipsoid with external shear bends the light of one Sersic galaxy. Inside the
lens there is nothing (`no_sub`), a population of point-like subhaloes (`cdm`), or the vortex of a
superfluid of axions, seen from the side as a string of point masses (`axion`). The physics follows
Model I of DeepLenseSim (Toomey et al., https://github.com/mwt5345/DeepLenseSim), the deflections
come from caustics (Stone et al. 2024, JOSS 9(103), 7081). The lens galaxy's own light is left out,
as in DeepLense.

    survey = diverse(pixels=64)
    params = sample_params(9, "mixed", seed=0, survey=survey)      # the truth, one row an image
    clean = render(params, survey)                                 # noiseless, counts/s/pixel
    images = observe(clean, params, survey, seed=0)                # what the telescope records

Angles are in arcsec, x grows with the column and y with the row of an image, both are 0 at its
centre, and an orientation is counted from x towards y. Every draw of image i depends on the seed
and on i alone, never on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from .population import PARAMS, einstein_radius_arcsec
from .survey import Survey

# Raise it when the same survey and seed would give other pixels: it is part of each fingerprint.
VERSION = 1
STRING_MASSES = 100
CORE_ARCSEC = 1e-10  # keeps the deflection finite exactly at a centre, as in lenstronomy


def point_masses(params: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Substructure of rows of one class: (x_arcsec, y_arcsec, mass_msun), each (n, masses)."""
    if len(params) and params["label"][0] == 2:
        along = np.linspace(-1, 1, STRING_MASSES) * params["string_half_length_arcsec"][:, None]
        angle = params["string_angle_rad"][:, None]
        mass = np.repeat(params["string_mass_msun"][:, None] / STRING_MASSES, STRING_MASSES, axis=1)
        return along * np.cos(angle), along * np.sin(angle), mass
    most = int(params["n_subhalos"].max(initial=0))
    return tuple(
        params[f"subhalo_{name}"][:, :most] for name in ("x_arcsec", "y_arcsec", "mass_msun")
    )


def deflection(
    params: np.ndarray, x: torch.Tensor, y: torch.Tensor, survey: Survey
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduced deflection angle in arcsec at (x, y), each (n, H, W) or broadcastable.

    `params` (n,) are of one class. Sources: Keeton 2001 (astro-ph/0102341), isothermal ellipsoid;
    Meneghetti, Introduction to Gravitational Lensing, eq. 3.1 and 3.80.
    """
    from caustics.lenses import func  # here, since it takes a second: see `population`

    p = {name: _column(params[name], x) for name in PARAMS.names if params[name].ndim == 1}
    ax, ay = func.reduced_deflection_angle_sie(
        0.0,
        0.0,
        p["lens_axis_ratio"],
        p["lens_angle_rad"],
        p["einstein_radius_arcsec"],
        x,
        y,
        CORE_ARCSEC,
    )
    shear_x, shear_y = func.reduced_deflection_angle_external_shear(
        0.0, 0.0, p["shear_1"], p["shear_2"], x, y
    )
    ax = ax + shear_x
    ay = ay + shear_y
    mass_x, mass_y, mass = point_masses(params)
    radius = einstein_radius_arcsec(mass, survey)
    for column in range(mass.shape[1]):
        x0 = _column(mass_x[:, column], x)
        y0 = _column(mass_y[:, column], x)
        theta = _column(radius[:, column], x)
        dx, dy = func.reduced_deflection_angle_point(x0, y0, theta, x, y, CORE_ARCSEC)
        ax += dx
        ay += dy
    return ax, ay


def _column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=like.dtype).to(like.device)[:, None, None]


def rays(survey: Survey, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Where light is traced, in arcsec: x (1, 1, S) and y (1, S, 1), float32."""
    side = survey.pixels * survey.supersampling
    axis = (torch.arange(side, device=device, dtype=torch.float32) - (side - 1) / 2) * (
        survey.pixel_arcsec / survey.supersampling
    )
    return axis[None, None, :], axis[None, :, None]


def _render_one_class(
    params: np.ndarray, survey: Survey, device: torch.device | str
) -> torch.Tensor:
    from caustics.light import func

    x, y = rays(survey, device)
    ax, ay = deflection(params, x, y, survey)
    p = {name: _column(params[name], x) for name in PARAMS.names if name.startswith("source_")}
    index = p["source_sersic_index"]
    ratio = p["source_axis_ratio"]
    k = (func.k_lenstronomy if survey.use_lenstronomy_k else func.k_sersic)(index)
    light = func.brightness_sersic(
        p["source_x_arcsec"],
        p["source_y_arcsec"],
        ratio,
        p["source_angle_rad"],
        index,
        p["source_radius_arcsec"] / ratio.sqrt(),
        p["source_amplitude_cps"],
        x - ax,
        y - ay,
        k,
    )
    return blur(light[:, None], survey)[:, 0]


def blur(images: torch.Tensor, survey: Survey) -> torch.Tensor:
    """Gaussian point-spread function, then the mean over each pixel; (n, 1, S, S) to (n, 1, H, W).

    It acts on the grid of rays, whose edges are repeated.
    """
    sigma_arcsec = survey.psf_fwhm_arcsec / (2 * np.sqrt(2 * np.log(2)))
    sigma = max(sigma_arcsec / survey.pixel_arcsec * survey.supersampling, 1e-9)  # 0: no blur
    radius = int(survey.psf_truncation_sigma * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2).to(images)
    kernel = kernel / kernel.sum()
    images = F.pad(images, (radius,) * 4, mode="replicate")
    images = F.conv2d(F.conv2d(images, kernel[None, None, None, :]), kernel[None, None, :, None])
    return F.avg_pool2d(images, survey.supersampling)


@torch.no_grad()
def render(
    params: np.ndarray, survey: Survey, device: torch.device | str = "cpu", chunk: int = 16
) -> torch.Tensor:
    """Noiseless images (n, H, W), float32, counts/s/pixel, of the truth `params` (n,)."""
    images = torch.empty(len(params), survey.pixels, survey.pixels, device=device)
    for label in np.unique(params["label"]):
        rows = np.flatnonzero(params["label"] == label)
        for part in np.array_split(rows, -(-len(rows) // chunk)):
            light = _render_one_class(params[part], survey, device)
            images[torch.as_tensor(part, device=device)] = light
    return images


def observe(
    images: torch.Tensor, params: np.ndarray, survey: Survey, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Noisy images (n, H, W), float32, counts/s/pixel, of noiseless ones.

    `first` is the index of the first image. Textbook: Poisson counts of the light plus Gaussian
    background. With `double_poisson`, DeepLenseSim's: Gaussian shot noise and background, clipped
    at zero, and a Poisson draw of that. The noise of image i comes from (seed, i) alone.
    """
    noisy = np.empty(images.shape, np.float32)
    light = images.cpu().double().numpy()  # a Mac's GPU has no float64
    for i, (clean, exposure) in enumerate(zip(light, params["exposure_s"], strict=True)):
        rng = np.random.default_rng([seed, 2, first + i])
        background = survey.background_rms_cps * rng.standard_normal(clean.shape)
        if survey.double_poisson:
            shot = np.sqrt(np.abs(clean) / exposure) * rng.standard_normal(clean.shape)
            expected = np.clip(exposure * (clean + shot + background), 0, None)
            noisy[i] = rng.poisson(expected) / exposure
        else:
            noisy[i] = rng.poisson(exposure * clean) / exposure + background
    return noisy


def simulate(
    params: np.ndarray,
    survey: Survey,
    seed: int = 0,
    device: torch.device | str = "cpu",
    chunk: int = 192,
    noiseless: bool = False,
    first: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the observed (or noiseless) images of `params`, (<= chunk, H, W) at a time.

    `first` is the number of the first image, on which its noise depends.
    """
    for start in range(0, len(params), chunk):
        part = params[start : start + chunk]
        light = render(part, survey, device)
        number = first + start
        yield light.cpu().numpy() if noiseless else observe(light, part, survey, seed, number)

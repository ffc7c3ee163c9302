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
and on i alone, never on how many are drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from caustics.cosmology import FlatLambdaCDM
from caustics.lenses.func import (
    mass_to_rein_point,
    reduced_deflection_angle_external_shear,
    reduced_deflection_angle_point,
    reduced_deflection_angle_sie,
)
from caustics.light.func import brightness_sersic, k_lenstronomy, k_sersic
from scipy.stats import poisson

from .survey import Survey, diverse

# raise it when the same survey and seed would give other pixels: it is part of each cache's
# fingerprint
VERSION = 1
KINDS = ("no_sub", "cdm", "axion")
MAX_SUBHALOS = 64  # a Poisson number with mean 25 exceeds this once in 10^11 images
STRING_MASSES = 100
CORE_ARCSEC = 1e-10  # keeps the deflection finite exactly at a centre, as in lenstronomy
REDSHIFT_LENS = 0.5
REDSHIFT_SOURCE = 1.0
HUBBLE = 70.0
OMEGA_M = 0.3

PARAMS = np.dtype(
    [
        ("label", "i8"),  # index into KINDS
        ("einstein_radius_arcsec", "f8"),
        ("lens_axis_ratio", "f8"),
        ("lens_angle_rad", "f8"),
        ("shear_1", "f8"),
        ("shear_2", "f8"),
        ("source_x_arcsec", "f8"),
        ("source_y_arcsec", "f8"),
        ("source_radius_arcsec", "f8"),  # product-averaged half-light radius
        ("source_axis_ratio", "f8"),
        ("source_angle_rad", "f8"),
        ("source_sersic_index", "f8"),
        ("source_amplitude_cps", "f8"),  # counts per second and pixel at the half-light radius
        ("exposure_s", "f8"),
        ("axion_mass_ev", "f8"),  # 0 where the class has none, as are the fields below
        ("string_angle_rad", "f8"),
        ("string_half_length_arcsec", "f8"),
        ("string_mass_msun", "f8"),
        ("n_subhalos", "i8"),
        ("subhalo_x_arcsec", "f8", (MAX_SUBHALOS,)),
        ("subhalo_y_arcsec", "f8", (MAX_SUBHALOS,)),
        ("subhalo_mass_msun", "f8", (MAX_SUBHALOS,)),
    ]
)


@functools.lru_cache
def _distances_mpc(luminosity: bool) -> tuple[float, float, float]:
    """(lens-source, lens, source) distances in Mpc, flat LCDM."""
    cosmology = FlatLambdaCDM(h0=HUBBLE / 100, Om0=OMEGA_M)
    z_lens = torch.tensor(REDSHIFT_LENS)
    z_source = torch.tensor(REDSHIFT_SOURCE)
    lens, source = (float(cosmology.angular_diameter_distance(z)) for z in (z_lens, z_source))
    # Etherington: D_lum = (1 + z)^2 D_ang; the difference is not a distance, but it is what Model I
    # uses
    if luminosity:
        lens = lens * (1 + REDSHIFT_LENS) ** 2
        source = source * (1 + REDSHIFT_SOURCE) ** 2
        return source - lens, lens, source
    return float(cosmology.angular_diameter_distance_z1z2(z_lens, z_source)), lens, source


def einstein_radius_arcsec(mass_msun: np.ndarray | float, survey: Survey) -> np.ndarray:
    """Einstein radius of a point mass in arcsec, sqrt(4 G M / c^2 * D_LS / (D_L D_S))
    (Meneghetti, eq. 1.39).
    """
    d_ls, d_l, d_s = _distances_mpc(survey.luminosity_distances)
    return mass_to_rein_point(
        torch.as_tensor(mass_msun, dtype=torch.float64), d_ls, d_l, d_s
    ).numpy()


def sample_params(
    n: int, kind: str = "mixed", seed: int = 0, survey: Survey | None = None
) -> np.ndarray:
    """Draw the truth of `n` images: a structured array (n,) of dtype `PARAMS`, units in its field
    names.

    `kind` is one of `KINDS`, or "mixed" for the three in turn. Raises ValueError for another kind
    or a negative n.
    """
    survey = survey or diverse()
    if kind not in (*KINDS, "mixed"):
        raise ParameterError(f"kind must be one of {(*KINDS, 'mixed')}, not {kind!r}.")
    if n < 0:
        raise ParameterError(f"n must not be negative, got {n}.")
    params = np.zeros(n, PARAMS)
    params["label"] = np.arange(n) % 3 if kind == "mixed" else KINDS.index(kind)
    # one column a parameter, filled row by row
    u = np.random.default_rng([seed, 0]).random((n, 24)).T
    _draw_lens_and_source(params, u, survey)
    _draw_subhalos(
        params,
        params["label"] == 1,
        u[16],
        np.random.default_rng([seed, 1]).random((n, MAX_SUBHALOS, 3)),
        survey,
    )
    axion = params["label"] == 2
    mass = log_uniform(u[17], survey.axion_mass_ev)
    params["axion_mass_ev"] = np.where(axion, mass, 0)
    params["string_angle_rad"] = np.where(axion, 2 * np.pi * u[18], 0)
    params["string_half_length_arcsec"] = np.where(axion, 0.03 * 1e-22 / mass, 0)
    params["string_mass_msun"] = np.where(axion, survey.string_mass_msun, 0)
    return params


def _uniform(u: np.ndarray, prior: tuple[float, float]) -> np.ndarray:
    return prior[0] + (prior[1] - prior[0]) * u


def log_uniform(u: np.ndarray, prior: tuple[float, float]) -> np.ndarray:
    """Quantiles `u` in [0, 1] of a log-uniform prior (low, high), in its unit."""
    return prior[0] * (prior[1] / prior[0]) ** u


def _draw_lens_and_source(params: np.ndarray, u: np.ndarray, survey: Survey) -> None:
    if survey.einstein_radius_arcsec is None:
        radius = np.full(len(params), einstein_radius_arcsec(survey.lens_mass_msun, survey))
    else:
        radius = _uniform(u[0], survey.einstein_radius_arcsec)
    params["einstein_radius_arcsec"] = radius
    shear = _uniform(u[3], survey.shear)
    angle = _uniform(u[4], survey.shear_angle_rad)
    params["shear_1"] = shear * np.cos(2 * angle)
    params["shear_2"] = shear * np.sin(2 * angle)
    if survey.source_square:
        x = _uniform(u[5], survey.source_offset)
        y = _uniform(u[6], survey.source_offset)
    else:
        offset = radius * _uniform(u[5], survey.source_offset)
        azimuth = 2 * np.pi * u[6]
        x = offset * np.cos(azimuth)
        y = offset * np.sin(azimuth)
    params["source_x_arcsec"] = x
    params["source_y_arcsec"] = y
    uniform_fields = (
        "lens_axis_ratio",
        "lens_angle_rad",
        "source_radius_arcsec",
        "source_axis_ratio",
        "source_angle_rad",
    )
    for name, column in zip(uniform_fields, (1, 2, 7, 8, 9), strict=True):
        params[name] = _uniform(u[column], getattr(survey, name))
    params["source_sersic_index"] = survey.source_sersic_index
    params["source_amplitude_cps"] = log_uniform(u[10], survey.source_amplitude_cps)
    params["exposure_s"] = log_uniform(u[11], survey.exposure_s)


def _draw_subhalos(
    params: np.ndarray, mine: np.ndarray, u_number: np.ndarray, u: np.ndarray, survey: Survey
) -> None:
    """Point masses with dN/dM ~ M^slope, uniform in radius and in azimuth over the annulus;

    `mine` marks the rows that get some.
    """
    mean = survey.subhalo_mean_number
    number = (
        np.full(len(params), int(mean))
        if survey.fixed_subhalo_number
        else poisson.ppf(u_number, mean)
    )
    number = np.where(mine, np.minimum(number, MAX_SUBHALOS), 0).astype(int)
    low, high = survey.subhalo_mass_msun
    power = survey.subhalo_slope + 1
    if abs(power) < 1e-9:
        mass = log_uniform(u[..., 0], (low, high))
    else:
        mass = _uniform(u[..., 0], (low**power, high**power)) ** (1 / power)
    radius = _uniform(u[..., 1], survey.subhalo_annulus_arcsec)
    azimuth = 2 * np.pi * u[..., 2]
    there = np.arange(MAX_SUBHALOS) < number[:, None]
    params["n_subhalos"] = number
    params["subhalo_mass_msun"] = np.where(there, mass, 0)
    params["subhalo_x_arcsec"] = np.where(there, radius * np.cos(azimuth), 0)
    params["subhalo_y_arcsec"] = np.where(there, radius * np.sin(azimuth), 0)


def point_masses(params: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Substructure of rows of one class as point masses:

    (x_arcsec, y_arcsec, mass_msun), each (n, masses).
    """
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
    """Reduced deflection angle in arcsec at (x, y), each (n, H, W) or broadcastable, of rows
    `params` (n,) of one class.

    Sources: Keeton 2001 (astro-ph/0102341), isothermal ellipsoid; Meneghetti, Introduction to
    Gravitational Lensing, eq. 3.1 and 3.80.
    """
    p = {name: _column(params[name], x) for name in PARAMS.names if params[name].ndim == 1}
    ax, ay = reduced_deflection_angle_sie(
        0.0,
        0.0,
        p["lens_axis_ratio"],
        p["lens_angle_rad"],
        p["einstein_radius_arcsec"],
        x,
        y,
        CORE_ARCSEC,
    )
    shear_x, shear_y = reduced_deflection_angle_external_shear(
        0.0, 0.0, p["shear_1"], p["shear_2"], x, y
    )
    ax = ax + shear_x
    ay = ay + shear_y
    mass_x, mass_y, mass = point_masses(params)
    radius = einstein_radius_arcsec(mass, survey)
    for column in range(mass.shape[1]):
        one = (_column(values[:, column], x) for values in (mass_x, mass_y, radius))
        dx, dy = reduced_deflection_angle_point(*one, x, y, CORE_ARCSEC)
        ax += dx
        ay += dy
    return ax, ay


def _column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=like.dtype).to(like.device)[:, None, None]


def _grid(survey: Survey, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    side = survey.pixels * survey.supersampling
    axis = (torch.arange(side, device=device, dtype=torch.float32) - (side - 1) / 2) * (
        survey.pixel_arcsec / survey.supersampling
    )
    return axis[None, None, :], axis[None, :, None]


def _render_one_class(
    params: np.ndarray, survey: Survey, device: torch.device | str
) -> torch.Tensor:
    x, y = _grid(survey, device)
    ax, ay = deflection(params, x, y, survey)
    p = {name: _column(params[name], x) for name in PARAMS.names if name.startswith("source_")}
    index = p["source_sersic_index"]
    ratio = p["source_axis_ratio"]
    k = (k_lenstronomy if survey.use_lenstronomy_k else k_sersic)(index)
    light = brightness_sersic(
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
    return _blur(light[:, None], survey)[:, 0]


def _blur(images: torch.Tensor, survey: Survey) -> torch.Tensor:
    """Gaussian point-spread function on the ray grid, edges repeated, then the mean over each
    pixel; (n, 1, S, S) to (n, 1, H, W).
    """
    sigma = (
        survey.psf_fwhm_arcsec
        / (2 * np.sqrt(2 * np.log(2)))
        / survey.pixel_arcsec
        * survey.supersampling
    )
    radius = int(survey.psf_truncation_sigma * sigma + 0.5)
    kernel = torch.exp(
        -0.5 * (torch.arange(-radius, radius + 1, device=images.device) / sigma) ** 2
    ).to(images)
    kernel = kernel / kernel.sum()
    images = F.pad(images, (radius,) * 4, mode="replicate")
    images = F.conv2d(F.conv2d(images, kernel[None, None, None, :]), kernel[None, None, :, None])
    return F.avg_pool2d(images, survey.supersampling)


@torch.no_grad()
def render(
    params: np.ndarray, survey: Survey, device: torch.device | str = "cpu", chunk: int = 16
) -> torch.Tensor:
    """Noiseless images (n, H, W), float32, counts per second and pixel, of the truth `params`
    (n,).
    """
    images = torch.empty(len(params), survey.pixels, survey.pixels, device=device)
    for label in np.unique(params["label"]):
        rows = np.flatnonzero(params["label"] == label)
        for part in np.array_split(rows, -(-len(rows) // chunk)):
            images[torch.as_tensor(part, device=device)] = _render_one_class(
                params[part], survey, device
            )
    return images


def observe(
    images: torch.Tensor, params: np.ndarray, survey: Survey, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Noisy images (n, H, W), float32, counts per second and pixel, of noiseless ones;

    `first` is the index of the first image.

    Textbook: Poisson counts of the light plus Gaussian background. With `double_poisson`,
    DeepLenseSim's: Gaussian shot noise and background, clipped at zero, and a Poisson draw of that.
    The noise of image i comes from (seed, i) alone.
    """
    noisy = np.empty(images.shape, np.float32)
    for i, (clean, exposure) in enumerate(
        zip(images.double().cpu().numpy(), params["exposure_s"], strict=True)
    ):
        rng = np.random.default_rng([seed, 2, first + i])
        background = survey.background_rms_cps * rng.standard_normal(clean.shape)
        if survey.double_poisson:
            shot = np.sqrt(np.abs(clean) / exposure) * rng.standard_normal(clean.shape)
            noisy[i] = (
                rng.poisson(np.clip(exposure * (clean + shot + background), 0, None)) / exposure
            )
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
) -> Iterator[np.ndarray]:
    """Yield the observed (or noiseless) images of `params`, `chunk` at a time, (<= chunk, H, W),
    so that memory does not grow with n.
    """
    for start in range(0, len(params), chunk):
        part = params[start : start + chunk]
        light = render(part, survey, device)
        yield light.cpu().numpy() if noiseless else observe(light, part, survey, seed, start)

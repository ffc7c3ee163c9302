"""Which lenses there are: the truth of each image, sampled from a survey's priors.

Packages that take a second to import are imported where they are used: most commands simulate none.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from ..errors import ParameterError
from .survey import MAX_SUBHALOS, Survey, diverse

KINDS = ("no_sub", "cdm", "axion")
REDSHIFT_LENS = 0.5
REDSHIFT_SOURCE = 1.0
HUBBLE_KM_S_MPC = 70.0
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
    from caustics.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(h0=HUBBLE_KM_S_MPC / 100, Om0=OMEGA_M)
    z_lens = torch.tensor(REDSHIFT_LENS)
    z_source = torch.tensor(REDSHIFT_SOURCE)
    lens, source = (float(cosmology.angular_diameter_distance(z)) for z in (z_lens, z_source))
    if luminosity:  # D_lum = (1 + z)^2 D_ang; their difference is no distance, but Model I uses it
        lens = lens * (1 + REDSHIFT_LENS) ** 2
        source = source * (1 + REDSHIFT_SOURCE) ** 2
        return source - lens, lens, source
    return float(cosmology.angular_diameter_distance_z1z2(z_lens, z_source)), lens, source


def einstein_radius_arcsec(mass_msun: np.ndarray | float, survey: Survey) -> np.ndarray:
    """Einstein radius of a point mass in arcsec, sqrt(4 G M / c^2 * D_LS / (D_L D_S)).

    Meneghetti, Introduction to Gravitational Lensing, eq. 1.39.
    """
    from caustics.lenses.func import mass_to_rein_point

    d_ls, d_l, d_s = _distances_mpc(survey.luminosity_distances)
    mass = torch.as_tensor(mass_msun, dtype=torch.float64)
    return mass_to_rein_point(mass, d_ls, d_l, d_s).numpy()


def sample_params(
    n: int, kind: str = "mixed", seed: int = 0, survey: Survey | None = None, first: int = 0
) -> np.ndarray:
    """Draw the truth of `n` images: a structured array (n,), dtype `PARAMS`, units in its names.

    `kind` is one of `KINDS`, or "mixed" for the three in turn; `first` is the number of the first
    image. The truth of image i depends on the seed and on i alone. Raises ParameterError for
    another kind, a negative n or a negative seed.
    """
    survey = survey or diverse()
    if kind not in (*KINDS, "mixed"):
        raise ParameterError(f"kind must be one of {(*KINDS, 'mixed')}, not {kind!r}.")
    if n < 0 or seed < 0:
        raise ParameterError(f"n and seed must not be negative, got {n} and {seed}.")
    params = np.zeros(n, PARAMS)
    params["label"] = np.arange(first, first + n) % 3 if kind == "mixed" else KINDS.index(kind)
    u = _uniforms([seed, 0], first, (n, 24)).T  # one row of u a parameter
    _draw_lens_and_source(params, u, survey)
    u_subhalos = _uniforms([seed, 1], first, (n, MAX_SUBHALOS, 3))
    _draw_subhalos(params, params["label"] == 1, u[16], u_subhalos, survey)
    axion = params["label"] == 2
    mass = log_uniform(u[17], survey.axion_mass_ev)
    params["axion_mass_ev"] = np.where(axion, mass, 0)
    params["string_angle_rad"] = np.where(axion, 2 * np.pi * u[18], 0)
    params["string_half_length_arcsec"] = np.where(axion, 0.03 * 1e-22 / mass, 0)
    params["string_mass_msun"] = np.where(axion, survey.string_mass_msun, 0)
    return params


def rotated(params: np.ndarray, angle_rad: np.ndarray) -> np.ndarray:
    """The same lenses (n,), dtype `PARAMS`, each turned by its angle (n,), from x towards y.

    All of the sky turns with them: source, shear and substructure. In a survey without a direction
    of its own they are as likely as before; images simulated of them are exact, where an image that
    is turned is interpolated, and has nothing to put into its corners.
    """
    turned = params.copy()
    angle = np.asarray(angle_rad, float)
    for name in ("lens_angle_rad", "source_angle_rad"):
        turned[name] += angle
    turned["string_angle_rad"] += np.where(params["label"] == 2, angle, 0)
    pairs = (("source_x_arcsec", "source_y_arcsec", 1), ("shear_1", "shear_2", 2))  # and its spin
    for x, y, spin in (*pairs, ("subhalo_x_arcsec", "subhalo_y_arcsec", 1)):
        by = spin * angle.reshape(-1, *[1] * (params[x].ndim - 1))
        turned[x] = np.cos(by) * params[x] - np.sin(by) * params[y]
        turned[y] = np.sin(by) * params[x] + np.cos(by) * params[y]
    return turned


def _uniforms(seed: list[int], first: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers (n, ...) of the rows from `first`, as if all rows before had been drawn."""
    rng = np.random.default_rng(seed)
    rng.bit_generator.advance(first * int(np.prod(shape[1:])))  # one step a number
    return rng.random(shape)


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
    """Point masses with dN/dM ~ M^slope, uniform in radius and in azimuth over the annulus.

    `mine` marks the rows that get some.
    """
    from scipy.stats import poisson

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

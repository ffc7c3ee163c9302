"""Lenses in three colours, the lens galaxy's own light among them: a red lens, blue arcs.

The light of `simulate`, which is the source's, becomes three bands g, r and i. The lens galaxy is
an elliptical at the centre of its mass, with the same axis ratio and orientation. Each band has its
own Poisson counts and background; an RGB picture shows i, r and g (Lupton et al. 2004).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy.special import ndtri

from .population import log_uniform
from .simulate import blur, observe, rays, render
from .survey import Survey

BANDS = ("g", "r", "i")
# Raise it when the same truth, survey and seed would give other pictures.
VERSION = 1
LENS_SERSIC_INDEX = 4.0  # de Vaucouleurs (1948)
CUSP_RAYS = 4
LENS_RADIUS = (0.3, 0.7)  # half-light radius, in Einstein radii
LENS_AMPLITUDE_CPS = (1.0, 4.0)  # in r, per pixel at the half-light radius; log-uniform
COLOURS_MAG = {  # (mean, scatter), as observed
    "lens_g_r_mag": (1.7, 0.1),  # an elliptical at z = 0.5 (Eisenstein et al. 2001)
    "lens_r_i_mag": (0.8, 0.05),
    "source_g_r_mag": (0.1, 0.15),  # a galaxy that forms stars, at z = 1
    "source_r_i_mag": (0.1, 0.1),
}
WEIGHTS = (1.9, 1.0, 0.7)  # of g, r and i in a picture: a galaxy between red and blue is white
STRETCH_CPS = 4.0  # below it a picture is about linear in the light
SOFTENING = 8.0

LIGHTS = np.dtype(
    [
        ("lens_radius_arcsec", "f8"),  # product-averaged half-light radius
        ("lens_amplitude_cps", "f8"),  # in r, per pixel at that radius
        ("lens_g_r_mag", "f8"),
        ("lens_r_i_mag", "f8"),
        ("source_g_r_mag", "f8"),
        ("source_r_i_mag", "f8"),
    ]
)


def sample_lights(params: np.ndarray, seed: int = 0) -> np.ndarray:
    """Brightness and colours that the truth `params` (n,) leaves open: (n,), dtype `LIGHTS`.

    Row i depends on the seed and on i alone.
    """
    u = np.random.default_rng([seed, 5]).random((len(params), 6)).T
    lights = np.zeros(len(params), LIGHTS)
    ratio = LENS_RADIUS[0] + (LENS_RADIUS[1] - LENS_RADIUS[0]) * u[0]
    lights["lens_radius_arcsec"] = ratio * params["einstein_radius_arcsec"]
    lights["lens_amplitude_cps"] = log_uniform(u[1], LENS_AMPLITUDE_CPS)
    for name, (mean, scatter), row in zip(COLOURS_MAG, COLOURS_MAG.values(), u[2:], strict=True):
        lights[name] = mean + scatter * ndtri(row)
    return lights


def fluxes(lights: np.ndarray, galaxy: str) -> np.ndarray:
    """Flux of "lens" or "source" in each of `BANDS`, in units of that in r: (n, 3).

    A colour is a difference of magnitudes, -2.5 log10 of the ratio of fluxes.
    """
    g = 10 ** (-0.4 * lights[f"{galaxy}_g_r_mag"])
    i = 10 ** (0.4 * lights[f"{galaxy}_r_i_mag"])
    return np.stack([g, np.ones(len(lights)), i], 1)


@torch.no_grad()
def lens_light(params: np.ndarray, lights: np.ndarray, survey: Survey) -> torch.Tensor:
    """The lens galaxies in r: (n, H, W), float32, counts/s/pixel.

    `CUSP_RAYS` a pixel side follow the steep light of the core.
    """
    from caustics.light import func

    survey = replace(survey, supersampling=max(survey.supersampling, CUSP_RAYS))
    x, y = rays(survey, "cpu")

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32)[:, None, None]

    ratio = column(params["lens_axis_ratio"])
    index = torch.full_like(ratio, LENS_SERSIC_INDEX)
    light = func.brightness_sersic(
        torch.zeros_like(ratio),
        torch.zeros_like(ratio),
        ratio,
        column(params["lens_angle_rad"]),
        index,
        column(lights["lens_radius_arcsec"]) / ratio.sqrt(),
        column(lights["lens_amplitude_cps"]),
        x,
        y,
        func.k_sersic(index),
    )
    return blur(light[:, None], survey)[:, 0]


def render_bands(
    params: np.ndarray, survey: Survey, lights: np.ndarray, chunk: int = 64
) -> torch.Tensor:
    """Noiseless images of lens and source in `BANDS`: (n, 3, H, W), float32, counts/s/pixel."""
    bands = []
    for start in range(0, len(params), chunk):
        part = slice(start, start + chunk)
        source = render(params[part], survey)
        lens = lens_light(params[part], lights[part], survey)
        total = 0
        for name, light in (("source", source), ("lens", lens)):
            flux = torch.from_numpy(fluxes(lights[part], name)).float()
            total = total + flux[:, :, None, None] * light[:, None]
        bands.append(total)
    return torch.cat(bands)


def observe_bands(
    bands: torch.Tensor, params: np.ndarray, survey: Survey, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Noisy images of bands (n, 3, H, W), as `simulate.observe` makes them, each with its noise."""
    seen = []
    for number in range(len(BANDS)):
        own = seed + 1_000 * (number + 1)
        seen.append(observe(bands[:, number], params, survey, own, first))
    return np.stack(seen, 1)


def picture(bands: np.ndarray) -> np.ndarray:
    """An RGB picture (3, H, W), float32 in [0, 1], of the bands g, r, i (3, H, W), counts/s/pixel.

    Lupton et al. 2004, eq. 2: an asinh of the total light, and the colours as they are.
    """
    from astropy.visualization import LuptonAsinhStretch, make_lupton_rgb  # as in `population`

    g, r, i = (weight * band for weight, band in zip(WEIGHTS, bands, strict=True))
    stretch = LuptonAsinhStretch(stretch=STRETCH_CPS, Q=SOFTENING)
    rgb = make_lupton_rgb(i, r, g, stretch_object=stretch, output_dtype=np.uint8)
    return rgb.transpose(2, 0, 1).astype(np.float32) / 255


def simulate_colour(
    params: np.ndarray, survey: Survey, seed: int = 0, chunk: int = 128, noiseless: bool = False
) -> Iterator[np.ndarray]:
    """Yield RGB pictures of `params`, observed or noiseless, (<= chunk, 3, H, W) at a time."""
    lights = sample_lights(params, seed)
    for start in range(0, len(params), chunk):
        part = slice(start, start + chunk)
        bands = render_bands(params[part], survey, lights[part])
        if not noiseless:
            bands = observe_bands(bands, params[part], survey, seed, start)
        yield np.stack([picture(one) for one in np.asarray(bands)])

"""Lens modelling: the parameters of a lens from its image, as astronomers measure them.

    found = fit(images, survey)  # images (n, 1, H, W) in [0, 1], noisy or not
    found.values[:, 0], found.rms  # Einstein radii in arcsec; what the fit leaves over

A least-squares fit of the simulation, by Levenberg and Marquardt's method
(`caustics.utils.batch_lm`). The model has no substructure. The fit starts from the image alone: it
does not know what a model was conditioned on.

Image and model are both brought to mean 0 and norm 1: the least squares of these have their minimum
where those of the image have it, with amplitude and sky solved for. So there are ten parameters,
the seven of `parameters.NAMES` and the three of `SOURCE`, and none of them has a limit in the fit:
`bounded` leads to what is a lens at all.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import MetricError
from . import measure, simulate
from .survey import Survey

SOURCE = ("ln of the source's radius in arcsec", "source ellipticity e1", "source ellipticity e2")
ROUND = 0.01  # least ellipticity of a start: a circle has no slope by its angle
DAMPING = 1.0  # of the first step


@dataclass(frozen=True)
class Fit:
    """What a fit of n images found.

    `values` (n, 7) are as `parameters.NAMES` has them, `source` (n, 3) as in `SOURCE`, and `rms`
    (n,) is what is left over, in peaks.
    """

    values: np.ndarray
    source: np.ndarray
    rms: np.ndarray


def _limits(survey: Survey) -> list[tuple[int, int, float, float]]:
    """(first, last, centre, most) of each parameter or pair: |p - centre| < most."""
    half = survey.pixels * survey.pixel_arcsec / 2
    small = np.log(0.02)
    large = np.log(half / 2)
    return [
        (0, 1, (half + 0.1) / 2, (half - 0.1) / 2),  # Einstein radius
        (1, 3, 0.0, 0.45),  # ellipticity
        (3, 4, 0.0, half),  # source x
        (4, 5, 0.0, half),  # source y
        (5, 7, 0.0, 0.25),  # shear
        (7, 8, (large + small) / 2, (large - small) / 2),  # ln of the source's radius
        (8, 10, 0.0, 0.6),  # ellipticity of the source
    ]


def bounded(free: Tensor, survey: Survey) -> Tensor:
    """Parameters (..., 10) within their limits, of numbers without: t / sqrt(1 + t^2 / most^2)."""
    parts = []
    for first, last, centre, most in _limits(survey):
        t = free[..., first:last]
        parts.append(centre + t / (1 + (t / most).square().sum(-1, keepdim=True)).sqrt())
    return torch.cat(parts, -1)


def freed(p: Tensor, survey: Survey) -> Tensor:
    """The inverse of `bounded`; what is at a limit or beyond is first brought just within."""
    parts = []
    for first, last, centre, most in _limits(survey):
        t = (p[..., first:last] - centre) / most
        t = t * (0.99 / t.norm(dim=-1, keepdim=True).clamp(min=0.99))
        parts.append(most * t / (1 - t.square().sum(-1, keepdim=True)).sqrt())
    return torch.cat(parts, -1)


def _ellipse(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """(axis ratio, orientation) of an ellipticity."""
    modulus = (e1**2 + e2**2 + 1e-12).sqrt()
    return (1 - modulus) / (1 + modulus), torch.atan2(e2, e1) / 2


@functools.lru_cache
def _blur_matrix(survey: Survey) -> Tensor:
    """What `simulate.blur` does along one axis, (pixels, rays): it is separable, and a product."""
    side = survey.pixels * survey.supersampling
    lines = torch.eye(side, dtype=torch.float64)[:, None, :, None].expand(-1, 1, -1, side)
    return simulate.blur(lines, survey)[:, 0, :, 0].T.contiguous()


def _light(p: Tensor, survey: Survey) -> Tensor:
    """Noiseless light (H W,) of one lens (10,), of amplitude 1, which torch can differentiate."""
    from caustics import func  # here, since it takes a second

    radius, e1, e2, x0, y0, shear_1, shear_2, ln_size, s1, s2 = p
    x, y = (axis[0].to(p) for axis in simulate.rays(survey, p.device))
    q, angle = _ellipse(e1, e2)
    core = simulate.CORE_ARCSEC
    ax, ay = func.reduced_deflection_angle_sie(0.0, 0.0, q, angle, radius, x, y, core)
    bx, by = func.reduced_deflection_angle_external_shear(0.0, 0.0, shear_1, shear_2, x, y)
    q, angle = _ellipse(s1, s2)
    index = torch.full_like(radius, survey.source_sersic_index)
    k = (func.k_lenstronomy if survey.use_lenstronomy_k else func.k_sersic)(index)
    size = ln_size.exp() / q.sqrt()
    light = func.brightness_sersic(x0, y0, q, angle, index, size, 1.0, x - ax - bx, y - ay - by, k)
    blur = _blur_matrix(survey).to(p)
    return (blur @ light @ blur.T).flatten()


def light_of(p: np.ndarray, survey: Survey) -> np.ndarray:
    """Noiseless light (n, H W), float64, of the lenses with parameters (n, 10), of amplitude 1."""
    return torch.vmap(lambda one: _light(one, survey))(torch.as_tensor(p).double()).numpy()


def scaled(light: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude and sky (n, 2) that bring light (n, m) nearest to the target (n, m).

    The second result is what is left, (n, m). The problem is linear, and so solved exactly.
    """
    mean_light = light.mean(1, keepdims=True)
    mean_target = target.mean(1, keepdims=True)
    shape = light - mean_light
    wanted = target - mean_target
    norm = np.maximum((shape * shape).sum(1, keepdims=True), 1e-12)
    amplitude = (shape * wanted).sum(1, keepdims=True) / norm
    return np.hstack([amplitude, mean_target - amplitude * mean_light]), wanted - amplitude * shape


def first_guess(images: np.ndarray, survey: Survey) -> np.ndarray:
    """Parameters (n, 10) read off the ridge of each image; lens and source are round, no shear.

    The ridge of a round lens with a source at (x, y) has the radius theta_E + x cos(phi) +
    y sin(phi) at azimuth phi (notebook 13 derives it; the ridge of an Einstein ring is that of
    Kochanek, Keeton & McLeod 2001). Each ray counts by its brightness.
    """
    light, _ = measure.above_sky(images, survey.pixel_arcsec)
    rays, radii = measure.polar(measure.smooth(light, survey.pixel_arcsec), survey.pixel_arcsec)
    angle = 2 * np.pi * np.arange(rays.shape[1]) / rays.shape[1]
    basis = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], 1)
    p = np.zeros((len(images), 10))
    for row, ray in zip(p, rays, strict=True):
        weight = ray.max(1).clip(0.02, None)
        ridge = radii[ray.argmax(1)]
        system = (basis * weight[:, None]).T @ basis + 1e-3 * np.diag([0, 1, 1]) * weight.sum()
        row[[0, 3, 4]] = np.linalg.solve(system, basis.T @ (weight * ridge))
    p[:, 7] = np.log(0.2)
    return bounded(freed(torch.as_tensor(p), survey), survey).numpy()


def _unit(light: Tensor) -> Tensor:
    """Light (..., m) with a mean of 0 and a norm of 1."""
    light = light - light.mean(-1, keepdim=True)
    return light / (light.norm(dim=-1, keepdim=True) + 1e-12)


def _checked(images: np.ndarray, survey: Survey) -> np.ndarray:
    images = np.array(images, np.float32)  # a memory map can't be written, and torch warns of it
    size = (1, survey.pixels, survey.pixels)
    if images.shape[1:] != size or not len(images):
        needs = f"a fit needs those of the survey, (n, 1, {survey.pixels}, {survey.pixels})"
        raise MetricError(f"Images of shape {images.shape}: {needs}.")
    if not (images.min() >= -1e-3 and images.max() <= 1.001):  # NaN, too, is not between them
        span = f"Pixels from {images.min():.3g} to {images.max():.3g}"
        raise MetricError(f"{span}: a fit needs [0, 1]. Divide bytes by 255.")
    constant = np.flatnonzero(np.ptp(images, (1, 2, 3)) == 0)
    if len(constant):
        raise MetricError(
            f"Image {constant[0]} is constant: there is no lens to fit. Leave it out."
        )
    return images


@torch.no_grad()
def fit(
    images: np.ndarray,
    survey: Survey,
    rounds: int = 25,
    start: np.ndarray | None = None,
    chunk: int = 8,
) -> Fit:
    """Fit an isothermal ellipsoid, shear and one Sersic source to images (n, 1, H, W) in [0, 1].

    It starts from `first_guess`, or from `start` (n, 10). Raises MetricError for no image, images
    of another size than the survey's, pixels outside [0, 1] or not finite, constant images.
    """
    from caustics.utils import batch_lm

    images = _checked(images, survey)
    start = first_guess(images, survey) if start is None else np.array(start, float)
    for pair in (start[:, 1:3], start[:, 8:]):
        pair[np.hypot(pair[:, 0], pair[:, 1]) < ROUND] = ROUND
    target = torch.as_tensor(images.reshape(len(images), -1))
    free = freed(torch.as_tensor(start), survey).float()

    def model(one: Tensor) -> Tensor:
        return _unit(_light(bounded(one, survey), survey))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, at its first derivative
        for rows in torch.arange(len(images)).split(chunk):
            unit = _unit(target[rows])
            free[rows] = batch_lm(free[rows], unit, model, L=DAMPING, max_iter=rounds)[0]
    found = bounded(free, survey).double().numpy()
    left = np.empty(target.shape)
    for first in range(0, len(found), chunk):  # all at once would take gigabytes
        part = slice(first, first + chunk)
        left[part] = scaled(light_of(found[part], survey), target[part].double().numpy())[1]
    return Fit(found[:, :7], found[:, 7:], np.sqrt((left**2).mean(1)))

"""Lens modelling: the parameters of a lens from its image, by a least-squares fit of the
simulation, as astronomers measure them.

    found = fit(images, survey)                  # images (n, 1, H, W) in [0, 1], noisy or not
    found.values[:, 0], found.rms                # Einstein radii in arcsec; what the fit leaves over

The model has no substructure. The fit starts from the image alone: it knows nothing of what was
asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import MetricError
from . import measure as physics
from . import parameters as conditions
from . import simulate as sim
from .parameters import ellipticity
from .survey import Survey

SOURCE = ("ln of the source's radius in arcsec", "source ellipticity e1", "source ellipticity e2")
# of the finite differences, for NAMES and SOURCE
STEPS = np.array([2e-3, 2e-3, 2e-3, 2e-3, 2e-3, 1e-3, 1e-3, 1e-2, 1e-2, 1e-2])
# largest modulus of the pairs that begin there: ellipticity, shear, source ellipticity
LIMITS = {1: 0.45, 5: 0.25, 8: 0.6}


@dataclass(frozen=True)
class Fit:
    """`values` (n, 7) as `conditions.NAMES` has them, the source's (n, 3) as in `SOURCE`, and
    what is left over, (n,): rms in peaks.
    """

    values: np.ndarray
    source: np.ndarray
    rms: np.ndarray


def _truth(p: np.ndarray, survey: Survey) -> np.ndarray:
    """Rows of simulate.PARAMS of the parameters (n, 10)."""
    like = np.zeros(len(p), sim.PARAMS)
    modulus = np.hypot(p[:, 8], p[:, 9])
    like["source_radius_arcsec"] = np.exp(p[:, 7])
    like["source_axis_ratio"] = (1 - modulus) / (1 + modulus)
    like["source_angle_rad"] = 0.5 * np.arctan2(p[:, 9], p[:, 8])
    like["source_sersic_index"] = survey.source_sersic_index
    like["source_amplitude_cps"] = 1.0
    like["exposure_s"] = 1.0
    return conditions.lens(p[:, :7], like)


def limited(p: np.ndarray, survey: Survey) -> np.ndarray:
    """Parameters (n, 10) back inside what is a lens at all."""
    p = p.copy()
    half = survey.pixels * survey.pixel_arcsec / 2
    p[:, 0] = p[:, 0].clip(0.1, half)
    p[:, 7] = p[:, 7].clip(np.log(0.02), np.log(half / 2))
    p[:, 3:5] = p[:, 3:5].clip(-half, half)
    for first, most in LIMITS.items():
        pair = p[:, first : first + 2]
        p[:, first : first + 2] = (
            pair * np.minimum(1, most / np.maximum(np.hypot(*pair.T), 1e-9))[:, None]
        )
    return p


def light_of(p: np.ndarray, survey: Survey) -> np.ndarray:
    """Noiseless light (n, H W), float64, of the lenses with parameters (n, 10), for an amplitude
    of 1.
    """
    return sim.render(_truth(p, survey), survey).double().numpy().reshape(len(p), -1)


def scaled(light: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude and sky (n, 2) that bring light (n, m) nearest to the target (n, m), and what is
    left (n, m): linear, so solved exactly.
    """
    mean_l = light.mean(1, keepdims=True)
    mean_t = target.mean(1, keepdims=True)
    shape = light - mean_l
    wanted = target - mean_t
    amplitude = (shape * wanted).sum(1, keepdims=True) / np.maximum(
        (shape * shape).sum(1, keepdims=True), 1e-12
    )
    return np.hstack([amplitude, mean_t - amplitude * mean_l]), wanted - amplitude * shape


def first_guess(images: np.ndarray, survey: Survey) -> np.ndarray:
    """Parameters (n, 10) read off the ridge of each image: for a round lens its radius at azimuth
    phi is theta_E + x cos(phi) + y sin(phi).

    (Schneider, Kochanek & Wambsganss 2006, part 2, eq. 25, for a source at (x, y).) Each ray counts
    by its brightness. Lens and source start round, without shear.
    """
    light, _ = physics.above_sky(images, survey.pixel_arcsec)
    rays, radii = physics.polar(physics.smooth(light, survey.pixel_arcsec), survey.pixel_arcsec)
    angle = 2 * np.pi * np.arange(rays.shape[1]) / rays.shape[1]
    basis = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], 1)
    p = np.zeros((len(images), 10))
    for row, ray in zip(p, rays, strict=True):
        weight = ray.max(1).clip(0.02, None)
        ridge = radii[ray.argmax(1)]
        system = (basis * weight[:, None]).T @ basis + 1e-3 * np.diag([0, 1, 1]) * weight.sum()
        row[[0, 3, 4]] = np.linalg.solve(system, basis.T @ (weight * ridge))
    p[:, 7] = np.log(0.2)
    return limited(p, survey)


def _slopes(p: np.ndarray, light: np.ndarray, survey: Survey) -> np.ndarray:
    """How the light (n, m) changes with each parameter, (n, m, 10), by finite differences."""
    changes = []
    for column, step in enumerate(STEPS):
        moved = p.copy()
        moved[:, column] += step
        changes.append((light_of(moved, survey) - light) / step)
    return np.stack(changes, 2)


def _proposal(
    slopes: np.ndarray, left: np.ndarray, linear: np.ndarray, light: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Steps (n, 10) of Levenberg and Marquardt, the damping in proportion to the diagonal
    (Marquardt 1963); amplitude and sky are free.
    """
    ones = np.ones_like(light)
    system = np.concatenate([slopes * linear[:, :1, None], light[:, :, None], ones[:, :, None]], 2)
    normal = system.transpose(0, 2, 1) @ system
    right = system.transpose(0, 2, 1) @ left[:, :, None]
    diagonal = np.einsum("nii->ni", normal)
    # not amplitude and sky, which `scaled` finds anew after each step
    damped_ones = np.arange(normal.shape[1]) < slopes.shape[2]
    damped = (
        normal
        + np.eye(normal.shape[1]) * (diagonal * damping[:, None] * damped_ones + 1e-9)[:, :, None]
    )
    return np.linalg.solve(damped, right)[:, :10, 0]


def _descend(
    p: np.ndarray, target: np.ndarray, survey: Survey, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (n, 10) and the sum of squares that is left (n,), after `rounds` steps, each
    taken only where it helps.
    """
    light = light_of(p, survey)
    damping = np.full(len(p), 1e-2)
    linear, left = scaled(light, target)
    for _ in range(rounds):
        tried = limited(
            p + _proposal(_slopes(p, light, survey), left, linear, light, damping), survey
        )
        new_light = light_of(tried, survey)
        new_linear, new_left = scaled(new_light, target)
        better = (new_left**2).sum(1) < (left**2).sum(1)
        damping = np.where(better, damping / 5, damping * 5).clip(1e-7, 1e4)
        p, light, linear, left = (
            np.where(better[:, None], new, old)
            for new, old in ((tried, p), (new_light, light), (new_linear, linear), (new_left, left))
        )
    return p, (left**2).sum(1)


def fit(
    images: np.ndarray,
    survey: Survey,
    rounds: int = 25,
    start: np.ndarray | None = None,
    chunk: int = 64,
) -> Fit:
    """Fit an isothermal ellipsoid with shear and one Sersic source to each image (n, 1, H, W) in
    [0, 1].

    It starts from `first_guess`, or from `start` (n, 10). Raises MetricError for no image, images
    of another size than the survey's, pixels outside [0, 1] or not finite, constant images.
    """
    images = np.asarray(images, np.float32)
    if images.shape[1:] != (1, survey.pixels, survey.pixels) or not len(images):
        raise MetricError(
            f"Images of shape {images.shape}: a fit needs those of the survey, (n, 1, "
            f"{survey.pixels}, {survey.pixels})."
        )
    if not (images.min() >= -1e-3 and images.max() <= 1.001):  # NaN, too, is not between them
        raise MetricError(
            f"Pixels from {images.min():.3g} to {images.max():.3g}: a fit needs [0, 1]. Divide "
            "bytes by 255."
        )
    start = (
        first_guess(images, survey) if start is None else limited(np.asarray(start, float), survey)
    )
    found = np.empty_like(start)
    left = np.empty(len(images))
    for rows in np.array_split(np.arange(len(images)), max(1, -(-len(images) // chunk))):
        target = images[rows].reshape(len(rows), -1).astype(np.float64)
        found[rows], left[rows] = _descend(start[rows], target, survey, rounds)
    return Fit(found[:, :7], found[:, 7:], np.sqrt(left / images[0].size))


def parameters(truth: np.ndarray) -> np.ndarray:
    """The parameters (n, 10) that a fit of the lenses `truth` (n,), dtype simulate.PARAMS,
    should find.
    """
    e1, e2 = ellipticity(truth["source_axis_ratio"], truth["source_angle_rad"])
    return np.column_stack([conditions.of(truth), np.log(truth["source_radius_arcsec"]), e1, e2])

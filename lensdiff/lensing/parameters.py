"""Lens parameters that a network is conditioned on: how they turn, and the way back to a lens."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .population import PARAMS
from .survey import Survey

# each parameter: (words, unit, centre, scale); a network sees (value - centre) / scale
NAMES = {
    "einstein_radius_arcsec": ("Einstein radius", "arcsec", 1.25, 0.4),
    "lens_e1": ("ellipticity e₁", "", 0.0, 0.13),
    "lens_e2": ("ellipticity e₂", "", 0.0, 0.13),
    "source_x_arcsec": ("source x", "arcsec", 0.0, 0.4),
    "source_y_arcsec": ("source y", "arcsec", 0.0, 0.4),
    "shear_1": ("shear γ₁", "", 0.0, 0.05),
    "shear_2": ("shear γ₂", "", 0.0, 0.05),
}
# of radius, ellipticity, source and shear: how many times as fast as its image each turns
SPINS = (0, 2, 1, 2)
_CENTRE, _SCALE = (np.array([about[i] for about in NAMES.values()], np.float32) for i in (2, 3))


def ellipticity(
    axis_ratio: np.ndarray | float, angle_rad: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """(e1, e2) = (1 - q) / (1 + q) (cos 2 phi, sin 2 phi): no jump at q = 1 or at phi = pi.

    Bartelmann & Schneider 2001, eq. 4.10.
    """
    modulus = (1 - np.asarray(axis_ratio)) / (1 + np.asarray(axis_ratio))
    return modulus * np.cos(2 * np.asarray(angle_rad)), modulus * np.sin(2 * np.asarray(angle_rad))


def of(truth: np.ndarray) -> np.ndarray:
    """The values of `NAMES`, (n, 7), float32, of the truth (n,) of lenses, dtype PARAMS."""
    e1, e2 = ellipticity(truth["lens_axis_ratio"], truth["lens_angle_rad"])
    given = {"lens_e1": e1, "lens_e2": e2}
    columns = [given[name] if name in given else truth[name] for name in NAMES]
    return np.stack(columns, 1).astype(np.float32)


def encode(values: np.ndarray) -> np.ndarray:
    """Values (n, 7) in their units to the network's, about -2 to 2.

    NaN, the null condition, stays NaN.
    """
    return (np.asarray(values, np.float32) - _CENTRE) / _SCALE


def turned(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Values (n, 7) of images that are turned by the elements `which` (n,) of the eight symmetries.

    Element k is k % 4 quarter turns, then a mirror where k >= 4 (`data.images.symmetry`). A quarter
    turn takes (x, y) to (y, -x), and an ellipticity or a shear, which has spin 2, to minus itself;
    the mirror takes x to -x and the second component of spin 2 to minus itself.
    """
    radius, e1, e2, x, y, g1, g2 = np.asarray(values).T
    turns = np.asarray(which) % 4
    mirror = np.where(np.asarray(which) >= 4, -1, 1)
    sign = np.where(turns % 2, -1, 1)
    new_x = mirror * np.choose(turns, [x, y, -x, -y])
    new_y = np.choose(turns, [y, -x, -y, x])
    both = mirror * sign
    return np.stack([radius, sign * e1, both * e2, new_x, new_y, sign * g1, both * g2], 1)


def lens(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The truth (n,), dtype PARAMS, of the lenses with these values (n, 7).

    What is not among them (the source's shape, the exposure) is that of `like`, (1,) or (n,). They
    have no substructure. Raises DataError for an ellipticity of 1 or more.
    """
    values = np.asarray(values, float)
    radius, e1, e2, x, y, g1, g2 = values.T
    modulus = np.hypot(e1, e2)
    if (modulus >= 1).any():
        raise DataError(f"An ellipticity of {modulus.max():.2g} is no ellipse: it must be below 1.")
    truth = np.zeros(len(values), PARAMS)
    source = ("radius_arcsec", "axis_ratio", "angle_rad", "sersic_index", "amplitude_cps")
    for name in (*(f"source_{word}" for word in source), "exposure_s"):
        truth[name] = like[name]
    truth["einstein_radius_arcsec"] = radius
    truth["source_x_arcsec"] = x
    truth["source_y_arcsec"] = y
    truth["lens_axis_ratio"] = (1 - modulus) / (1 + modulus)
    truth["lens_angle_rad"] = 0.5 * np.arctan2(e2, e1)
    truth["shear_1"] = g1
    truth["shear_2"] = g2
    return truth


def outside(values: np.ndarray, survey: Survey) -> list[str]:
    """What of values (n, 7) no lens of the survey has, in words: there a network is untrained.

    A survey whose radii follow from the mass has no range of them.
    """
    radius, e1, e2, x, y, g1, g2 = np.asarray(values, float).T
    low, high = survey.einstein_radius_arcsec or (-np.inf, np.inf)
    least = survey.lens_axis_ratio[0]
    found = []
    if (radius < low).any() or (radius > high).any():
        found.append(f"an Einstein radius outside {low:g} to {high:g} arcsec")
    if (np.hypot(e1, e2) > (1 - least) / (1 + least) + 1e-6).any():
        found.append(f"an axis ratio below {least:g}")
    near, far = survey.source_offset
    if survey.source_square:
        if (np.minimum(x, y) < near - 1e-6).any() or (np.maximum(x, y) > far + 1e-6).any():
            found.append(f"a source outside {near:g} to {far:g} arcsec in x or y")
    elif (np.hypot(x, y) > far * radius + 1e-6).any():
        found.append(f"a source farther than {far:g} Einstein radii from the lens")
    if (np.hypot(g1, g2) > survey.shear[1] + 1e-6).any():
        found.append(f"a shear above {survey.shear[1]:g}")
    return found

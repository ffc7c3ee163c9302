"""What a conditional network is told: a class, or lens parameters, how a flip or a turn changes
them, and the way back to a lens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..data.images import ImageSet
from ..errors import DataError, TrainingError
from . import simulate as sim
from .survey import Survey

# what is asked for: (words, unit, centre, scale); a network sees (value - centre) / scale
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
    """(e1, e2) = (1 - q) / (1 + q) (cos 2 phi, sin 2 phi) (Bartelmann & Schneider 2001, eq.
    4.10): no jump at q = 1 or at phi = pi.
    """
    modulus = (1 - np.asarray(axis_ratio)) / (1 + np.asarray(axis_ratio))
    return modulus * np.cos(2 * np.asarray(angle_rad)), modulus * np.sin(2 * np.asarray(angle_rad))


def of(truth: np.ndarray) -> np.ndarray:
    """The values of `NAMES`, (n, 7), float32, of the truth (n,) of simulated lenses, dtype
    simulate.PARAMS.
    """
    e1, e2 = ellipticity(truth["lens_axis_ratio"], truth["lens_angle_rad"])
    given = {"lens_e1": e1, "lens_e2": e2}
    return np.stack([given[name] if name in given else truth[name] for name in NAMES], 1).astype(
        np.float32
    )


def encode(values: np.ndarray) -> np.ndarray:
    """Values (n, 7) in their units to the network's, about -2 to 2.

    NaN, the null condition, stays NaN.
    """
    return (np.asarray(values, np.float32) - _CENTRE) / _SCALE


def turned(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Values (n, 7) of images that `train.symmetry` turns by element `which` (n,): k % 4 quarter
    turns, then a mirror where k >= 4.

    A quarter turn takes (x, y) to (y, -x), and an ellipticity or a shear, which has spin 2, to
    minus itself; the mirror takes x to -x and the second component of spin 2 to minus itself.
    """
    radius, e1, e2, x, y, g1, g2 = np.asarray(values).T
    turns = np.asarray(which) % 4
    mirror = np.where(np.asarray(which) >= 4, -1, 1)
    sign = np.where(turns % 2, -1, 1)
    x, y = np.choose(turns, [x, y, -x, -y]), np.choose(turns, [y, -x, -y, x])
    return np.stack(
        [radius, sign * e1, mirror * sign * e2, mirror * x, y, sign * g1, mirror * sign * g2], 1
    )


def lens(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The truth (n,) of the lenses with these values (n, 7); all that is not asked for (source,
    exposure) is that of `like` (1,) or (n,).

    They have no substructure. Raises DataError for an ellipticity of 1 or more.
    """
    values = np.asarray(values, float)
    radius, e1, e2, x, y, g1, g2 = values.T
    modulus = np.hypot(e1, e2)
    if (modulus >= 1).any():
        raise DataError(f"An ellipticity of {modulus.max():.2g} is no ellipse: it must be below 1.")
    truth = np.zeros(len(values), sim.PARAMS)
    for name in (
        f"source_{word}"
        for word in ("radius_arcsec", "axis_ratio", "angle_rad", "sersic_index", "amplitude_cps")
    ):
        truth[name] = like[name]
    truth["exposure_s"] = like["exposure_s"]
    truth["einstein_radius_arcsec"] = radius
    truth["source_x_arcsec"] = x
    truth["source_y_arcsec"] = y
    truth["lens_axis_ratio"] = (1 - modulus) / (1 + modulus)
    truth["lens_angle_rad"] = 0.5 * np.arctan2(e2, e1)
    truth["shear_1"] = g1
    truth["shear_2"] = g2
    return truth


def outside(values: np.ndarray, survey: Survey) -> list[str]:
    """What of values (n, 7) no lens of the survey has, in words: there a network has learnt
    nothing.
    """
    radius, e1, e2, x, y, g1, g2 = np.asarray(values, float).T
    low, high = survey.einstein_radius_arcsec
    least = survey.lens_axis_ratio[0]
    found = []
    if (radius < low).any() or (radius > high).any():
        found.append(f"an Einstein radius outside {low:g} to {high:g} arcsec")
    if (np.hypot(e1, e2) > (1 - least) / (1 + least) + 1e-6).any():
        found.append(f"an axis ratio below {least:g}")
    if (np.hypot(x, y) > survey.source_offset[1] * radius + 1e-6).any():
        found.append(
            f"a source farther than {survey.source_offset[1]:g} Einstein radii from the lens"
        )
    if (np.hypot(g1, g2) > survey.shear[1] + 1e-6).any():
        found.append(f"a shear above {survey.shear[1]:g}")
    return found


def labels_for(net: nn.Module | None, images: ImageSet) -> np.ndarray | None:
    """What a conditional network is told of each image: its class (n,), or the values of `NAMES`
    (n, 7); None for another.

    Raises TrainingError where the images have no such labels, not one for each image, or other ones
    than the network knows.
    """
    classes = getattr(net, "classes", 0)
    count = getattr(net, "conditions", 0)
    if not classes and not count:
        return None
    labels = images.labels if classes else images.truth
    if labels is None:
        needs = "is conditioned on lens parameters. Simulate lenses"
        needs = f"has {classes} classes. Use class folders or classes=0" if classes else needs
        raise TrainingError(f"{images.name} has no labels, but the network {needs}.")
    if len(labels) != len(images):
        raise TrainingError(
            f"{images.name}: {len(labels)} labels for {len(images)} images. Give one for each."
        )
    if count and count != len(NAMES):
        known = f"{len(NAMES)}: {', '.join(NAMES)}"
        raise TrainingError(f"The network is conditioned on {count} numbers; lenses give {known}.")
    if classes and (labels.min() < 0 or labels.max() >= classes):
        span = f"up to {labels.max()}" if labels.max() >= classes else f"down to {labels.min()}"
        raise TrainingError(
            f"{images.name} has labels {span}, but the network has only {classes} classes, 0 to "
            f"{classes - 1}."
        )
    return labels if classes else of(labels)


def told(labels: np.ndarray, which: np.ndarray) -> Tensor:
    """Labels as a network takes them, of images turned by the elements `which` (n,): a class
    stays, lens parameters turn along.
    """
    return torch.from_numpy(labels if labels.ndim == 1 else encode(turned(labels, which)))

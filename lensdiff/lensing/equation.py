"""The lens equation, solved: how many images of its source's centre a lens makes."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import ParameterError
from .simulate import deflection
from .survey import Survey

CELLS = 300  # along a side of the field
OFF_CENTRE = 0.137  # of a cell: no corner on an axis of the lens, where sources may lie exactly
CHUNK = 32  # lenses at once


def count_images(params: np.ndarray, survey: Survey, cells: int = CELLS) -> np.ndarray:
    """Images of the source's centre within the survey's field, (n,), for lenses without clumps.

    The field is cut into `cells` x `cells` squares, each into two triangles. A triangle whose
    corners, traced back to the source plane, surround the source holds an image (the tiling of
    Keeton 2001, astro-ph/0102340). So two images within a cell may be missed; and what lies within
    two cells of the lens's centre, where the direction of an isothermal lens's deflection jumps, is
    not counted. `params` (n,) has dtype `population.PARAMS`. Raises ParameterError for lenses with
    substructure, whose masses make images of their own.
    """
    if (params["label"] != 0).any():
        raise ParameterError("Images are counted of lenses without substructure: those of no_sub.")
    parts = [params[first : first + CHUNK] for first in range(0, len(params), CHUNK)]
    return np.concatenate([_count(part, survey, cells) for part in parts] or [np.zeros(0, int)])


def _count(params: np.ndarray, survey: Survey, cells: int) -> np.ndarray:
    """The same of a few lenses."""
    half = survey.pixels * survey.pixel_arcsec / 2
    axis = torch.linspace(-half, half, cells + 1, dtype=torch.float64)
    axis = axis + OFF_CENTRE * (axis[1] - axis[0])
    x = axis[None, None, :]
    y = axis[None, :, None]
    ax, ay = deflection(params, x, y, survey)
    to_source = [torch.as_tensor(params[f"source_{name}_arcsec"])[:, None, None] for name in "xy"]
    corners = torch.stack([x - ax - to_source[0], y - ay - to_source[1]])
    a = corners[..., :-1, :-1]
    b = corners[..., :-1, 1:]
    c = corners[..., 1:, :-1]
    d = corners[..., 1:, 1:]
    held = _around_origin(a, b, d).int() + _around_origin(a, d, c).int()
    middle = (axis[:-1] + axis[1:]) / 2
    centre = torch.hypot(middle[None, :], middle[:, None]) < 2 * float(axis[1] - axis[0])
    return (held * ~centre).sum((1, 2)).numpy()


def _around_origin(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Whether the triangles with these corners, each (2, ...), hold the origin."""

    def side(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return p[0] * q[1] - p[1] * q[0] > 0

    sides = (side(a, b), side(b, c), side(c, a))
    return (sides[0] == sides[1]) & (sides[1] == sides[2])

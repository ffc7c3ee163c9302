"""What a study keeps of as many images as a card has: its numbers, and what a census measures."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..data.images import ImageSet
from ..errors import ParameterError
from ..model import Model, Sampling
from ..scores.card import ENOUGH, FIRST_SEED, features_key, stored_features
from ..scores.distances import compared
from ..scores.jackknife import excess_errors
from ..scores.statistics import Statistics, as_stored, reference, statistics
from . import census
from .samplers import with_groups

LEAST = 20  # images that a two-sample test needs
BATCH = 64


def check(n: int) -> None:
    """Raise ParameterError for a number of images that can't be measured, or that no card has."""
    if not LEAST <= n <= ENOUGH:
        raise ParameterError(f"-n must be {LEAST} to {ENOUGH:,}, not {n}.")


def halves(n: int) -> tuple[range, range]:
    """The test images of reference and floor."""
    return range(n), range(n, 2 * n)


def scored(drawn: Statistics, first: Statistics, second: Statistics) -> dict:
    """Distance and floor, errors of distance and excess, and the distance without each group."""
    errors = excess_errors(drawn, first, second)
    floor = compared(second, first)
    found = {"floor": floor["distance"], "kid_floor": floor["kid"]}
    found |= {"distance_error": errors.distance, "excess_error": errors.excess}
    return {**with_groups(drawn, first), **found}


def card(model: Model, sampling: Sampling, net: nn.Module, test: ImageSet, n: int) -> dict:
    """`scored` of `n` images with a card's seeds, and their `census`."""
    images = as_stored(model.draw(n, FIRST_SEED, sampling=sampling))
    drawn = statistics(net, torch.from_numpy(images).split(BATCH), n, str(sampling))
    row = scored(drawn, *(reference(net, test, rows) for rows in halves(n)))
    real = as_stored(np.asarray(test.pixels[:n]))
    return row | {"census": census.row(net, images, real, real[: census.HELD_OUT])}


def of_features(model: Model, net: nn.Module, test: ImageSet, n: int) -> dict:
    """`scored` of a model's own sampling, from the features that its card left."""
    kept = stored_features(model.folder, features_key(model, net, model.sampling))
    return scored(Statistics.of(kept.rows[:n]), *(reference(net, test, rows) for rows in halves(n)))


def of_own(model: Model, net: nn.Module, test: ImageSet, n: int) -> dict:
    """`scored` of a model's own sampling, by the features of its card, else a `card` of its own.

    Only the latter has a `census`. Raises MetricError for features of another key.
    """
    if (model.folder / "features.npz").exists():
        return of_features(model, net, test, n)
    return card(model, model.sampling, net, test, n)

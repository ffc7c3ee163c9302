"""Labels of images: what a conditional network learns of each, and whether a classifier can."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, SamplingError, TrainingError
from ..lensing import parameters
from .images import ImageSet

BALANCE = 0.8  # least number of images of a class, over that of the largest


def labels_for(net: nn.Module | None, images: ImageSet) -> np.ndarray | None:
    """Labels of images for a conditional network: classes (n,) or lens parameters (n, 7).

    None for an unconditional one. Raises TrainingError where the images have no such labels, not
    one for each image, or other ones than the network knows.
    """
    classes = getattr(net, "classes", 0)
    count = getattr(net, "conditions", 0)
    if not classes and not count:
        return None
    labels = images.labels if classes else images.truth
    if labels is None:
        needs = "is conditioned on lens parameters. Simulate lenses"
        if classes:
            needs = f"has {classes} classes. Use class folders or classes=0"
        raise TrainingError(f"{images.name} has no labels, but the network {needs}.")
    if len(labels) != len(images):
        counts = f"{len(labels)} labels for {len(images)} images"
        raise TrainingError(f"{images.name}: {counts}. Give one for each.")
    if count and count != len(parameters.NAMES):
        known = f"{len(parameters.NAMES)}: {', '.join(parameters.NAMES)}"
        raise TrainingError(f"The network is conditioned on {count} numbers; lenses give {known}.")
    if classes and (labels.min() < 0 or labels.max() >= classes):
        span = f"up to {labels.max()}" if labels.max() >= classes else f"down to {labels.min()}"
        knows = f"the network has only {classes} classes, 0 to {classes - 1}"
        raise TrainingError(f"{images.name} has labels {span}, but {knows}.")
    return labels if classes else parameters.of(labels)


def network_labels(labels: np.ndarray, which: np.ndarray) -> Tensor:
    """Labels (n,) or (n, 7) as a network takes them, of images turned by elements `which` (n,).

    A class stays what it is; lens parameters turn with their image.
    """
    if labels.ndim == 1:
        return torch.from_numpy(labels.astype(np.int64))
    return torch.from_numpy(parameters.encode(parameters.turned(labels, which)))


def wanted_labels(
    net: nn.Module, names: Sequence[str], wanted: Sequence[str | int] | np.ndarray, who: str
) -> Tensor:
    """Labels as a network takes them, one for each entry of `wanted`; `who` is its model's name.

    `wanted` has names or numbers of classes, (n,), or lens parameters, (n, 7), in the order and
    units of `lensing.parameters.NAMES`. Raises SamplingError for an unconditional network, a class
    that it doesn't know, or values that are not finite.
    """
    if net.conditions:
        return _wanted_parameters(net, wanted, who)
    if not net.classes:
        reason = "is unconditional: it has no classes and no conditions"
        raise SamplingError(f"{who} {reason}. Take a conditional model.")
    numbers = []
    for one in wanted:
        try:
            number = names.index(one) if isinstance(one, str) else operator.index(one)
        except (ValueError, TypeError):  # no such name; no whole number
            number = -1
        if not 0 <= number < net.classes:
            known = f"knows the classes {names}, 0 to {net.classes - 1}"
            raise SamplingError(f"{who} {known}; there is no {one!r}.")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.long)


def check_labels(net: nn.Module, label: Tensor, who: str) -> None:
    """Raise SamplingError for labels that are none of the network's classes, (n,), nor no class."""
    whole = label.ndim == 1 and label.dtype == torch.long
    if net.classes and not (whole and bool(((label >= 0) & (label <= net.classes)).all())):
        known = f"takes whole numbers (n,), 0 to {net.classes - 1}"
        raise SamplingError(f"{who} {known}, as its `labels` gives them; got {label}.")


def _wanted_parameters(net: nn.Module, wanted: np.ndarray, who: str) -> Tensor:
    """Lens parameters (n, 7) as the network takes them."""
    needs = f"{who} takes {net.conditions} finite numbers an image"
    try:
        values = np.asarray(wanted, np.float32)
    except (TypeError, ValueError) as error:  # words, or rows of several lengths
        raise SamplingError(f"{needs}; got {wanted}.") from error
    right_shape = values.shape[1:] == (net.conditions,)
    if not right_shape or not np.isfinite(values).all():
        raise SamplingError(f"{needs}; got an array of {values.shape}.")
    return torch.from_numpy(parameters.encode(values))


def check_classes(images: ImageSet, classes: tuple[str, ...], unbalanced: bool = False) -> None:
    """Raise DataError where a classifier of `classes` can't learn from these images.

    Labels may be missing, not one for each image, out of range, of other classes, or (without
    `unbalanced`) unbalanced.
    """
    if images.labels is None:
        names = ", ".join(classes)
        raise DataError(f"{images.name} has no labels. Put its files into class folders: {names}.")
    if len(images.labels) != len(images):
        counts = f"{len(images.labels)} labels for {len(images)} images"
        raise DataError(f"{images.name}: {counts}. Give one for each.")
    if images.classes and tuple(images.classes) != tuple(classes):
        both = f"has the classes {images.classes}, the classifier {classes}"
        raise DataError(f"{images.name} {both}. Take one that knows them.")
    wrong = np.flatnonzero((images.labels < 0) | (images.labels >= len(classes)))
    if len(wrong):
        label = f"image {wrong[0]} has the label {images.labels[wrong[0]]}"
        raise DataError(f"{images.name}: {label}; there are 0 to {len(classes) - 1}.")
    count = np.bincount(images.labels, minlength=len(classes))
    counts = ", ".join(f"{n} {name}" for n, name in zip(count, classes, strict=True))
    if not count.all():
        raise DataError(f"{images.name} lacks a class: {counts}. Add its folder.")
    if not unbalanced and count.min() < BALANCE * count.max():
        cure = "Take data.labels.balanced(images), or say unbalanced=True (--unbalanced)"
        raise DataError(f"{images.name} is unbalanced: {counts}. {cure}.")


def balanced(images: ImageSet, seed: int = 0) -> ImageSet:
    """As many images of each class as the smallest has, chosen at random, in their old order.

    Raises DataError where the images have no classes.
    """
    if images.labels is None:
        raise DataError(
            f"{images.name} has no classes to balance. Put each in a folder of its own."
        )
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(images.labels, return_counts=True)
    rows = []
    for label in classes:
        rows.append(rng.choice(np.flatnonzero(images.labels == label), counts.min(), replace=False))
    return images.subset(np.sort(np.concatenate(rows)), "balanced")

"""What the tests of classifiers share: a small one, and images whose class is easily seen."""

from __future__ import annotations

import numpy as np
import torch

from lensdiff.data.images import ImageSet
from lensdiff.lensing.population import KINDS
from lensdiff.networks.classifier import LensClassifier


def squares(n: int = 60, side: int = 40, seed: int = 0) -> ImageSet:
    """Images whose class is the place of a bright square, which their mean does not show."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = 0.2 * rng.random((n, 1, side, side), np.float32)
    for image, label in zip(pixels, labels, strict=True):
        image[0, 4 + 12 * label : 12 + 12 * label, 10:30] += 0.7
    return ImageSet("squares", pixels, "a" * 64, KINDS, labels)


def small_classifier(seed: int = 0, **arguments: object) -> LensClassifier:
    """A classifier of 40 pixels with random weights, the same on every call."""
    torch.manual_seed(seed)
    return LensClassifier(**{"size": 40, "pretrained": False, **arguments})

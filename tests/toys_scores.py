"""Small extractors, classifiers, models and images that tests of scores and studies share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from toys import small_unet

from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.lensing.population import KINDS
from lensdiff.model import Model, Sampling, load, save
from lensdiff.scores.conditional import classes_in_turn
from lensdiff.scores.statistics import Statistics

NETWORK = {"channels": (16, 32), "blocks": 1, "attention_levels": (1,)}
SAMPLING = {
    "sampler": "dpmpp_2m",
    "steps": 2,
    "levels": "log",
    "high": 40.0,
    "low": 0.1,
    "eta": 0.0,
    "clamp": True,
}


class Pooled(nn.Module):
    """An extractor: the means of a grid of `side` x `side` cells."""

    def __init__(self, side: int = 4):
        super().__init__()
        self.side = side
        self.width = side**2
        self.name = f"FD-Pooled{side}"
        self.sha256 = f"{side}" * 64
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        cells = nn.functional.adaptive_avg_pool2d(images.float() / 255, self.side)
        return self.scale * cells.mean(1).flatten(1)


class ByBrightness(nn.Module):
    """A classifier that answers the class by the image's mean: dark, grey or bright."""

    classes = KINDS
    head = None

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return -100 * (x.mean((1, 2, 3))[:, None] - torch.tensor([0.2, 0.5, 0.8])).abs()


def grey(n: int, seed: int, side: int = 8) -> ImageSet:
    """Images whose mean is that of their class, with noise."""
    rng = np.random.default_rng(seed)
    labels = classes_in_turn(n)
    noise = 0.03 * rng.standard_normal((n, 1, side, side))
    pixels = (np.array([0.2, 0.5, 0.8])[labels][:, None, None, None] + noise).clip(0, 1)
    return ImageSet(f"grey {seed}", pixels.astype(np.float32), f"grey {seed}", KINDS, labels)


def exact(mean, covariance, n: int = 1000) -> Statistics:
    """Statistics with exactly this mean and covariance."""
    found = Statistics(len(mean))
    found.n = n
    found.mean = np.array(mean, float)
    found.scatter = np.array(covariance, float) * (n - 1)
    return found


def small_model(folder: Path, **network) -> Model:
    """A model of 16 x 16 pixels with perturbed weights, saved to `folder` and loaded in fp32."""
    arguments = {**NETWORK, **network}
    denoiser = Denoiser(small_unet(**network))
    spec = {"classes": list(KINDS), "sampling": SAMPLING, "images_seen": 64}
    save(folder, denoiser, arguments, Stretch(0.3, 0.2), 16, **spec)
    model = load(folder, device="cpu", precision="fp32")
    assert model.sampling == Sampling(**SAMPLING)
    return model

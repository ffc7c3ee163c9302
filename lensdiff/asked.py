"""Was it drawn as asked? Classes by a judge's answers and by distances class by class, lens parameters by a fit to the image.

Everything stands beside what real images get: a judge's accuracy on them, their distance from other real ones, the scatter of their fits.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import conditions, judge, quality
from .checkpoint import Checkpoint
from .classify import LensClassifier, predict
from .data import ImageSet, progress
from .errors import DataError, MetricError
from .metrics import batches_of, statistics, to_uint8
from .modelling import Fit

CONVERGED = 0.03  # rms of what a fit leaves, in peaks: above it the model is not that of the image


def draw(
    model: Checkpoint, asked: Sequence[str | int] | np.ndarray, first_seed: int = 0, guidance: float = 1.0, observed: bool = True
) -> Tensor:
    """One image for each entry of `asked` (names or numbers of classes, or values of conditions.NAMES), uint8 (n, C, H, W).

    Image i has the seed first_seed + i.
    """
    seeds = range(first_seed, first_seed + len(asked))
    found = []
    with progress(total=len(seeds), what="drawing what was asked for") as bar:
        for batch in model.generate(seeds, label=model.labels(asked), guidance=guidance, observed=observed):
            found.append(to_uint8(batch))
            bar.update(len(batch))
    return torch.cat(found)


@dataclass(frozen=True)
class Bench:
    """What drawn images of asked classes are held against: a judge, extractors, and real images' features with their labels."""

    judge: LensClassifier
    nets: tuple[nn.Module, ...]
    rows: dict[str, np.ndarray]  # by the extractor's name: features of the reference
    labels: np.ndarray  # of the reference

    @classmethod
    def of(cls, judge: LensClassifier, nets: Sequence[nn.Module], real: ImageSet) -> Bench:
        """A bench whose reference is all of `real`. Raises DataError where the judge knows other classes."""
        if tuple(real.classes) != judge.classes:
            raise DataError(f"{real.name} has the classes {real.classes}, the judge knows {judge.classes}. Take one that knows them.")
        rows = {net.name: statistics(net, batches_of(real, range(len(real))), len(real), net.name).rows for net in nets}
        if any(len(found) != len(real) for found in rows.values()):
            raise MetricError(f"{len(real)} reference images are more than are kept: take fewer.")
        return cls(judge, tuple(nets), rows, np.asarray(real.labels))

    def row(self, images: Tensor | np.ndarray, labels: np.ndarray) -> dict:
        """Accuracy, its interval, AUCs, and distance from the real images of each class, of images (n, 1, H, W) asked for as `labels`.

        `images` are uint8, or in [0, 1].
        """
        pixels = np.asarray(images)
        pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        found = judge.report(predict(self.judge, pixels), labels, self.judge.classes)
        far = {}
        for net in self.nets:
            rows = statistics(net, torch.from_numpy(pixels).split(64), len(pixels), net.name).rows
            each = quality.by_class(self.rows[net.name], self.labels, rows, labels)
            far[net.name] = dict(zip(self.judge.classes, map(float, each), strict=True))
        return {**found, "distance": far}


def in_turn(each: int, classes: int = 3) -> np.ndarray:
    """Labels (each * classes,): the classes in turn."""
    return np.arange(each * classes) % classes


def nearest(rows: Sequence[dict], extractor: str) -> dict:
    """The row whose distances in this extractor's features, averaged over the classes, are the smallest."""
    return min(rows, key=lambda row: np.mean(list(row["distance"][extractor].values())))


def agreement(asked: np.ndarray, found: Fit) -> dict[str, dict[str, float]]:
    """How well the fits of n images agree with what was asked for, (n, 7): by name of conditions.NAMES, in its unit.

    `bias` is the median of measured - asked, `scatter` 1.4826 times the median absolute deviation from it (a Gaussian's standard deviation,
    whatever a few outliers do), `rms` their root mean square, outliers and all. Fits that leave more than `CONVERGED` are counted in
    `unfitted` and left out. Raises MetricError where fewer than 8 are left.
    """
    asked, good = np.asarray(asked, float), found.rms <= CONVERGED
    if good.sum() < 8:
        raise MetricError(f"{good.sum()} of {len(good)} fits describe their image: too few to compare. Draw more, or look at the images.")
    rows = {}
    for column, name in enumerate(conditions.NAMES):
        wanted, measured = asked[good, column], found.values[good, column]
        error = measured - wanted
        rows[name] = {
            "correlation": float(np.corrcoef(wanted, measured)[0, 1]), "bias": float(np.median(error)),
            "scatter": float(1.4826 * np.median(np.abs(error - np.median(error)))), "rms": float(np.sqrt((error**2).mean())),
            "n": int(good.sum()), "unfitted": int((~good).sum()),
        }  # fmt: skip
    return rows

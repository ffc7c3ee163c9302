"""Does a conditional model draw what is requested? Classes by a classifier, parameters by a fit.

Everything stands beside what real images get: a classifier's accuracy on them, their distance from
other real ones, the scatter of their fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.images import ImageSet
from ..errors import DataError, MetricError, SamplingError
from ..lensing import parameters
from ..lensing.fit import Fit
from ..model import Model
from ..networks.classifier import LensClassifier, predict
from ..storage.cache import cached
from . import classification, distances
from .card import FIRST_SEED
from .statistics import KEPT, Statistics, as_stored, batches_of, statistics

SECOND_SEED = FIRST_SEED + 10_000  # first seed of images at a guidance that others have chosen
CONVERGED = 0.03  # rms of what a fit leaves, in peaks: above it the model is not that of the image


def classes_in_turn(n: int, classes: int = 3) -> np.ndarray:
    """Labels (n,): the classes in turn."""
    return np.arange(n) % classes


def generated_set(
    model: Model,
    n: int,
    guidance: float = 1.0,
    first_seed: int = FIRST_SEED,
    cache: Path | str | None = None,
) -> ImageSet:
    """`n` observed lenses, the classes in turn, with seeds from `first_seed` on, as uint8 / 255.

    They are generated once, then read from the cache. Raises SamplingError for a model that is not
    conditioned on classes.
    """
    if not model.denoiser.net.classes:
        raise SamplingError(f"{model.folder.name} is not conditioned on classes. Take one that is.")
    labels = classes_in_turn(n, model.denoiser.net.classes)
    about = {
        "drawn by": model.spec["sha256"],
        "guidance": guidance,
        "sampling": str(model.sampling),
        "n": n,
        "first seed": first_seed,
    }

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, n, 192):
            part = labels[start : start + 192]
            images = model.draw(len(part), first_seed + start, part, guidance)
            yield as_stored(images)

    name = f"drawn-{model.folder.name}"
    folder, fingerprint, pixels = cached(name, about, (n, *model.shape), batches, cache)
    classes = tuple(model.spec["classes"])
    return ImageSet(name, pixels, fingerprint, classes, labels, folder=folder)


@dataclass(frozen=True)
class ClassScorer:
    """What generated images of each class are held against.

    A classifier that knows the classes, extractors, and the features of real images with their
    labels: `rows` by the extractor's name, (n, width), and `labels`, (n,).
    """

    classifier: LensClassifier
    nets: tuple[nn.Module, ...]
    rows: dict[str, np.ndarray]
    labels: np.ndarray

    @classmethod
    def of(cls, net: LensClassifier, nets: Sequence[nn.Module], real: ImageSet) -> ClassScorer:
        """A scorer with the classifier `net`, whose reference is all of `real`.

        Raises DataError where the classifier knows other classes, MetricError for more images than
        `statistics.KEPT`.
        """
        if tuple(real.classes) != net.classes:
            both = f"the classes {real.classes}, the classifier knows {net.classes}"
            raise DataError(f"{real.name} has {both}. Take one that knows them.")
        _few_enough(len(real), "reference images")
        rows = {}
        for one in nets:
            batches = batches_of(real, range(len(real)))
            rows[one.name] = statistics(one, batches, len(real), one.name).rows
        return cls(net, tuple(nets), rows, np.asarray(real.labels))

    def row(self, images: Tensor | np.ndarray, labels: np.ndarray) -> dict:
        """Scores of images (n, 1, H, W), uint8 or in [0, 1], requested as `labels` (n,).

        They are the classifier's accuracy, its interval and AUCs, recall, and for each class what
        `likeness` has. Raises MetricError for more images than `statistics.KEPT`.
        """
        _few_enough(len(images), "images")
        pixels = images.numpy() if isinstance(images, Tensor) else np.array(images)
        pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        classes = self.classifier.classes
        found = classification.report(predict(self.classifier, pixels), labels, classes)
        scores = {name: {} for name in (*LIKENESS, "recall")}
        for net in self.nets:
            real = self.rows[net.name]
            rows = statistics(net, torch.from_numpy(pixels).split(64), len(pixels), net.name).rows
            each = likeness(real, self.labels, rows, labels)
            for name, values in each.items():
                scores[name][net.name] = dict(zip(classes, values, strict=True))
            scores["recall"][net.name] = distances.precision_recall(real[: len(rows)], rows)[1]
        return {**found, **scores}


LIKENESS = ("distance", "distance_error", "kid", "kid_std")


def likeness(
    real: np.ndarray, real_labels: np.ndarray, generated: np.ndarray, labels: np.ndarray
) -> dict[str, list[float]]:
    """How far generated images of each class are from real ones of it, by `LIKENESS`.

    Frechet distance and its error (`distances.frechet_error`), KID and its std over subsets; each a
    list over the classes. Features are (n, width) and (m, width), their labels (n,) and (m,).
    """
    values = distances.by_class(real, real_labels, generated, labels)
    found = {"distance": [float(value) for value in values]}
    found |= {name: [] for name in LIKENESS[1:]}
    for label in np.unique(real_labels):
        mine = Statistics.of(real[real_labels == label])
        theirs = Statistics.of(generated[labels == label])
        mean, std = distances.kid(theirs, mine)
        found["distance_error"].append(distances.frechet_error(theirs, mine))
        found["kid"].append(mean)
        found["kid_std"].append(std)
    return found


def _few_enough(n: int, what: str) -> None:
    if n > KEPT:
        most = f"more than the {KEPT} whose features are kept"
        raise MetricError(f"{n} {what} are {most}: take fewer.")


def nearest(rows: Sequence[dict], extractor: str) -> dict:
    """The row with the smallest distance in an extractor's features, averaged over the classes."""
    return min(rows, key=lambda row: np.mean(list(row["distance"][extractor].values())))


def agreement(wanted: np.ndarray, found: Fit) -> dict[str, dict[str, float]]:
    """How well fits of n images agree with what was requested, (n, 7): by `parameters.NAMES`.

    In the parameter's unit, `bias` is the median of measured minus wanted, `scatter` 1.4826 times
    the median absolute deviation from it (a Gaussian's standard deviation, whatever a few outliers
    do), `rms` the root mean square, outliers and all. Fits that leave more than `CONVERGED` are
    counted in `unfitted` and left out; the correlation is NaN where all were to be the same.
    Raises MetricError where fewer than 8 are left, or `wanted` has another shape.
    """
    wanted = np.asarray(wanted, float)
    good = found.rms <= CONVERGED
    if wanted.shape != found.values.shape:
        shapes = f"{wanted.shape} values were requested, and {found.values.shape} measured"
        raise MetricError(f"{shapes}: give those of the same images.")
    if good.sum() < 8:
        few = f"{good.sum()} of {len(good)} fits describe their image: too few to compare"
        raise MetricError(f"{few}. Draw more, or look at the images.")
    counts = {"n": int(good.sum()), "unfitted": int((~good).sum())}
    rows = {}
    for column, name in enumerate(parameters.NAMES):
        rows[name] = {**_agreement(wanted[good, column], found.values[good, column]), **counts}
    return rows


def _agreement(wanted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    error = measured - wanted
    correlation = float("nan")
    if np.ptp(wanted):
        correlation = float(np.corrcoef(wanted, measured)[0, 1])
    return {
        "correlation": correlation,
        "bias": float(np.median(error)),
        "scatter": float(1.4826 * np.median(np.abs(error - np.median(error)))),
        "rms": float(np.sqrt((error**2).mean())),
    }

"""Was it drawn as asked? Classes by a judge's answers and by distances class by class, lens
parameters by a fit to the image.

Everything stands beside what real images get: a judge's accuracy on them, their distance from other
real ones, the scatter of their fits.
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
from ..lensing import parameters as conditions
from ..lensing.fit import Fit
from ..model import Checkpoint
from ..networks.classifier import LensClassifier, predict
from ..runtime import progress
from ..storage import cached
from . import classification as judge
from . import quality
from .card import FIRST_SEED
from .distances import KEPT, batches_of, statistics, to_uint8

AGAIN = FIRST_SEED + 10_000  # first seed of the images drawn at a scale that others have chosen
CONVERGED = 0.03  # rms of what a fit leaves, in peaks: above it the model is not that of the image


def draw(
    model: Checkpoint,
    asked: Sequence[str | int] | np.ndarray,
    first_seed: int = 0,
    guidance: float = 1.0,
    observed: bool = True,
) -> Tensor:
    """One image for each entry of `asked` (names or numbers of classes, or values of
    conditions.NAMES), uint8 (n, C, H, W).

    Image i has the seed first_seed + i. Raises SamplingError where the model can't take what is
    asked, or nothing is.
    """
    if not len(asked):
        raise SamplingError(
            "Nothing is asked for: give one class, or one row of values, for each image."
        )
    seeds = range(first_seed, first_seed + len(asked))
    found = []
    with progress(total=len(seeds), what="drawing what was asked for") as bar:
        for batch in model.generate(
            seeds, label=model.labels(asked), guidance=guidance, observed=observed
        ):
            found.append(to_uint8(batch))
            bar.update(len(batch))
    return torch.cat(found)


def in_turn(n: int, classes: int = 3) -> np.ndarray:
    """Labels (n,): the classes in turn."""
    return np.arange(n) % classes


def drawn_set(
    model: Checkpoint,
    n: int,
    guidance: float = 1.0,
    first_seed: int = FIRST_SEED,
    cache: Path | str | None = None,
) -> ImageSet:
    """`n` observed lenses, the classes in turn, seeds from `first_seed` on; drawn once, then read
    from the cache, as uint8 / 255.

    Raises SamplingError for a model that is not told classes.
    """
    if not model.denoiser.net.classes:
        raise SamplingError(
            f"{model.folder.name} is not told classes. Take one that is, or asked.draw."
        )
    labels = in_turn(n, model.denoiser.net.classes)
    about = {
        "drawn by": model.spec["sha256"],
        "guidance": guidance,
        "sampling": str(model.sampling),
        "n": n,
    }
    about["first seed"] = first_seed

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, n, 192):
            yield draw(
                model, labels[start : start + 192], first_seed + start, guidance
            ).numpy() / np.float32(255)

    name = f"drawn-{model.folder.name}"
    folder, fingerprint, pixels = cached(name, about, (n, *model.shape), batches, cache)
    return ImageSet(name, pixels, fingerprint, tuple(model.spec["classes"]), labels, folder=folder)


@dataclass(frozen=True)
class Bench:
    """What drawn images of asked classes are held against: a judge, extractors, and real images'
    features with their labels.
    """

    judge: LensClassifier
    nets: tuple[nn.Module, ...]
    rows: dict[str, np.ndarray]  # by the extractor's name: features of the reference
    labels: np.ndarray  # of the reference

    @classmethod
    def of(cls, net: LensClassifier, nets: Sequence[nn.Module], real: ImageSet) -> Bench:
        """A bench with the judge `net`, whose reference is all of `real`.

        Raises DataError where the judge knows other classes, MetricError for more images than
        `metrics.KEPT`.
        """
        if tuple(real.classes) != net.classes:
            raise DataError(
                f"{real.name} has the classes {real.classes}, the judge knows {net.classes}. "
                "Take one that knows them."
            )
        if len(real) > KEPT:
            raise MetricError(
                f"{len(real)} reference images are more than the {KEPT} whose features are "
                "kept: take fewer."
            )
        rows = {
            one.name: statistics(one, batches_of(real, range(len(real))), len(real), one.name).rows
            for one in nets
        }
        return cls(net, tuple(nets), rows, np.asarray(real.labels))

    def row(self, images: Tensor | np.ndarray, labels: np.ndarray) -> dict:
        """Accuracy, its interval, AUCs, distance from the real images of each class, and recall, of
        images (n, 1, H, W) asked as `labels`.

        `images` are uint8, or in [0, 1]. Raises MetricError for more of them than `metrics.KEPT`.
        """
        if len(images) > KEPT:
            raise MetricError(
                f"{len(images)} images are more than the {KEPT} whose features are kept: take "
                "fewer."
            )
        pixels = images.numpy() if isinstance(images, Tensor) else np.array(images)
        pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        found = judge.report(predict(self.judge, pixels), labels, self.judge.classes)
        far = {}
        recall = {}
        for net in self.nets:
            rows = statistics(net, torch.from_numpy(pixels).split(64), len(pixels), net.name).rows
            each = quality.by_class(self.rows[net.name], self.labels, rows, labels)
            far[net.name] = dict(zip(self.judge.classes, map(float, each), strict=True))
            recall[net.name] = quality.precision_recall(self.rows[net.name][: len(rows)], rows)[1]
        return {**found, "distance": far, "recall": recall}


def nearest(rows: Sequence[dict], extractor: str) -> dict:
    """The row whose distances in this extractor's features, averaged over the classes, are the
    smallest.
    """
    return min(rows, key=lambda row: np.mean(list(row["distance"][extractor].values())))


def agreement(asked: np.ndarray, found: Fit) -> dict[str, dict[str, float]]:
    """How well the fits of n images agree with what was asked for, (n, 7): by name of
    conditions.NAMES, in its unit.

    `bias` is the median of measured - asked, `scatter` 1.4826 times the median absolute deviation
    from it (a Gaussian's standard deviation, whatever a few outliers do), `rms` their root mean
    square, outliers and all. Fits that leave more than `CONVERGED` are counted in `unfitted` and
    left out; the correlation is NaN where all were asked for the same. Raises MetricError where
    fewer than 8 are left, or what was asked has another shape.
    """
    asked = np.asarray(asked, float)
    good = found.rms <= CONVERGED
    if asked.shape != found.values.shape:
        raise MetricError(
            f"{asked.shape} values were asked for, and {found.values.shape} measured: give "
            "those of the same images."
        )
    if good.sum() < 8:
        raise MetricError(
            f"{good.sum()} of {len(good)} fits describe their image: too few to compare. Draw "
            "more, or look at the images."
        )
    rows = {}
    for column, name in enumerate(conditions.NAMES):
        wanted = asked[good, column]
        measured = found.values[good, column]
        error = measured - wanted
        rows[name] = {
            "correlation": float(np.corrcoef(wanted, measured)[0, 1])
            if np.ptp(wanted)
            else float("nan"),
            "bias": float(np.median(error)),
            "scatter": float(1.4826 * np.median(np.abs(error - np.median(error)))),
            "rms": float(np.sqrt((error**2).mean())),
            "n": int(good.sum()),
            "unfitted": int((~good).sum()),
        }
    return rows

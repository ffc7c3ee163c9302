"""Statistics of features, batch by batch: mean, covariance, some rows; real ones are cached."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.images import ImageSet
from ..errors import MetricError
from ..runtime import progress
from ..storage import atomic, cache_folder, fingerprint_of
from . import references

KEPT = 2_048  # feature rows kept for KID


def to_uint8(pixels: Tensor | np.ndarray) -> Tensor:
    """Pixel values in [0, 1], clipped, as whole numbers 0 to 255: uint8 of the same shape."""
    if isinstance(pixels, Tensor):
        values = pixels.detach().float().cpu().clamp(0, 1)
    else:
        values = torch.tensor(np.ascontiguousarray(pixels, np.float32)).clamp(0, 1)
    return (values * 255).round().to(torch.uint8)


def as_stored(pixels: Tensor | np.ndarray) -> np.ndarray:
    """Pixel values in [0, 1] as a PNG file keeps them, float32: rounded as `to_uint8` does."""
    return to_uint8(pixels).numpy() / np.float32(255)


class Statistics:
    """Number, mean and covariance of features, in float64, and at most `KEPT` of their rows.

    They are updated batch by batch (Chan et al. 1979, eq. 2.1). `size` is (C, H, W) of the images,
    where it is known.
    """

    def __init__(self, width: int):
        self.n = 0
        self.mean = np.zeros(width)
        self.scatter = np.zeros((width, width))
        self.rows = np.zeros((0, width), np.float32)
        self.size = ()

    def update(self, features: np.ndarray) -> None:
        """Take in features (batch, width).

        Raises MetricError where they are not finite or of another width.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise MetricError(
                f"Features of shape {x.shape} can't join statistics of width {len(self.mean)}."
            )
        if not np.isfinite(x).all():
            raise MetricError("The features hold NaN or infinity: look at the images.")
        if not len(x):
            return
        if len(self.rows) < KEPT:
            self.rows = np.concatenate([self.rows, x[: KEPT - len(self.rows)].astype(np.float32)])
        mean = x.mean(0)
        self._add(len(x), mean, (x - mean).T @ (x - mean))

    def join(self, other: Statistics) -> None:
        """Take in the statistics of other images, which come after these.

        Raises MetricError where they are of another width, or of images of another size.
        """
        if other.mean.shape != self.mean.shape or other.size != self.size:
            raise MetricError("Statistics of other features or images can't be joined.")
        if not other.n:
            return
        self.rows = np.concatenate([self.rows, other.rows])[:KEPT]
        self._add(other.n, other.mean, other.scatter)

    def _add(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.n + n
        shift = mean - self.mean
        self.scatter += scatter + np.outer(shift, shift) * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total

    @classmethod
    def of(cls, rows: np.ndarray) -> Statistics:
        """Statistics of features (n, width) that are at hand."""
        found = cls(np.asarray(rows).shape[-1])
        found.update(rows)
        return found

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance (width, width), as in pytorch-fid."""
        if self.n < 2:
            raise MetricError("A covariance needs two images or more.")
        return self.scatter / (self.n - 1)

    def save(self, path: Path, key: str) -> None:
        """Write to `path`, under a temporary name first."""
        with atomic(path) as part:
            np.savez(
                part,
                n=self.n,
                mean=self.mean,
                scatter=self.scatter,
                rows=self.rows,
                size=self.size,
                key=key,
            )

    @classmethod
    def load(cls, path: Path, key: str) -> Statistics:
        """Read from `path`.

        Raises MetricError where it is damaged or of another extractor or other images.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                own = str(saved["key"])
                statistics = cls(len(saved["mean"]))
                statistics.n = int(saved["n"])
                statistics.mean = saved["mean"]
                statistics.scatter = saved["scatter"]
                statistics.rows = saved["rows"]
                statistics.size = tuple(int(side) for side in saved["size"])
        except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
            cure = "Delete it; it is made again."
            raise MetricError(f"{path}: can't be read ({error}). {cure}") from error
        if own != key:
            reason = "these statistics are of another extractor or of other images"
            raise MetricError(f"{path}: {reason}. Delete the file; it is made again.")
        return statistics


def _one_size_and_range(batch: Tensor | np.ndarray, size: tuple[int, ...]) -> tuple[int, ...]:
    if size and tuple(batch.shape[1:]) != size:
        both = f"Images of {tuple(batch.shape[1:])} after images of {size}"
        raise MetricError(f"{both}: crop or resize them to one size.")
    low = float(batch.min())
    high = float(batch.max())
    if not (low >= -1e-3 and high <= 1.001):  # NaN, too, is not between them
        needs = f"Pixels from {low:.3g} to {high:.3g}: scores need [0, 1] on both sides"
        raise MetricError(f"{needs}. The stretch's inverse leads back there.")
    return tuple(batch.shape[1:])


@torch.no_grad()
def statistics(
    net: nn.Module,
    batches: Iterable[Tensor | np.ndarray],
    total: int | None = None,
    what: str = "features",
) -> Statistics:
    """Statistics of images in [0, 1], given in batches (<= batch, C, H, W).

    Raises MetricError for a constant image, pixels outside [0, 1] or not finite, and batches of
    unequal sizes.
    """
    found = Statistics(net.width)
    device = next(net.parameters()).device
    with progress(None, total=total, what=what) as bar:
        for batch in batches:
            found.size = _one_size_and_range(batch, found.size)
            images = to_uint8(batch)
            flat = images.flatten(1)
            if (flat.min(1).values == flat.max(1).values).any():
                reason = "An image is constant. Constant images say nothing of lenses"
                raise MetricError(f"{reason}: look at the sampler.")
            found.update(net(images.to(device)).float().cpu().numpy())
            bar.update(len(images))
    return found


def batches_of(images: ImageSet, rows: Iterable[int], batch: int = 64) -> Iterable[np.ndarray]:
    """Pixels of `rows`, `batch` at a time."""
    rows = list(rows)
    return (np.asarray(images.pixels[rows[i : i + batch]]) for i in range(0, len(rows), batch))


def reference(
    net: nn.Module, images: ImageSet, rows: range, cache: Path | None = None
) -> Statistics:
    """Statistics of `rows` of a set of real images, computed once and then read from the cache.

    Where the repository holds their features (`scores.references`), they come from there.
    """
    stored = references.features(net, images, rows)
    if stored is not None:
        found = Statistics.of(stored)
        found.size = tuple(images.pixels.shape[1:])
        return found
    key = fingerprint_of([net.name, net.sha256, images.fingerprint, str(rows), "with size"])
    name = f"{images.name}-{net.name.split()[0]}-{key[:12]}.npz"
    path = Path(cache or cache_folder()) / "statistics" / name
    if path.exists():
        return Statistics.load(path, key)
    found = statistics(net, batches_of(images, rows), len(rows), f"{net.name} of real images")
    try:
        found.save(path, key)
    except OSError as error:
        again = "These statistics will be computed again next time."
        warnings.warn(f"{error} {again}", stacklevel=2)
    return found

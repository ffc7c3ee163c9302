"""Scores: features of an extractor, the Frechet distance and KID between two sets of images, and
the card that says what a score means.

FID is only called FID with the Inception weights of pytorch-fid; any other distance is named after
its extractor. Statistics stream: the memory used does not grow with the number of images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.images import ImageSet
from ..errors import MetricError
from ..runtime import progress
from ..storage import atomic, cache_folder, fingerprint_of

ENOUGH = 2_048  # samples of a full protocol
KEPT = 2_048  # feature rows kept for KID


class SampleSizeWarning(UserWarning):
    """Fewer samples than the protocol asks for: the distance is biased upwards."""


def to_uint8(pixels: Tensor | np.ndarray) -> Tensor:
    """Pixel values in [0, 1], clipped, as whole numbers 0 to 255: uint8 of the same shape."""
    return (
        (torch.tensor(np.asarray(pixels), dtype=torch.float32).clamp(0, 1) * 255)
        .round()
        .to(torch.uint8)
    )


class Statistics:
    """Number, mean and covariance of features, updated batch by batch in float64 (Chan et al.
    1979, eq. 2.1), and at most `KEPT` rows.
    """

    def __init__(self, width: int):
        self.n = 0
        self.mean = np.zeros(width)
        self.scatter = np.zeros((width, width))
        # size: (C, H, W) of the images, where it is known
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
            raise MetricError(
                "The features hold NaN or infinity: look at the images they come from."
            )
        if len(self.rows) < KEPT:
            self.rows = np.concatenate([self.rows, x[: KEPT - len(self.rows)].astype(np.float32)])
        mean = x.mean(0)
        n = self.n + len(x)
        shift = mean - self.mean
        self.scatter += (x - mean).T @ (x - mean) + np.outer(shift, shift) * (self.n * len(x) / n)
        self.mean = self.mean + shift * (len(x) / n)
        self.n = n

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
            raise MetricError(
                f"{path}: can't be read ({error}). Delete it; it is made again."
            ) from error
        if own != key:
            raise MetricError(
                f"{path}: these statistics are of another extractor or of other images. Delete "
                "the file; it is made again."
            )
        return statistics


def _one_size_and_range(batch: Tensor | np.ndarray, size: tuple[int, ...]) -> tuple[int, ...]:
    if size and tuple(batch.shape[1:]) != size:
        raise MetricError(
            f"Images of {tuple(batch.shape[1:])} after images of {size}: crop or resize them to "
            "one size."
        )
    low = float(batch.min())
    high = float(batch.max())
    if not (low >= -1e-3 and high <= 1.001):  # NaN, too, is not between them
        raise MetricError(
            f"Pixels from {low:.3g} to {high:.3g}: scores need [0, 1] on both sides. The "
            "stretch's inverse leads back there."
        )
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
                raise MetricError(
                    "An image is constant. Constant images say nothing of lenses: look at the "
                    "sampler."
                )
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
    """Statistics of `rows` of a set of real images, computed once and then read from the cache."""
    key = fingerprint_of([net.name, net.sha256, images.fingerprint, str(rows), "with size"])
    path = (
        Path(cache or cache_folder())
        / "statistics"
        / f"{images.name}-{net.name.split()[0]}-{key[:12]}.npz"
    )
    if path.exists():
        return Statistics.load(path, key)
    found = statistics(net, batches_of(images, rows), len(rows), f"{net.name} of real images")
    try:
        found.save(path, key)
    except OSError as error:
        warnings.warn(
            f"{path}: can't be written ({error}); these statistics will be computed again next "
            "time.",
            stacklevel=2,
        )
    return found


def frechet(a: Statistics, b: Statistics) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al. 2017, eq. 6;

    Dowson & Landau 1982).

    The trace of the root is the sum of the roots of the eigenvalues of the symmetric C_a^(1/2) C_b
    C_a^(1/2), in float64.
    """
    if a.mean.shape != b.mean.shape:
        raise MetricError(
            f"Features of width {len(a.mean)} and {len(b.mean)} can't be compared: use one "
            "extractor for both."
        )
    if a.size and b.size and a.size != b.size:
        raise MetricError(
            f"Images of {a.size} and of {b.size} can't be compared: bring both to one size first."
        )
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b.covariance @ root)
    spread = (
        np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    )
    return float(max(((a.mean - b.mean) ** 2).sum() + spread, 0.0))


def frechet_error(a: Statistics, b: Statistics, subsets: int = 20, seed: int = 0) -> float:
    """Standard error of `frechet(a, b)`: its std over random halves of both sides' kept rows
    (delete-half jackknife, Shao & Wu 1989).

    Halves are more biased than the whole, but alike, so that the bias leaves their spread nearly as
    it is. Raises MetricError below 8 rows.
    """
    if min(len(a.rows), len(b.rows)) < 8 or subsets < 2:
        raise MetricError(
            "An error bar needs eight kept rows or more on both sides, and two subsets or more."
        )
    rng = np.random.default_rng(seed)

    def half(rows: np.ndarray) -> Statistics:
        return Statistics.of(rows[rng.permutation(len(rows))[: len(rows) // 2]])

    return float(np.std([frechet(half(a.rows), half(b.rows)) for _ in range(subsets)], ddof=1))


def kid(
    a: Statistics, b: Statistics, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance x 1000, mean and std over subsets of the kept rows (Binkowski et
    al. 2018, eq. 3 and 4).

    The unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3. A subset has
    1,000 rows, or half of them where there are fewer than 2,000, so that the std says something.
    """
    fewest = min(len(a.rows), len(b.rows))
    size = min(size, fewest) if size else min(1_000, fewest // 2)
    if size < 2:
        raise MetricError("KID needs four images or more on both sides.")
    rng = np.random.default_rng(seed)
    width = a.rows.shape[1]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / width + 1) ** 3

    def mmd() -> float:
        x = a.rows[rng.choice(len(a.rows), size, replace=False)].astype(np.float64)
        y = b.rows[rng.choice(len(b.rows), size, replace=False)].astype(np.float64)
        within = sum(
            (k.sum() - np.trace(k)) / (size * (size - 1)) for k in (kernel(x, x), kernel(y, y))
        )
        return within - 2 * kernel(x, y).mean()

    values = 1000 * np.array([mmd() for _ in range(subsets)])
    return float(values.mean()), float(values.std())


@dataclass(frozen=True)
class Card:
    """A score and all that it depends on.

    `floor` is the distance of as many other real images from the same reference.
    """

    name: str
    distance: float
    floor: float
    kid: float
    kid_std: float
    kid_floor: float
    n_generated: int
    n_reference: int
    n_floor: int
    reference: str
    resolution: str
    value_range: str
    data: str
    extractor_sha256: str
    sampling: str
    calls: int
    seed: int
    distance_error: float | None = None  # standard error of the distance, where it was computed

    def rows(self) -> list[tuple[str, str]]:
        """The card as (what, value) pairs, for a table."""
        error = "" if self.distance_error is None else f" ± {self.distance_error:.2g}"
        return [
            (f"{self.name}, generated", f"{self.distance:.3f}{error}"),
            (f"{self.name}, floor (real against real)", f"{self.floor:.3f}"),
            ("times the floor", f"{self.distance / self.floor:.2f}"),
            ("KID x 1000, generated", f"{self.kid:.3f} ± {self.kid_std:.3f}"),
            ("KID x 1000, floor", f"{self.kid_floor:.3f}"),
            (
                "images: generated / reference / floor",
                f"{self.n_generated} / {self.n_reference} / {self.n_floor}",
            ),
            ("reference", self.reference),
            ("resolution, values", f"{self.resolution}, {self.value_range}"),
            ("data", self.data),
            ("sampling", f"{self.sampling}, {self.calls} network calls, first seed {self.seed}"),
        ]

    def markdown(self) -> str:
        """The card as a Markdown table."""
        return "\n".join(
            ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in self.rows())]
        )

    def as_dict(self) -> dict:
        """The card for a JSON file."""
        return asdict(self)


def card(
    net: nn.Module,
    generated: Statistics,
    images: ImageSet,
    sampling: str,
    calls: int,
    seed: int,
    n: int = ENOUGH,
    cache: Path | None = None,
    split: str = "test set",
) -> Card:
    """Score `generated` against the first `n` of `images`, which the model must not have seen; the
    floor is the next `n` of them.

    `split` is how the card names them.

    Warns (SampleSizeWarning) below 2,048 samples on any side. Raises MetricError where there are
    too few real images.
    """
    if len(images) < 2 * n:
        raise MetricError(
            f"{images.name} has {len(images)} images; {n} for the reference and {n} for the "
            "floor are needed. Lower n."
        )
    least = min(n, generated.n)
    if least < ENOUGH:
        rank = (
            f" and fewer than the {net.width:,} features, so that no covariance has full rank"
            if least <= net.width
            else ""
        )
        message = f"{least} samples{rank}: below {ENOUGH:,} the distance is biased upwards; compare it with its floor alone."
        warnings.warn(message, SampleSizeWarning, stacklevel=2)
    first, second = (reference(net, images, rows, cache) for rows in (range(n), range(n, 2 * n)))
    near, spread = kid(generated, first)
    height, width = images.pixels.shape[-2:]
    return Card(
        name=net.name,
        distance=frechet(generated, first),
        floor=frechet(second, first),
        kid=near,
        kid_std=spread,
        kid_floor=kid(second, first)[0],
        n_generated=generated.n,
        n_reference=first.n,
        n_floor=second.n,
        reference=f"{split} of {images.name}, images 0 to {n - 1}",
        resolution=f"{width} x {height}",
        value_range="[0, 1] as uint8",
        data=f"{images.name}, fingerprint {images.fingerprint[:12]}",
        extractor_sha256=net.sha256,
        sampling=sampling,
        calls=calls,
        seed=seed,
    )

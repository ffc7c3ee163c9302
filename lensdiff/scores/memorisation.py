"""Memorisation: nearest training images, a test of copying, and the agreement of two models.

Nearest in pixels, and under the flips and turns; the test compares distances in features.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import beta, norm, rankdata
from torch import Tensor

from ..data.images import ELEMENTS, symmetry
from ..errors import MetricError
from .distances import _checked

FEWEST = 10  # images of a kind in a cell that counts


@torch.no_grad()
def nearest(
    images: Tensor | np.ndarray, training: np.ndarray, symmetries: int = 1, batch: int = 1_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distance, index, element), each (n,), of the training image nearest to each of `images`.

    `images` are (n, C, H, W), `training` (m, C, H, W). The distance is the root-mean-square
    difference of pixels, in their units, and the smallest over the 1, 2 or 8 `symmetries` of the
    population: `symmetry(image, element)` is what lies so near. Training images are read `batch` at
    a time. Raises MetricError where the shapes differ, for none, and for images not finite.
    """
    x = torch.tensor(np.ascontiguousarray(images, np.float32))
    oblong = x.shape[-1] != x.shape[-2] and symmetries == 8
    if x.ndim != 4 or x.shape[1:] != training.shape[1:] or symmetries not in ELEMENTS or oblong:
        shapes = f"Images of {tuple(x.shape)} and training images of {training.shape}"
        raise MetricError(
            f"{shapes} can't be compared in {symmetries} symmetries: give (n, C, H, W) of one "
            "size, and 1, 2 or, of square ones, 8."
        )
    if not len(x) or not len(training) or not x.isfinite().all():
        raise MetricError("Give images of finite pixels, and some to compare them with.")
    turned = (symmetry(x, torch.full((len(x),), k)) for k in ELEMENTS[symmetries])
    turns = torch.stack([one.flatten(1) for one in turned])  # (symmetries, n, pixels)
    best = torch.full((len(x),), torch.inf)
    index = torch.zeros(len(x), dtype=torch.long)
    element = torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(training), batch):
        some = np.ascontiguousarray(training[start : start + batch], np.float32)
        part = torch.from_numpy(some).flatten(1)
        for k, turned in zip(ELEMENTS[symmetries], turns, strict=True):
            square = (turned**2).sum(1, keepdim=True) + (part**2).sum(1) - 2 * turned @ part.T
            found, where = square.min(1)
            better = found < best
            best = torch.where(better, found, best)
            index = torch.where(better, where + start, index)
            element = torch.where(better, torch.tensor(k), element)
    picked = torch.from_numpy(np.asarray(training[index.numpy()], np.float32))
    # the search's difference of large sums is coarse; the distance is not
    exact = symmetry(x, element) - picked
    return exact.square().mean((1, 2, 3)).sqrt().numpy(), index.numpy(), element.numpy()


def _nearest(x: np.ndarray, training: np.ndarray, batch: int = 500) -> np.ndarray:
    """Distances (n,) of the rows of `x` (n, width) to their nearest of `training` (m, width)."""
    square = (training.astype(np.float64) ** 2).sum(1)
    found = []
    for start in range(0, len(x), batch):
        part = x[start : start + batch].astype(np.float64)
        inner = part @ training.T.astype(np.float64)
        best = (square - 2 * inner).argmin(1)
        found.append(np.sqrt(((part - training[best]) ** 2).sum(1)))
    return np.concatenate(found)


def _z_of_ranks(held_out: np.ndarray, generated: np.ndarray) -> float:
    """Mann & Whitney's U of generated above held-out distances, as a standard normal number."""
    n = len(held_out)
    m = len(generated)
    ranks = rankdata(np.concatenate([held_out, generated]))
    u = ranks[n:].sum() - m * (m + 1) / 2
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def copying_test(
    training: np.ndarray,
    held_out: np.ndarray,
    generated: np.ndarray,
    cells: int = 5,
    seed: int = 0,
) -> tuple[float, float]:
    """(C_T, p): do generated images lie nearer to training images than held-out ones do?

    Meehan et al. 2020, section 3: in each of `cells` cells of k-means on the training rows, the
    Mann-Whitney z of distances to the nearest training row; C_T is their mean, weighted by the
    held-out rows of a cell. Far below 0: copies; far above: underfitting. A cell counts with ten or
    more held-out and ten or more generated rows. `p` is that of a C_T as low without copying, from
    its variance as a weighted mean of standard normal numbers. All are features (n, width) of one
    extractor. Raises MetricError where no cell counts.
    """
    from sklearn.cluster import KMeans  # here, since it takes two seconds

    training, held_out, generated = _checked(training, held_out, generated, least=cells)
    kmeans = KMeans(cells, n_init=3, random_state=seed).fit(training)
    far = [_nearest(x, training) for x in (held_out, generated)]
    of_real, of_generated = (kmeans.predict(x) for x in (held_out, generated))
    scores = []
    weights = []
    for cell in range(cells):
        here = (far[0][of_real == cell], far[1][of_generated == cell])
        if min(map(len, here)) >= FEWEST:
            scores.append(_z_of_ranks(*here))
            weights.append(len(here[0]))
    if not scores:
        few = f"No cell has {FEWEST} held-out and {FEWEST} generated images"
        raise MetricError(f"{few}: give more images, or fewer cells.")
    share = np.array(weights) / sum(weights)
    found = float(share @ scores)
    return found, float(norm.cdf(found / np.sqrt((share**2).sum())))


def copy_rate_limit(detected: int, n: int, level: float = 0.95, power: float = 1.0) -> float:
    """Upper limit of the share of copies, with `detected` of `n` generated images found to be one.

    Clopper & Pearson 1934, one-sided at `level`: with none of 64 the share may still be 4.6 %.
    `power` is the share of planted copies that the detector finds; the limit is divided by it.
    Raises MetricError for numbers that are no shares.
    """
    if not 0 <= detected <= n or n < 1 or not 0 < level < 1 or not 0 < power <= 1:
        given = f"{detected} of {n} images, level {level}, power {power}"
        raise MetricError(f"{given} are no shares: give 0 <= detected <= n and 0 < power <= 1.")
    limit = 1.0 if detected == n else float(beta.ppf(level, detected + 1, n - detected))
    return min(limit / power, 1.0)


def same_seed_correlation(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of two models' images of the same noise, (n,), and of different noise, (n,).

    Kadkhodaie et al. 2024, section 2: two models trained on disjoint halves of the data draw nearly
    one image from one seed where they have learned the distribution, and unlike images where they
    have learned their training images. `one` and `other` are (n, C, H, W) in the same order of
    seeds; both are taken less their common mean image, which any two lenses share. The second
    array, image k against image k + 1, is what unlike images have. Raises MetricError for unequal
    shapes, fewer than three images, and a constant image.
    """
    one, other = (np.asarray(x, np.float64) for x in (one, other))
    if one.shape != other.shape or one.ndim != 4 or len(one) < 3:
        shapes = f"Images of {one.shape} and {other.shape}"
        raise MetricError(f"{shapes}: give (n, C, H, W) of both, the same seeds, three or more.")
    mean = np.concatenate([one, other]).mean(0)
    flat = [(x - mean).reshape(len(x), -1) for x in (one, other)]
    flat = [x - x.mean(1, keepdims=True) for x in flat]
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    if min(length.min() for length in lengths) <= 1e-9:
        raise MetricError("An image is the mean of all but for a constant: look at the sampler.")
    first, second = (x / length for x, length in zip(flat, lengths, strict=True))
    return (first * second).sum(1), (first * np.roll(second, -1, axis=0)).sum(1)

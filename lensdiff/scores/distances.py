"""Distances between two sets of features: Frechet, KID, precision and recall, a two-sample test."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import MetricError
from .jackknife import Pair, Rows, factor, of_all_images, roots
from .statistics import Statistics


def frechet(a: Statistics, b: Statistics) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    Heusel et al. 2017, eq. 6; Dowson & Landau 1982. With C_a = L L^T, the trace of the root is the
    sum of the roots of the eigenvalues of the symmetric L^T C_b L, in float64. Raises MetricError
    for features of unequal widths and for images of unequal sizes.
    """
    _check_alike(a, b)
    cross = _trace_of_root(a, b)
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(((a.mean - b.mean) ** 2).sum() + spread, 0.0))


def _check_alike(a: Statistics, b: Statistics) -> None:
    """Raise MetricError for features of unequal widths, and for images of unequal sizes."""
    if a.mean.shape != b.mean.shape:
        widths = f"Features of width {len(a.mean)} and {len(b.mean)} can't be compared"
        raise MetricError(f"{widths}: use one extractor for both.")
    if a.size and b.size and a.size != b.size:
        sizes = f"Images of {a.size} and of {b.size} can't be compared"
        raise MetricError(f"{sizes}: bring both to one size first.")


def _trace_of_root(a: Statistics, b: Statistics) -> float:
    """tr (C_a C_b)^(1/2), by an n x n matrix where one side has n images, fewer than features."""
    few, many = (a, b) if a.n <= b.n else (b, a)
    if few.n < len(few.mean) and len(few.rows) == few.n:
        centred = few.rows - few.rows.mean(0, dtype=np.float64)
        return roots(centred @ many.covariance @ centred.T / (few.n - 1))
    left = factor(a.covariance)
    return roots(left.T @ b.covariance @ left)


def frechet_error(a: Statistics, b: Statistics, subsets: int = 20, seed: int = 0) -> float:
    """Standard error of `frechet(a, b)`: its std over random halves of both sides' kept rows.

    This is the delete-half jackknife (Shao & Wu 1989). Halves are more biased than the whole, but
    alike, so that the bias leaves their spread nearly as it is. Halves of fewer rows than features
    are parts of one product, made once (`jackknife.Pair`). Of more images than kept rows the error
    is scaled, see `jackknife.of_all_images`. Raises MetricError below 8 rows.
    """
    if min(len(a.rows), len(b.rows)) < 8 or subsets < 2:
        needs = "eight kept rows or more on both sides, and two subsets or more"
        raise MetricError(f"An error bar needs {needs}.")
    rng = np.random.default_rng(seed)

    pair = Pair(Rows(a.rows), Rows(b.rows))

    def half(rows: np.ndarray) -> np.ndarray:
        return rng.permutation(len(rows))[: len(rows) // 2]

    found = [pair.distance(half(a.rows), half(b.rows)) for _ in range(subsets)]
    return float(np.std(found, ddof=1)) * of_all_images(a, b)


def compared(generated: Statistics, real: Statistics) -> dict[str, float]:
    """What a stored row has of two sets: `distance` (`frechet`), `kid` and `kid_std` (`kid`)."""
    mean, std = kid(generated, real)
    return {"distance": frechet(generated, real), "kid": mean, "kid_std": std}


def kernels(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """KID's kernel (x.y / d + 1)^3 of features (n, d) and (m, d): (n, n), (m, m) and (n, m)."""
    return [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]


def unbiased_mmd(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy of what has these `kernels`.

    Binkowski et al. 2018, eq. 4: its mean is the same for every number of images.
    """
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return within - 2 * xy.mean()


def kid(
    a: Statistics, b: Statistics, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance x 1000, mean and std over subsets of the kept rows.

    Binkowski et al. 2018, eq. 3 and 4. The unbiased squared maximum mean discrepancy with the
    kernel (x.y / d + 1)^3. A subset has 1,000 rows, or half of them where there are fewer than
    2,000, so that the std means something. Raises MetricError as `frechet`, and for few images.
    """
    _check_alike(a, b)
    fewest = min(len(a.rows), len(b.rows))
    size = min(size, fewest) if size else min(1_000, fewest // 2)
    if size < 2:
        raise MetricError("KID needs four images or more on both sides.")
    rng = np.random.default_rng(seed)

    def mmd() -> float:
        x = a.rows[rng.choice(len(a.rows), size, replace=False)].astype(np.float64)
        y = b.rows[rng.choice(len(b.rows), size, replace=False)].astype(np.float64)
        return unbiased_mmd(*kernels(x, y))

    values = 1000 * np.array([mmd() for _ in range(subsets)])
    return float(values.mean()), float(values.std())


def _checked(*sets: np.ndarray, least: int) -> list[np.ndarray]:
    """The sets of features as float32, if they can be compared and have `least` rows or more."""
    rows = [np.asarray(x, np.float32) for x in sets]
    if any(x.ndim != 2 or x.shape[1] != rows[0].shape[1] for x in rows):
        shapes = f"Features of shapes {[x.shape for x in rows]} can't be compared"
        raise MetricError(f"{shapes}: give (n, width) of one extractor.")
    if not all(np.isfinite(x).all() for x in rows):
        raise MetricError("The features hold NaN or infinity: look at the images they come from.")
    if min(map(len, rows)) < least:
        few = f"{min(map(len, rows))} images are too few here"
        raise MetricError(f"{few}: {least} or more are needed on both sides.")
    return rows


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """(precision, recall) of features (n, width) and (m, width).

    Kynkaanniemi et al. 2019, eq. 1 and 2. A set's manifold is the union of the balls around its
    members that reach to their k-th neighbour in the set. Precision is the share of generated
    images in that of the real ones, recall the share of real images in that of the generated ones.
    Both fall with the number of images: compare at equal numbers, and with real against real.
    Raises MetricError for k + 1 images or fewer.
    """
    rows = map(np.ascontiguousarray, _checked(real, generated, least=k + 2))
    real, generated = map(torch.from_numpy, rows)
    exact = "donot_use_mm_for_euclid_dist"
    across = torch.cdist(real, generated, compute_mode=exact)

    def reach(x: torch.Tensor) -> torch.Tensor:
        # the first is the image itself
        return torch.cdist(x, x, compute_mode=exact).kthvalue(k + 1, dim=1).values

    precision = (across <= reach(real)[:, None]).any(0).float().mean()
    recall = (across <= reach(generated)[None]).any(1).float().mean()
    return precision.item(), recall.item()


def two_sample(real: np.ndarray, generated: np.ndarray, folds: int = 5) -> tuple[float, float]:
    """(accuracy, its standard error) of a classifier of real against generated, by their features.

    Lopez-Paz & Oquab 2017, section 3. Logistic regression on standardised features, an equal number
    of both, each image judged by a fit on the other folds: 0.5 means that it can't. The error is
    binomial: that of other images judged by these classifiers. How they would differ with other
    images to learn from, and that folds share theirs, is not in it. At an accuracy of 0 or 1 it is
    the width of Wilson's interval at one standard error, 1 / (n + 1) for n judged images (Wilson
    1927). Raises MetricError below 4 images a fold.
    """
    from sklearn.linear_model import LogisticRegression  # here, since it takes two seconds
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    real, generated = _checked(real, generated, least=4 * folds)
    rng = np.random.default_rng(0)
    size = min(len(real), len(generated))
    rows = np.concatenate([x[rng.permutation(len(x))[:size]] for x in (real, generated)])
    truth = np.repeat([0, 1], size)
    regression = LogisticRegression(C=0.01, max_iter=300, tol=1e-3)
    classifier = make_pipeline(StandardScaler(), regression)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    predicted = cross_val_predict(classifier, rows, truth, cv=split)
    accuracy = float((predicted == truth).mean())
    if accuracy in (0.0, 1.0):
        return accuracy, 1 / (len(truth) + 1)
    return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(truth)))


def by_class(
    real: np.ndarray, real_labels: np.ndarray, generated: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Frechet distance of generated images of each class from real ones of that class, (classes,).

    `generated` (m, width) have the labels (m,), `real` (n, width) have `real_labels` (n,). The
    floor is the same with other real images in place of `generated`, as many of each class. Raises
    MetricError where the labels are not one for each image, or a class has fewer than 4 images on
    one side.
    """
    real, generated = _checked(real, generated, least=4)
    if len(real_labels) != len(real) or len(labels) != len(generated):
        counts = f"{len(real)} and {len(generated)} images: give one for each"
        raise MetricError(f"{len(real_labels)} and {len(labels)} labels for {counts}.")
    found = []
    for label in np.unique(real_labels):
        mine = real[real_labels == label]
        theirs = generated[labels == label]
        if min(len(mine), len(theirs)) < 4:
            few = f"{len(mine)} real and {len(theirs)} generated images are too few"
            raise MetricError(f"Class {label}: {few}: give four or more of both.")
        found.append(frechet(Statistics.of(theirs), Statistics.of(mine)))
    return np.array(found)

"""Scores beside the Frechet distance, in the same features: precision and recall, a two-sample
test, and distances class by class.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..errors import MetricError
from .distances import Statistics, frechet


def _rows(*sets: np.ndarray, least: int) -> list[np.ndarray]:
    rows = [np.asarray(x, np.float32) for x in sets]
    if any(x.ndim != 2 or x.shape[1] != rows[0].shape[1] for x in rows):
        raise MetricError(
            f"Features of shapes {[x.shape for x in rows]} can't be compared: give (n, width) "
            "of one extractor."
        )
    if not all(np.isfinite(x).all() for x in rows):
        raise MetricError("The features hold NaN or infinity: look at the images they come from.")
    if min(map(len, rows)) < least:
        raise MetricError(
            f"{min(map(len, rows))} images are too few here: {least} or more are needed on both "
            "sides."
        )
    return rows


def precision_recall(real: np.ndarray, drawn: np.ndarray, k: int = 3) -> tuple[float, float]:
    """(precision, recall) of features (n, width), (m, width) (Kynkaanniemi et al. 2019, eq. 1 and
    2).

    A set's manifold is the union of the balls around its members that reach to their k-th neighbour
    in the set. Precision is the share of drawn images in that of the real ones, recall the share of
    real images in that of the drawn ones. Both fall with the number of images: compare at equal
    numbers, and with real against real. Raises MetricError for k + 1 images or fewer.
    """
    real, drawn = (torch.from_numpy(x) for x in _rows(real, drawn, least=k + 2))
    exact = "donot_use_mm_for_euclid_dist"
    across = torch.cdist(real, drawn, compute_mode=exact)

    def reach(x: torch.Tensor) -> torch.Tensor:
        # the first is the image itself
        return torch.cdist(x, x, compute_mode=exact).kthvalue(k + 1, dim=1).values

    precision = (across <= reach(real)[:, None]).any(0).float().mean()
    recall = (across <= reach(drawn)[None]).any(1).float().mean()
    return precision.item(), recall.item()


def two_sample(
    real: np.ndarray, drawn: np.ndarray, folds: int = 5, penalty: float = 100.0, seed: int = 0
) -> tuple[float, float]:
    """(accuracy, its standard error) of a classifier that tells real from drawn by their features
    (Lopez-Paz & Oquab 2017, section 3).

    Logistic regression on standardised features, an equal number of both, each image judged by a
    fit on the other folds: 0.5 means that it can't. Raises MetricError below 4 images a fold.
    """
    real, drawn = _rows(real, drawn, least=4 * folds)
    rng = np.random.default_rng(seed)
    size = min(len(real), len(drawn))
    rows = np.concatenate([x[rng.permutation(len(x))[:size]] for x in (real, drawn)])
    truth = np.repeat([0, 1], size)
    judge = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=300, tol=1e-3)
    )
    said = cross_val_predict(
        judge, rows, truth, cv=StratifiedKFold(folds, shuffle=True, random_state=seed)
    )
    accuracy = float((said == truth).mean())
    return accuracy, float(np.sqrt(max(accuracy * (1 - accuracy), 1e-12) / len(truth)))


def per_class(
    real: np.ndarray, labels: np.ndarray, drawn: np.ndarray, mixed: np.ndarray
) -> list[dict]:
    """One row a class: distance of `drawn` (m, width) from the real images (n, width) of that
    class, beside that of other real ones.

    A model without classes should lie as far from each class as `mixed`, real images of all
    classes, does: rows where it lies nearer or farther than that, by more than elsewhere, show a
    class that is drawn too often or too rarely. `labels` (n,) are those of `real`.
    """
    real, drawn, mixed = _rows(real, drawn, mixed, least=4)
    if len(labels) != len(real):
        raise MetricError(f"{len(labels)} labels for {len(real)} real images: give one for each.")
    found = []
    for label in np.unique(labels):
        mine = Statistics.of(real[labels == label])
        size = min(len(drawn), len(mixed))
        far = [frechet(Statistics.of(rows[:size]), mine) for rows in (drawn, mixed)]
        found.append(
            {
                "class": int(label),
                "n_real": mine.n,
                "n_drawn": size,
                "drawn": far[0],
                "mixed": far[1],
            }
        )
    return found


def by_class(
    real: np.ndarray, real_labels: np.ndarray, drawn: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Frechet distance of the features `drawn` (m, width) asked for as each class from those `real`
    (n, width) of that class, (classes,).

    `real_labels` (n,) and `labels` (m,) say which is which. The floor is the same with other real
    images in place of `drawn`, as many of each class. Raises MetricError where the labels are not
    one for each image, or a class has fewer than 4 images on one side.
    """
    real, drawn = _rows(real, drawn, least=4)
    if len(real_labels) != len(real) or len(labels) != len(drawn):
        raise MetricError(
            f"{len(real_labels)} and {len(labels)} labels for {len(real)} and {len(drawn)} "
            "images: give one for each."
        )
    found = []
    for label in np.unique(real_labels):
        mine = real[real_labels == label]
        asked = drawn[labels == label]
        if min(len(mine), len(asked)) < 4:
            raise MetricError(
                f"Class {label}: {len(mine)} real and {len(asked)} drawn images are too few: "
                "give four or more of both."
            )
        found.append(frechet(Statistics.of(asked), Statistics.of(mine)))
    return np.array(found)

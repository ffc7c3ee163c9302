"""What a classifier's answers are worth: accuracy, ROC, calibration, and where it looks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest, norm, rankdata

from ..errors import DataError


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits = np.asarray(logits, np.float64)
    labels = np.asarray(labels)
    if logits.ndim != 2 or labels.shape != (len(logits),) or not len(labels):
        raise DataError(
            f"Logits of shape {logits.shape} and labels of shape {labels.shape}: give (n, "
            "classes) and (n,)."
        )
    if not np.isfinite(logits).all():
        raise DataError("The logits hold NaN or infinity: look at the images.")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(
            f"Labels from {labels.min()} to {labels.max()}: there are 0 to {logits.shape[1] - 1}."
        )
    return logits, labels


def interval(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share, `right` out of `n` (Wilson 1927), by scipy.

    It never lies outside [0, 1], and is right for small n too.
    """
    if not 0 <= right <= n or n < 1:
        raise DataError(f"{right} right out of {n} is no share.")
    found = binomtest(int(right), int(n)).proportion_ci(level, "wilson")
    return float(found.low), float(found.high)


def areas(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC of each class against the others, (classes,), by scikit-learn.

    Their mean is the macro AUC.
    """
    from sklearn.metrics import roc_auc_score  # here, since it takes two seconds

    logits, labels = _checked(logits, labels)
    if len(np.unique(labels)) < logits.shape[1]:
        raise DataError(
            f"Only the classes {np.unique(labels).tolist()} are there: an ROC needs images of "
            f"all {logits.shape[1]}."
        )
    chance = softmax(logits, 1)
    return np.array([roc_auc_score(labels == k, chance[:, k]) for k in range(logits.shape[1])])


def _placements(score: np.ndarray, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image of the class, the share of others below it; of each other, those above it."""
    n = int(mine.sum())
    m = len(mine) - n
    ranks = rankdata(score)
    below = (ranks[mine] - rankdata(score[mine])) / m
    above = 1 - (ranks[~mine] - rankdata(score[~mine])) / n
    return below, above


def macro_auc_interval(
    logits: np.ndarray, labels: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """DeLong's interval of the macro AUC, the mean of `areas`, clipped to [0, 1].

    DeLong et al. 1988, eq. 4 to 6. Each image adds what it says about every class's area; as the
    classes share their images, these are added before their variance is taken, class by class of
    the truth. The interval is normal: it is too short below some ten images a class, and where the
    AUC is 1 it has no width. Raises DataError where a class has fewer than two images.
    """
    macro = float(areas(logits, labels).mean())
    logits, labels = _checked(logits, labels)
    classes = logits.shape[1]
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < 2:
        raise DataError(f"{counts.tolist()} images a class: an interval needs two of each.")
    chance = softmax(logits, 1)
    influence = np.zeros(len(labels))
    for k in range(classes):
        mine = labels == k
        below, above = _placements(chance[:, k], mine)
        influence[mine] += (below - below.mean()) / mine.sum()
        influence[~mine] += (above - above.mean()) / (~mine).sum()
    influence /= classes
    variance = sum(count * influence[labels == k].var(ddof=1) for k, count in enumerate(counts))
    half = norm.ppf(0.5 + level / 2) * np.sqrt(variance)
    return max(macro - half, 0.0), min(macro + half, 1.0)


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 10) -> dict[str, np.ndarray]:
    """Mean confidence and accuracy of the answers in `bins` equal bins of confidence.

    Guo et al. 2017, section 2. `count` is the number of images in each; empty bins are left out.
    """
    logits, labels = _checked(logits, labels)
    chance = softmax(logits, 1)
    sure = chance.max(1)
    right = chance.argmax(1) == labels
    index = np.minimum((sure * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    there = count > 0
    return {
        "confidence": np.bincount(index, sure, bins)[there] / count[there],
        "accuracy": np.bincount(index, right, bins)[there] / count[there],
        "count": count[there],
    }


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: the mean gap of confidence and accuracy, weighted by counts.

    Guo et al. 2017, eq. 3.
    """
    found = reliability(logits, labels, bins)
    gap = np.abs(found["confidence"] - found["accuracy"])
    return float((gap * found["count"]).sum() / found["count"].sum())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number to divide logits by that makes these labels likeliest; it changes no answer.

    Guo et al. 2017, section 4.2. Fit it on held-out images, never on those that are reported.
    """
    logits, labels = _checked(logits, labels)

    def unlikely(log_t: float) -> float:
        return -log_softmax(logits / np.exp(log_t), 1)[np.arange(len(labels)), labels].mean()

    return float(np.exp(minimize_scalar(unlikely, bounds=(-3, 3), method="bounded").x))


def report(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict:
    """n, accuracy and its 95 % interval, AUCs, confusion matrix, calibration error.

    `auc` is by class, `macro_auc` their mean; the confusion matrix has the truth in rows.
    """
    from sklearn.metrics import confusion_matrix

    logits, labels = _checked(logits, labels)
    right = int((logits.argmax(1) == labels).sum())
    auc = areas(logits, labels)
    return {
        "n": len(labels),
        "accuracy": right / len(labels),
        "interval": list(interval(right, len(labels))),
        "auc": dict(zip(classes, (round(float(a), 5) for a in auc), strict=True)),
        "macro_auc": float(auc.mean()),
        "confusion": confusion_matrix(
            labels, logits.argmax(1), labels=range(len(classes))
        ).tolist(),
        "calibration_error": calibration_error(logits, labels),
    }


def report_with_interval(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict:
    """`report`, and the interval of the macro AUC."""
    return {
        **report(logits, labels, classes),
        "macro_auc_interval": list(macro_auc_interval(logits, labels)),
    }


def in_words(name: str, found: dict) -> str:
    """Accuracy and macro AUC of a report with its interval, in a line."""
    low, high = found["interval"]
    share = f"{100 * found['accuracy']:.2f} % of {found['n']:,}"
    words = f"{name}: {share} ({100 * low:.1f} to {100 * high:.1f} %), AUC {found['macro_auc']:.4f}"
    low, high = found["macro_auc_interval"]
    return f"{words} ({low:.4f} to {high:.4f})"


def published_tenth(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows of a tenth of a test set, each class in equal share.

    The published solution split its 7,500 validation images 90:10. Raises DataError where a tenth
    has fewer than two images of a class, of which no report can be made.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    each = min([len(labels) // 10 // max(1, len(classes)), *counts])
    if each < 2:
        few = f"{len(labels)} test images of {len(classes)} classes: a tenth of them is too few"
        raise DataError(f"{few}. Take 20 images or more of each class.")
    return np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:each] for k in classes])
    )


def confident_mistakes(logits: np.ndarray, labels: np.ndarray, most: int = 10) -> np.ndarray:
    """Rows of the wrong answers, the surest first."""
    logits, labels = _checked(logits, labels)
    chance = softmax(logits, 1)
    wrong = np.flatnonzero(chance.argmax(1) != labels)
    return wrong[np.argsort(-chance[wrong].max(1), kind="stable")][:most]


def patches(height: int, width: int, patch: int, stride: int) -> list[tuple[slice, slice]]:
    """Squares of `patch` pixels inside an image, `stride` apart, from its upper left corner on.

    They reach its lower and right edges only where the stride leads there.
    """
    rows = range(0, height - patch + 1, stride)
    columns = range(0, width - patch + 1, stride)
    return [(slice(y, y + patch), slice(x, x + patch)) for y in rows for x in columns]


def occluded(
    image: np.ndarray, fill: np.ndarray, patch: int = 10, stride: int = 5
) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """Copies (n, 1, H, W) of `image` (1, H, W), each with one square from `fill`, and the squares.

    Zeiler & Fergus 2014, section 4.2. A `fill` of plain sky asks what the classifier needs to see.
    The same lens without its substructure asks for the evidence itself: nothing else changes, and
    no image has a hole that no lens could have.
    """
    if image.shape != fill.shape or patch > min(image.shape[-2:]):
        raise DataError(
            f"Image {image.shape}, fill {fill.shape}, patch {patch}: the shapes must agree, and "
            "the patch must fit."
        )
    squares = patches(*image.shape[-2:], patch, stride)
    copies = np.repeat(image[None], len(squares), 0)
    for copy, (y, x) in zip(copies, squares, strict=True):
        copy[:, y, x] = fill[:, y, x]
    return copies, squares


def heat(
    change: np.ndarray, squares: list[tuple[slice, slice]], shape: tuple[int, int]
) -> np.ndarray:
    """Mean change (n,) of the squares over each pixel, (H, W); NaN where no square lies."""
    total = np.zeros(shape)
    count = np.zeros(shape)
    for value, (y, x) in zip(change, squares, strict=True):
        total[y, x] += value
        count[y, x] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)

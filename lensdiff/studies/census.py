"""As many drawn lenses as a card has, beside test lenses, in all that notebook 13 measures.

Numbers of a lens with their bands, shares of lenses with and without a defect, power against
frequency, a two-sample test, and the search for copies. Other test lenses get a row of their own,
which is what chance alone leaves at this number of images.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.stats import wasserstein_distance
from torch import nn

from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..lensing import defects, measure
from ..lensing.survey import diverse
from ..runtime import best_device
from ..scores import memorisation, references
from ..scores.card import ENOUGH, FIRST_SEED
from ..scores.distances import precision_recall, two_sample
from ..scores.features import extractor
from ..scores.statistics import KEPT, as_stored, statistics
from ..storage import studies_folder
from .samplers import lens_model
from .table import Table

EXAMPLE = "python -m lensdiff study census lens150 lens150-long"
FILES = {150: "census.json", 64: "census-64.json"}  # by pixels
OTHER = "other test lenses"
ALL = "all lenses"  # every training lens and the test lenses that no other row has
POWER = {"0 to 3": (0, 3), "3 to 6": (3, 6), "above 7": (7, np.inf)}  # cycles per arcsec
REPEATS = 100  # of a bootstrap
SHOWN = {
    "two_or_ring": "two images or more, or a ring",
    "three_images": "three images",
    "broken_ridge": "the ridge jumps",
    "any_but_three_images": "any defect but three images",
}
HELD_OUT = 256  # test lenses: what is nearer to a training lens than all of them is called a copy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("models", nargs="+", help="shipped models of one size, or folders")
    parser.add_argument("--pixels", type=int, choices=FILES, default=150, help="that size")
    parser.add_argument("-n", type=int, default=ENOUGH, help="images of each, and test lenses")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def w1_error(real: np.ndarray, drawn: np.ndarray, seed: int = 0) -> float:
    """Standard error of the Wasserstein distance of two samples, (n,) and (m,), by bootstrap.

    Too large, by up to a half, where the distance is hardly more than chance gives: each sample is
    drawn from itself once more, and a distance can't be negative.
    """
    real, drawn = (x[np.isfinite(x)] for x in (real, drawn))
    rng = np.random.default_rng(seed)
    again = [
        wasserstein_distance(*(x[rng.integers(0, len(x), len(x))] for x in (real, drawn)))
        for _ in range(REPEATS)
    ]
    return float(np.std(again, ddof=1))


def ratio(drawn: np.ndarray, real: np.ndarray) -> list[float]:
    """The ratio of two means, and its standard error from both samples."""
    found = drawn.mean() / real.mean()
    errors = [x.std(ddof=1) / len(x) ** 0.5 / x.mean() for x in (drawn, real)]
    return [float(found), float(found * np.hypot(*errors))]


def counted(images: np.ndarray, found: dict, scale: float) -> dict[str, int]:
    """How many of the images (n, 1, H, W) have two images or a ring, and each defect.

    `found` is what is measured of them.
    """
    broken = defects.defects(images, scale)
    others = np.any([flags for name, flags in broken.items() if name != "three_images"], 0)
    ring = np.isfinite(found["ring_radius_arcsec"])
    made = {"two_or_ring": ring | (found["bright_images"] >= 2), "whole_ring": ring}
    made |= {**broken, "any_but_three_images": others}
    return {name: int(flags.sum()) for name, flags in made.items()}


def counts(images: np.ndarray) -> dict[str, int]:
    """`counted` of images (n, 1, H, W) in [0, 1], 7.5 arcsec a side. MetricError as `measure`."""
    arcsec = diverse(images.shape[-1]).pixel_arcsec
    return counted(images, measure.measure(images, arcsec), arcsec)


def shares(found: dict[str, int], n: int, keys: Iterable[str] = tuple(SHOWN)) -> list[str]:
    """Of `counts` of `n` images the shares of `keys`, each with its binomial error."""
    each = [found[key] / n for key in keys]
    return [f"{p:.1%} ± {(p * (1 - p) / n) ** 0.5:.1%}" for p in each]


def numbers(images: np.ndarray, real: np.ndarray, scale: float) -> dict:
    """What is measured of images (n, 1, H, W) beside test lenses (m, 1, H, W), in [0, 1]."""
    sides = {"drawn": images, "test": real}
    found = {side: measure.measure(x, scale) for side, x in sides.items()}
    scalars = {}
    for name in measure.SCALARS:
        mine, theirs = (found[side][name] for side in sides)
        if min(np.isfinite(x).sum() for x in (mine, theirs)) >= 8:
            beside = measure.compare(theirs, mine) | {"w1_error": w1_error(theirs, mine)}
            scalars[name] = {key: float(value) for key, value in beside.items()}
    of_sides = {side: counted(x, found[side], scale) for side, x in sides.items()}
    frequency, power = measure.power_spectrum(images, scale)
    _, theirs = measure.power_spectrum(real, scale)
    ratios = {}
    for name, (low, high) in POWER.items():
        if frequency.max() < (high if np.isfinite(high) else low):
            continue  # of larger pixels, which do not reach it
        here = (frequency > low) & (frequency <= high)
        ratios[name] = ratio(power[:, here].mean(1), theirs[:, here].mean(1))
    return {"n": len(images), "scalars": scalars, "counts": of_sides, "power_ratio": ratios}


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Thumbnails (n, 1, 15, 15) of images (n, 1, H, W), without the edges that are too many."""
    side = references.THUMBNAIL
    more = images.shape[-1] % side
    within = slice(more // 2, images.shape[-1] - (more - more // 2))
    return references.thumbnails(images[:, :, within, within]).reshape(-1, 1, side, side)


def training_thumbnails(pixels: int) -> np.ndarray:
    """Thumbnails (m, 1, 15, 15) of training lenses: of lens150's, else of all of this size."""
    if pixels != 150:
        return thumbnails(np.asarray(lenses("train", pixels).pixels))
    side = references.THUMBNAIL
    return references.training_thumbnails()[0].reshape(-1, 1, side, side)


def copies(images: np.ndarray, held_out: np.ndarray) -> dict:
    """How many images are nearer to a training lens than any held-out one; the nearest distances.

    Of thumbnails in all turns, as notebook 05 has it.
    """
    side = references.THUMBNAIL
    training = training_thumbnails(images.shape[-1])

    def far(x: np.ndarray) -> np.ndarray:
        thumbs = thumbnails(x)
        return side * memorisation.nearest(thumbs, training, symmetries=8)[0]

    limit = far(held_out).min()
    found = far(images)
    nearest = [float(limit), float(found.min())]
    return {"called_copies": int((found < limit).sum()), "nearest": nearest}


def by_features(net: nn.Module, images: np.ndarray, real: np.ndarray) -> dict:
    """Two-sample accuracy, precision and recall, by features of rows (n, width)."""
    size = min(len(images), len(real))
    drawn = statistics(net, np.array_split(images, -(-size // 64)), size, "drawn lenses").rows
    test = statistics(net, np.array_split(real, -(-size // 64)), size, "test lenses").rows
    accuracy, error = two_sample(test, drawn)
    precision, recall = precision_recall(test, drawn)
    return {"two_sample": [accuracy, error], "precision": precision, "recall": recall}


def row(net: nn.Module, images: np.ndarray, real: np.ndarray, held_out: np.ndarray) -> dict:
    """All that is stored of images (n, 1, H, W) in [0, 1], as a PNG keeps them."""
    found = numbers(images, real, diverse(images.shape[-1]).pixel_arcsec)
    found |= by_features(net, images, real)
    found |= {"copies": copies(images, held_out)}
    return found


def drawn_by(name: str, n: int, pixels: int) -> np.ndarray:
    """The first images of a card, drawn again. ParameterError for a model of another kind."""
    return as_stored(lens_model(name, pixels).draw(n, FIRST_SEED))


def run(args: argparse.Namespace) -> None:
    """Draw, measure and keep what is missing, a model at a time; other test lenses first."""
    models = {name: lens_model(name, args.pixels).spec["sha256"] for name in args.models}
    test = lenses("test", args.pixels)
    most = min(KEPT, len(test) // 2)
    if not 64 <= args.n <= most:
        raise ParameterError(f"-n must be 64 to {most}, not {args.n}.")
    net = extractor("efficientnet", best_device())
    table = Table(args.out / FILES[args.pixels], {"n": args.n, "extractor": net.name})
    real, other = (
        as_stored(np.asarray(test.pixels[first : first + args.n])) for first in (0, args.n)
    )
    held_out = real[:HELD_OUT]
    rest = test.subset(np.arange(2 * args.n, len(test)), "the rest")
    key = {"name": ALL, "model_sha256": ""}
    table.row(key, lambda: population(lenses("train", args.pixels), rest), "{n:,}".format_map)
    table.row({"name": OTHER, "model_sha256": ""}, lambda: row(net, other, real, held_out), _words)
    for name, sha256 in models.items():
        key = {"name": name, "model_sha256": sha256}

        def measured(name: str = name) -> dict:
            return row(net, drawn_by(name, args.n, args.pixels), real, held_out)

        table.row(key, measured, _words)


def population(images: ImageSet, more: ImageSet, batch: int = 1_000) -> dict:
    """How many of these lenses have what is counted of a model's: the population's own rates."""
    total: Counter = Counter()
    parts = [one.pixels[i : i + batch] for one in (images, more) for i in range(0, len(one), batch)]
    scale = diverse(images.pixels.shape[-1]).pixel_arcsec
    for part in parts:
        seen = as_stored(np.asarray(part))
        total.update(counted(seen, measure.measure(seen, scale), scale))
    return {"n": sum(map(len, parts)), "counts": {"drawn": dict(total)}}


def _words(found: dict) -> str:
    accuracy, error = found["two_sample"]
    return f"told apart in {100 * accuracy:.1f} ± {100 * error:.1f} %"

"""What data/reference holds: features of test lenses, and thumbnails of training lenses."""

from __future__ import annotations

import argparse

import numpy as np

from ..data.images import TRAIN_IMAGES, TRAIN_SEED, lenses, split_rows
from ..lensing.population import sample_params
from ..lensing.simulate import simulate
from ..lensing.survey import diverse
from ..lensing.telescope import min_max
from ..runtime import best_device
from ..scores import references
from ..scores.card import ENOUGH
from ..scores.features import extractor
from ..scores.statistics import batches_of, statistics
from ..storage import write_arrays

EXAMPLE = "python -m lensdiff study references"
PIXELS = 150


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("--held-out", type=float, default=0.1, help="share that training left out")


def keep_test_features() -> None:
    """Features of the test lenses of a card's reference and floor."""
    net = extractor("efficientnet", best_device())
    test = lenses("test", PIXELS)
    found = []
    for first in (0, ENOUGH):  # statistics keep so many rows
        rows = range(first, first + ENOUGH)
        found.append(statistics(net, batches_of(test, rows), ENOUGH, "test lenses").rows)
    print(references.keep_features(net, test, np.concatenate(found)))


def keep_training_thumbnails(held_out: float) -> None:
    """Thumbnails of the noiseless lenses that lens150 learnt from, as bytes."""
    survey = diverse(PIXELS)
    params = sample_params(TRAIN_IMAGES, "mixed", TRAIN_SEED, survey)
    rows = split_rows(TRAIN_IMAGES, held_out)[0]
    side = references.THUMBNAIL
    block = PIXELS // side
    found = []
    for batch in simulate(params[rows], survey, TRAIN_SEED, noiseless=True):
        means = min_max(batch).reshape(-1, side, block, side, block).mean((2, 4))
        found.append(np.round(255 * means).astype(np.uint8).reshape(len(means), -1))
    path = references.folder() / "training-thumbnails.npz"
    write_arrays(path, pixels=np.concatenate(found), rows=rows.astype(np.uint16))
    print(path)


def run(args: argparse.Namespace) -> None:
    """Make both files again."""
    references.folder().mkdir(parents=True, exist_ok=True)
    keep_training_thumbnails(args.held_out)
    keep_test_features()

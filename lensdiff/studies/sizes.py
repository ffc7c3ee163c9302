"""Frechet distance and KID of stored features against the number of images, with covariances."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..data.images import lenses
from ..errors import MetricError
from ..runtime import best_device
from ..scores import references
from ..scores.card import ENOUGH, features_key, stored_features
from ..scores.extrapolation import against_size, kid_against_size
from ..scores.features import extractor
from ..storage import studies_folder
from .samplers import lens_model
from .table import Table

EXAMPLE = "python -m lensdiff study sizes lens150"
FILE = "sizes.json"
SIZES = (64, 128, 256, 512, 1_024, 2_048)
FLOOR = "other test lenses"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("models", nargs="*", default=["lens150"], help="models of 150 pixels")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def _curve(
    against: Callable, rows: np.ndarray, real: np.ndarray, sizes: Sequence[int]
) -> dict[str, list]:
    values, covariance = against(rows, real, sizes)
    return {"values": values.tolist(), "covariance": covariance.tolist()}


def measure(names: Sequence[str], out: Path) -> Table:
    """A row a model and one of other test lenses, each against the same test lenses, in `out`.

    Raises MetricError where the features of test lenses are not stored.
    """
    net = extractor("efficientnet", best_device())
    test = lenses("test", 150)
    real = references.features(net, test, range(ENOUGH))
    other = references.features(net, test, range(ENOUGH, 2 * ENOUGH))
    if real is None or other is None:
        cure = "Make them: python -m lensdiff study references"
        raise MetricError(f"{references.path_of(test)}: no stored features. {cure}")
    table = Table(out / FILE, {"extractor_sha256": net.sha256, "sizes": list(SIZES)})

    def add(name: str, sha256: str, rows: np.ndarray) -> None:
        table.row(
            {"name": name, "model_sha256": sha256},
            lambda: {
                "frechet": _curve(against_size, rows, real, SIZES),
                "kid": _curve(kid_against_size, rows, real, SIZES),
            },
            lambda row: f"{row['frechet']['values'][-1]:.2f}",
        )

    for name in names:
        model = lens_model(name, 150)
        key = features_key(model, net, model.sampling)
        add(name, model.spec["sha256"], stored_features(model.folder, key).rows)
    add(FLOOR, "", other)
    return table


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, and keep the table after each row."""
    measure(args.models, args.out)

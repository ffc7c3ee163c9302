"""Does attention pay, and how many images does a classifier need? Short trainings in a row."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.images import ImageSet
from ..networks.classifier import LensClassifier, predict
from ..scores.classification import report
from ..storage import studies_folder
from ..training.classifier import ClassifierConfig, fit_classifier
from ..training.recipes import LENSNET
from .table import Table

EXAMPLE = "python -m lensdiff study heads"
FILE = "heads.json"
BOTH = ("attention", "plain")
# (head, seed, training images, updates of the whole network): 50 of the head alone come first
SHORT = [(head, seed, 30_000, 300) for seed in (0, 1) for head in BOTH]
SIZES = [("attention", 0, n, 300) for n in (300, 1_000, 3_000)]
LONG = [(head, seed, 30_000, 1_200) for seed in (0, 1, 2) for head in BOTH]
TEST_IMAGES = 3_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def one_run(
    head: str, seed: int, n: int, train: ImageSet, test: ImageSet, config: ClassifierConfig
) -> dict:
    """Train one head with one seed on the first `n` images of a shuffle; returns its scores."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:n])
    torch.manual_seed(seed)
    model = LensClassifier(**{**LENSNET.model, "head": head})
    config = replace(config, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        model = fit_classifier(model, train, config, Path(folder) / "model", (rows, rows[:1]))
    found = report(predict(model, test), test.labels, model.classes)
    return {key: found[key] for key in ("accuracy", "interval", "macro_auc")}


def run(args: argparse.Namespace) -> None:
    """Train what is missing, and keep the table after each run."""
    table = Table(args.out / FILE, {"test_images": TEST_IMAGES})
    train = LENSNET.images("train")
    test = LENSNET.images("test").subset(np.arange(TEST_IMAGES), "first 3,000")
    for head, seed, n, updates in (*SHORT, *SIZES, *LONG):
        changes = {"steps": updates, "frozen_steps": 50, "warmup_steps": 50, "held_out_every": 0}
        config = replace(LENSNET.train, **changes)
        table.row(
            {"head": head, "seed": seed, "train_images": n, "updates": updates},
            lambda head=head, seed=seed, n=n, config=config: one_run(
                head, seed, n, train, test, config
            ),
            lambda row: f"{100 * row['accuracy']:.2f} %, macro AUC {row['macro_auc']:.4f}",
        )

"""Do generated lenses help a classifier of simulated ones?

Classifiers learn from generated lenses alone, from simulated ones alone ("real" in the table), or
from both in equal shares, with as many updates each. They are tested on simulated lenses that
neither they nor the model have seen and that did not choose the guidance.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .. import model as models
from ..data.images import ELEMENTS, ImageSet, lenses
from ..errors import MetricError, ParameterError
from ..model import Model
from ..networks.classifier import LensClassifier, predict
from ..scores.classification import report
from ..scores.conditional import SECOND_SEED, generated_set
from ..storage import fingerprint_of, studies_folder
from ..training.classifier import ClassifierConfig, fit_classifier
from ..training.recipes import JUDGE64
from . import conditional
from .samplers import check_of_lenses
from .table import Table

EXAMPLE = "python -m lensdiff study augmentation classes64"
FILE = "augmentation.json"
REAL = (600, 2_400)
KNOWN = 600  # training images on which a run is tested too
FIRST_TEST = conditional.REFERENCE  # test images before it chose the guidance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("model", help="a shipped model's name, or a folder; conditional on classes")
    parser.add_argument("--guidance", type=float, help="default: the best of conditional.json")
    parser.add_argument("--generated", type=int, default=900, help="lenses to generate")
    parser.add_argument(
        "--updates", type=int, default=600, help="of the whole network; 50 of the head come first"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def best_guidance(folder: Path) -> float:
    """The guidance that `score` found best in the classifier's features.

    Raises MetricError where it was not run, or for a model that is not conditional on classes.
    """
    found = conditional.stored(folder)
    if "best" not in found:
        raise MetricError(f"{folder}: it has no best guidance. Give --guidance.")
    return found["best"][found["judge_extractor"]]["guidance"]


def together(real: ImageSet, generated: ImageSet, rows: np.ndarray) -> ImageSet:
    """The real images of `rows` and the generated ones; the fewer are repeated to be as many."""
    count = max(len(rows), len(generated))
    mine = np.resize(rows, count)
    theirs = np.resize(np.arange(len(generated)), count)
    return replace(
        real,
        name="real and generated",
        pixels=np.concatenate([real.pixels[mine], generated.pixels[theirs]]),
        labels=np.concatenate([real.labels[mine], generated.labels[theirs]]),
        truth=None,
        fingerprint=fingerprint_of([real.fingerprint, rows.tolist(), generated.fingerprint]),
        folder=None,
    )


def images_for(learns: str, n: int, seed: int, real: ImageSet, generated: ImageSet) -> ImageSet:
    """What a run learns from: generated lenses, `n` real ones (as many of each class), or both."""
    if learns == "drawn":
        return generated
    some = np.random.default_rng(seed).permutation(len(real) // 3)[: n // 3]
    chosen = np.sort(np.concatenate([3 * some + k for k in range(3)]))  # lens 3 i + k is of class k
    return real.subset(chosen, f"{n}") if learns == "real" else together(real, generated, chosen)


def one_run(images: ImageSet, test: ImageSet, config: ClassifierConfig) -> dict:
    """Train a classifier from ImageNet's weights on all of `images`; its scores on the test set.

    `train_accuracy` is that on training images, up to `KNOWN` of them: near 1 where it has learnt
    all that they hold.
    """
    torch.manual_seed(config.seed)
    model = LensClassifier(size=64)
    rows = np.arange(len(images))
    with tempfile.TemporaryDirectory() as folder:
        model = fit_classifier(model, images, config, Path(folder) / "model", (rows, rows[:1]))
    found = report(predict(model, test), test.labels, model.classes)
    some = images.subset(np.random.default_rng(0).permutation(rows)[:KNOWN], "learnt")
    known = report(predict(model, some), some.labels, model.classes)
    return {
        "accuracy": found["accuracy"],
        "macro_auc": found["macro_auc"],
        "train_accuracy": known["accuracy"],
    }


def run(args: argparse.Namespace) -> None:
    """Generate the lenses, train what is missing, and keep the table after each run."""
    model = models.load(args.model)
    if not isinstance(model, Model) or not model.denoiser.net.classes:
        raise ParameterError(f"{args.model} is not conditioned on classes. Take one that is.")
    check_of_lenses(model, args.model)
    guidance = best_guidance(model.folder) if args.guidance is None else args.guidance
    real = lenses("train", 64)
    if model.shape != real.pixels.shape[1:]:
        raise ParameterError(f"{args.model} draws no lenses of 64 pixels. Take classes64.")
    test = lenses("test", 64)
    test = test.subset(np.arange(FIRST_TEST, len(test)), f"from {FIRST_TEST}")
    generated = generated_set(model, args.generated, guidance, SECOND_SEED)
    about = {
        "model_sha256": model.spec["sha256"],
        "guidance": guidance,
        "drawn": args.generated,
        "updates": args.updates,
        "test_images": len(test),
    }
    changes = {"steps": args.updates, "frozen_steps": 50, "warmup_steps": 50, "held_out_every": 0}
    # generated lenses, too, have no preferred direction
    config = replace(JUDGE64.train, **changes, elements=ELEMENTS[real.symmetries])
    table = Table(args.out / FILE, about)
    ways = [("drawn", 0)] + [(learns, n) for n in REAL for learns in ("real", "both")]
    for learns, n, seed in [(*way, seed) for seed in range(args.seeds) for way in ways]:

        def compute(learns: str = learns, n: int = n, seed: int = seed) -> dict:
            images = images_for(learns, n, seed, real, generated)
            return one_run(images, test, replace(config, seed=seed))

        key = {"learns": learns, "real": n, "seed": seed}
        table.row(key, compute, lambda row: f"{100 * row['accuracy']:.1f} %")

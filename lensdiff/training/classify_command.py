"""Train the lens classifier of Common Test I and report on all test images:

`python scripts/classify.py my-classifier --state my-state`.

With --state the run can be killed at any moment and called again; it goes on where it last saved.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data import folders as files
from ..data.images import ImageSet, write_json
from ..errors import in_one_sentence
from ..networks.classifier import LensClassifier, load, predict, read
from ..scores import classification as judge
from . import recipes
from .classifier import ClassifierStep, checked, fit_classifier

HELD_OUT = 1 / 30  # of the training images: for the curve and for the temperature


def tell(step: ClassifierStep) -> None:
    """A line every 50 updates, and wherever held-out images were classified."""
    held = (
        ""
        if step.held_out is None
        else f", held out {step.held_out[0]:.4f}, accuracy {100 * step.held_out[1]:.1f} %"
    )
    if step.number % 50 == 0 or held:
        print(
            f"{time.strftime('%H:%M')}  update {step.number:,}, {step.images_seen:,} images: "
            f"loss {step.loss:.4f}{held}",
            flush=True,
        )


def write_report(folder: Path, train: ImageSet, test: ImageSet) -> dict:
    """Classify the test images, all and the published tenth of them, and write report.json
    beside the weights.
    """
    model = load(folder)
    (_, held) = train.split(HELD_OUT)
    checked(test, model.classes, unbalanced=True)
    logits = predict(model, test)
    tenth = judge.published_tenth(test.labels)
    warmth = judge.temperature(predict(model, train, held), train.labels[held])
    found = {
        "weights_sha256": read(folder)[1]["sha256"],
        "data": {"name": test.name, "fingerprint": test.fingerprint},
        "all": judge.report(logits, test.labels, model.classes),
        "tenth": judge.report(logits[tenth], test.labels[tenth], model.classes),
        "temperature": warmth,
        "calibration_error_after": judge.calibration_error(logits / warmth, test.labels),
    }
    write_json(folder / "report.json", found)
    return found


@in_one_sentence
def main() -> int:
    """Read the command line, train where asked, and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "folder", type=Path, help="where the classifier goes, or lies already (with --report)"
    )
    parser.add_argument("--recipe", choices=recipes.CLASSIFIERS, default="lensnet")
    parser.add_argument("--state", type=Path, help="folder for the full state, to resume from")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of Common Test I: train/ and val/, each with no, sphere and vort",
    )
    parser.add_argument("--head", choices=("attention", "plain"))
    parser.add_argument(
        "--size", type=int, help="side of what the backbone sees (100 as published)"
    )
    parser.add_argument(
        "--backbone", help="any name that timm knows; without a network, give --weights too"
    )
    parser.add_argument("--weights", type=Path, help="file of the backbone's pretrained weights")
    parser.add_argument("--steps", type=int, help="updates of the whole, in place of the recipe's")
    parser.add_argument("--images", type=int, help="train on this many images only")
    parser.add_argument(
        "--seed", type=int, help="of the head's weights and of the order of the images"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="a classifier of the same network to go on from: a new stage, with a fresh optimiser",
    )
    parser.add_argument(
        "--lr", type=float, help="learning rate of the whole, in place of the recipe's"
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="do not train; classify the test images and write report.json",
    )
    args = parser.parse_args()
    recipe = recipes.CLASSIFIERS[args.recipe]
    train, test = files.common_test(args.data) if args.data else recipe.images()
    if not args.report:
        changes = {
            name: value
            for name in ("steps", "seed", "lr")
            if (value := getattr(args, name)) is not None
        }
        config = replace(recipe.train, **changes, **({"frozen_steps": 0} if args.start else {}))
        chosen = {
            name: value
            for name in ("head", "size", "backbone", "weights")
            if (value := getattr(args, name)) is not None
        }
        rows, held = train.split(HELD_OUT)
        torch.manual_seed(config.seed)
        model = LensClassifier(**{**recipe.model, **chosen})
        fewer = np.random.default_rng(config.seed).permutation(rows)[: args.images]
        fit_classifier(
            model,
            train,
            config,
            args.folder,
            (np.sort(fewer), held),
            args.state,
            tell,
            start=args.start,
        )
    found = write_report(args.folder, train, test)
    for name in ("all", "tenth"):
        low, high = found[name]["interval"]
        print(
            f"{name}: {100 * found[name]['accuracy']:.2f} % of {found[name]['n']:,} "
            f"({100 * low:.1f} to {100 * high:.1f} %), "
            f"macro AUC {found[name]['macro_auc']:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

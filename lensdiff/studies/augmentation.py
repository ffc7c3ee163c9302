"""Do drawn lenses help a classifier of real ones? `python scripts/augment.py
data/checkpoints/classes64` writes augment.json beside it.

Classifiers learn from drawn lenses alone, from real ones alone, or from both in equal shares, with
as many updates each, and are tested on real lenses that neither they nor the model have seen and
that did not choose the guidance. Runs that are done are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data import images as data
from ..data.images import ImageSet, fingerprint_of, write_json
from ..errors import MetricError, in_one_sentence
from ..model import load
from ..networks.classifier import LensClassifier, predict
from ..notebook import helpers as nb
from ..scores import classification as judge
from ..scores import conditional as asked
from ..training import recipes
from ..training.classifier import ClassifierConfig, fit_classifier
from ..training.diffusion import ELEMENTS

REAL = (150, 600, 2_400, 9_600)
FIRST_TEST = 1_998  # test images before it chose the guidance: see asked.py


def best_guidance(folder: Path) -> float:
    """The scale that asked.py found best in the judge's features.

    Raises MetricError where it was not run, or for a model that is not told classes.
    """
    try:
        found = json.loads((folder / "asked.json").read_text())
        return found["best"][found["judge_ruler"]]["guidance"]
    except (OSError, ValueError, KeyError) as error:
        cure = f"Run scripts/asked.py {folder}, or give --guidance."
        raise MetricError(
            f"{folder}: it has no asked.json with a best guidance scale ({error!r}). {cure}"
        ) from error


def together(real: ImageSet, drawn: ImageSet, rows: np.ndarray) -> ImageSet:
    """The real images of `rows` and the drawn ones, the fewer of them repeated until they are as
    many.
    """
    count = max(len(rows), len(drawn))
    mine = np.resize(rows, count)
    theirs = np.resize(np.arange(len(drawn)), count)
    pixels, labels = (
        np.concatenate([a[mine], b[theirs]])
        for a, b in ((real.pixels, drawn.pixels), (real.labels, drawn.labels))
    )
    fingerprint = fingerprint_of([real.fingerprint, rows.tolist(), drawn.fingerprint])
    return replace(
        real,
        name="real and drawn",
        pixels=pixels,
        labels=labels,
        truth=None,
        fingerprint=fingerprint,
        folder=None,
    )


def one_run(images: ImageSet, test: ImageSet, config: ClassifierConfig) -> dict:
    """Train a classifier from ImageNet's weights on all of `images`; its accuracy and macro AUC
    on the test images.
    """
    torch.manual_seed(config.seed)
    model = LensClassifier(size=64)
    rows = np.arange(len(images))
    with tempfile.TemporaryDirectory() as folder:
        model = fit_classifier(model, images, config, Path(folder) / "model", (rows, rows[:1]))
    found = judge.report(predict(model, test), test.labels, model.classes)
    return {"accuracy": found["accuracy"], "macro_auc": found["macro_auc"]}


def images_for(learns: str, n: int, seed: int, real: ImageSet, drawn: ImageSet) -> ImageSet:
    """What a run learns from: the drawn lenses, `n` real ones (as many of each class), or both."""
    if learns == "drawn":
        return drawn
    # lens 3 i + k is of class k
    some = np.random.default_rng(seed).permutation(len(real) // 3)[: n // 3]
    chosen = np.sort(np.concatenate([3 * some + k for k in range(3)]))
    return real.subset(chosen, f"{n}") if learns == "real" else together(real, drawn, chosen)


def table(path: Path, about: dict, seeds: int, run: Callable[[str, int, int], dict]) -> None:
    """Fill augment.json with the runs that are missing;

    `run` takes what is learnt from, the number of real lenses, and a seed.
    """
    old = json.loads(path.read_text()) if path.exists() else {}
    rows = old["rows"] if all(old.get(key) == value for key, value in about.items()) else []
    done = {(row["learns"], row["real"], row["seed"]) for row in rows}
    ways = (("drawn", 0), *((learns, n) for n in REAL for learns in ("real", "both")))
    for learns, n, seed in [(*way, seed) for seed in range(seeds) for way in ways]:
        if (learns, n, seed) in done:
            continue
        rows.append({"learns": learns, "real": n, "seed": seed, **run(learns, n, seed)})
        write_json(path, {**about, "rows": rows})
        print(
            f"{time.strftime('%H:%M')}  {learns}, {n} real, seed {seed}: "
            f"{100 * rows[-1]['accuracy']:.1f} %",
            flush=True,
        )


@in_one_sentence
def main() -> int:
    """Read the command line, draw, train what is missing, and keep the table after each run;
    returns the exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a checkpoint told the classes")
    parser.add_argument(
        "--guidance", type=float, help="scale of the drawn lenses (default: the best of asked.json)"
    )
    parser.add_argument(
        "--drawn",
        type=int,
        default=900,
        help="lenses to draw (as many as asked.py drew are at hand)",
    )
    parser.add_argument(
        "--updates",
        type=int,
        default=250,
        help="of the whole network; 50 more of the head come first",
    )
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    scale = best_guidance(args.folder) if args.guidance is None else args.guidance
    real = data.lenses("train", 64)
    test = data.lenses("test", 64)
    test = test.subset(np.arange(FIRST_TEST, len(test)), f"from {FIRST_TEST}")
    model = load(args.folder)
    drawn = asked.drawn_set(model, args.drawn, scale, asked.AGAIN)
    about = {
        "model_sha256": model.spec["sha256"],
        "guidance": scale,
        "drawn": args.drawn,
        "updates": args.updates,
    }
    about |= {"test_images": len(test), "machine": nb.machine()}
    config = replace(
        recipes.JUDGE64.train,
        steps=args.updates,
        frozen_steps=50,
        warmup_steps=50,
        held_out_every=0,
    )
    # drawn lenses, too, have no preferred direction
    config = replace(config, elements=ELEMENTS[real.symmetries])

    def run(learns: str, n: int, seed: int) -> dict:
        return one_run(images_for(learns, n, seed, real, drawn), test, replace(config, seed=seed))

    table(args.folder / "augment.json", about, args.seeds, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())

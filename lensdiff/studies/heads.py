"""Does attention pay, and how many images are needed? Short trainings of the lens classifier, one
after the other.

`python scripts/heads.py` writes data/comparisons/heads.json, which notebook 07 shows. A run that is
in it already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.images import ImageSet, write_json
from ..errors import in_one_sentence
from ..networks.classifier import LensClassifier, predict
from ..notebook import helpers as notebook
from ..scores import classification as judge
from ..training import recipes
from ..training.classifier import ClassifierConfig, fit_classifier

HEADS = [(head, seed, 30_000) for seed in (0, 1) for head in ("attention", "plain")]
SIZES = [("attention", 0, n) for n in (300, 1_000, 3_000, 30_000)]


def one_run(
    head: str, seed: int, n: int, train: ImageSet, test: ImageSet, config: ClassifierConfig
) -> dict:
    """Train one head with one seed on the first `n` images of a shuffle; returns its row."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:n])
    torch.manual_seed(seed)
    model = LensClassifier(**{**recipes.LENSNET.model, "head": head})
    with tempfile.TemporaryDirectory() as folder:
        model = fit_classifier(
            model, train, replace(config, seed=seed), Path(folder) / "model", (rows, rows[:1])
        )
    found = judge.report(predict(model, test), test.labels, model.classes)
    print(
        f"{head}, seed {seed}, {n:,} images: {100 * found['accuracy']:.2f} %, macro AUC "
        f"{found['macro_auc']:.4f}",
        flush=True,
    )
    return {
        "head": head,
        "seed": seed,
        "train_images": n,
        **{k: found[k] for k in ("accuracy", "interval", "macro_auc")},
    }


@in_one_sentence
def main() -> int:
    """Read the command line, train what is missing, and keep the table after each run; returns
    the exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--updates",
        type=int,
        default=300,
        help="of the whole network; 50 more of the head come first",
    )
    parser.add_argument(
        "--out", type=Path, default=notebook.home() / "data" / "comparisons" / "heads.json"
    )
    args = parser.parse_args()
    config = replace(
        recipes.LENSNET.train,
        steps=args.updates,
        frozen_steps=50,
        warmup_steps=50,
        held_out_every=0,
    )
    old = json.loads(args.out.read_text()) if args.out.exists() else {}
    rows = old.get("heads", []) + old.get("sizes", []) if old.get("updates") == args.updates else []
    done = {(row["head"], row["seed"], row["train_images"]): row for row in rows}
    train, test = recipes.LENSNET.images()
    test = test.subset(np.arange(3_000), "first 3,000")
    for key in (*HEADS[:2], *SIZES, *HEADS[2:]):
        done[key] = done.get(key) or one_run(*key, train, test, config)
        table = {
            name: [done[k] for k in keys if k in done]
            for name, keys in (("heads", HEADS), ("sizes", SIZES))
        }
        write_json(args.out, {"updates": args.updates, "test_images": len(test), **table})
    return 0


if __name__ == "__main__":
    sys.exit(main())

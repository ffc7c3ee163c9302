"""Does a model copy, and when does it stop? Two models on disjoint sets of n training lenses.

Of each n both learn the light of other lenses, without flips, for equal numbers of updates. A model
that has learnt its images copies them, and its twin draws other images from the same noise; one
that has learnt the distribution draws what its twin draws (Kadkhodaie et al. 2024, section 2).
Of the middle n one is trained anew, four times as long and ten times, which is as many epochs as
the smallest n had: does it begin to copy?
The lenses have 32 pixels a side: the six models take one to two hours, and the last two two and a
half more.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..runtime import best_device
from ..scores import memorisation
from ..scores.card import FIRST_SEED
from ..scores.features import extractor
from ..scores.statistics import as_stored
from ..storage import root, studies_folder, write_arrays
from ..training.fit import fit
from ..training.published import PUBLISHED
from ..training.recipe import Recipe
from .ablations import keep_pictures
from .recipes import scored
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study memorisation"
FILE = "memorisation.json"
SIZES = (20, 200, 5_000)  # lenses of a model, of which it learns nine tenths
HALVES = (0, 1)
PIXELS = 32
UPDATES = 2_000
LONG_SIZE = 200  # lenses of the models that are trained longer
LONGER = {"longer": 8_000, "longest": 20_000}  # and their updates
SCORED = 512
SHOWN = 8
ROWS = ("drawn-0", "nearest-0", "drawn-1", "nearest-1")  # of a picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="training lenses")
    parser.add_argument("--updates", type=int, default=UPDATES, help="of each model")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "memorisation", help="models and states"
    )


def recipe(size: int, half: int, updates: int) -> Recipe:
    """Ours of `study recipes`, on smaller lenses; each half begins with weights of its own."""
    plan = PUBLISHED["ours"].recipe
    changes = {"steps": updates, "seed": half, "held_out_every": max(1, updates // 8)}
    name = f"memorisation-{size}-{half}-{updates}"
    return replace(plan.scaled(**changes), name=name, pixels=PIXELS)


def part(images: ImageSet, size: int, half: int) -> ImageSet:
    """`size` images of one half of a set, to be learnt as they lie: without flips and turns.

    Raises ParameterError where a half has fewer.
    """
    most = len(images) // len(HALVES)
    if not 2 <= size <= most:
        raise ParameterError(f"{size} training lenses: a half of {images.name} has 2 to {most}.")
    rows = half * most + np.arange(size)
    return replace(images.subset(rows, f"{size} of half {half}"), symmetries=1)


def nearness(drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> dict:
    """How near images (n, C, H, W) lie to training images, beside held-out ones.

    Distances are root-mean-square differences of pixels to the nearest training image. A copy is
    nearer than every one of the held-out images.
    """
    far, index, _ = memorisation.nearest(drawn, training)
    real, _, _ = memorisation.nearest(held_out, training)
    limit = float(real.min())
    return {
        "nearest": [round(float(x), 5) for x in far],
        "nearest_held_out": [round(float(x), 5) for x in real],
        "index": index.tolist(),
        "limit": limit,
        "copies": int((far < limit).sum()),
    }


def compute(
    size: int, half: int, net: nn.Module, args: argparse.Namespace, updates: int = 0
) -> dict:
    """Train one model, draw its lenses, and hold them against what it has seen.

    It learns for `updates`, or for those that all have (0).
    """
    plan = recipe(size, half, updates or args.updates)
    images = part(plan.images("train"), size, half)
    model = fit(plan, images, args.work / plan.name, args.work / f"{plan.name}-state")
    light = model.draw(args.n, FIRST_SEED, observed=False).numpy()
    write_arrays(args.work / f"{plan.name}-{args.n}.npz", light=light)
    held_out = lenses("test", plan.pixels, noiseless=True).pixels[: args.n]
    seen = as_stored(model.draw(args.n, FIRST_SEED))
    learnt, _ = images.split()
    near = nearness(light, images.pixels[learnt], np.asarray(held_out))
    return {
        **near | {"index": learnt[near["index"]].tolist(), "learnt": len(learnt)},
        "card": scored(net, seen, lenses("test", plan.pixels), model.sampling),
        "curve": model.spec["curve"],
        "recipe": plan.as_dict(),
        "sha256": model.spec["sha256"],
    }


def in_words(stored: dict) -> list[list[str]]:
    """A line of each number of lenses, and of models trained longer, of a stored table.

    Lenses learnt, epochs, copies; the median distance to the nearest lens learnt, of drawn and of
    held-out images; the Fréchet distance with its standard error; the correlation of both models'
    images of the same noise, and of other noise.
    """
    found = []
    pairs = [row for row in stored["rows"] if "half" not in row]
    for pair in sorted(pairs, key=lambda row: (row["images"], row["role"])):
        rows = [row for row in stored["rows"] if row["images"] == pair["images"] and "half" in row]
        rows = rows if pair["role"] == "agreement" else [pair]
        plan = rows[0]["recipe"]["train"]
        epochs = plan["steps"] * plan["batch"] / rows[0]["learnt"]
        line = [f"{rows[0]['learnt']:,}", f"{epochs:,.0f}"]
        line.append(" and ".join(str(row["copies"]) for row in rows))
        for name in ("nearest", "nearest_held_out"):
            line.append(" and ".join(f"{np.median(row[name]):.3f}" for row in rows))
        cards = [row["card"] for row in rows]
        far = [f"{card['distance']:.1f} ± {card['distance_error']:.1f}" for card in cards]
        line.append(" and ".join(far))
        for name in ("same_noise", "other_noise"):
            x = np.array(pair.get(name, []))
            error = x.std(ddof=1) / len(x) ** 0.5 if len(x) else 0.0
            line.append(f"{x.mean():.2f} ± {error:.2f}" if len(x) else "")
        found.append(line)
    return found


def drawn(size: int, half: int, args: argparse.Namespace) -> np.ndarray:
    """The light (n, C, H, W) that a model drew."""
    path = args.work / f"{recipe(size, half, args.updates).name}-{args.n}.npz"
    if not path.exists():
        cure = "Remove both rows of this number from the table, and they are made again"
        raise ParameterError(f"{path}: the lenses of a stored row are gone. {cure}.")
    with np.load(path, allow_pickle=False) as saved:
        return saved["light"]


def agreement(size: int, table: Table, args: argparse.Namespace) -> dict:
    """Correlations of both models' images of the same noise and of others; keeps a picture."""
    plan = recipe(size, 0, args.updates)
    images = plan.images("train")
    both = [drawn(size, half, args) for half in HALVES]
    shown = []
    for half in HALVES:
        index = table.find(images=size, half=half)["index"][:SHOWN]
        shown += [both[half][:SHOWN], part(images, size, half).pixels[index]]
    path = args.out / "memorisation" / f"{size}.png"
    # a square root of the light, in which faint counter-images show
    keep_pictures(path, torch.from_numpy(np.sqrt(np.clip(np.concatenate(shown), 0, 1))), SHOWN)
    same, other = memorisation.same_seed_correlation(*both)
    return {
        "same_noise": [round(float(x), 4) for x in same],
        "other_noise": [round(float(x), 4) for x in other],
    }


def run(args: argparse.Namespace) -> None:
    """Train and score each model that is not stored already, and hold the halves together.

    Raises ParameterError for a trial in the place of the results.
    """
    trial = args.n != SCORED or args.updates != UPDATES
    check_trial(trial, args.out, "--updates and -n")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "updates": args.updates, "extractor_sha256": net.sha256}
    table = Table(args.out / FILE, about)
    for size in args.sizes:
        for half in HALVES:
            table.row(
                {"images": size, "half": half},
                lambda size=size, half=half: compute(size, half, net, args),
                lambda row: f"{row['copies']} of {args.n} are copies",
            )
        table.row(
            {"images": size, "role": "agreement"},
            lambda size=size: agreement(size, table, args),
            lambda row: f"correlation {np.mean(row['same_noise']):.2f}",
        )
    for role, updates in LONGER.items() if LONG_SIZE in args.sizes and not trial else ():
        table.row(
            {"images": LONG_SIZE, "role": role},
            lambda updates=updates: compute(LONG_SIZE, HALVES[0], net, args, updates),
            lambda row: f"{row['copies']} of {args.n} are copies",
        )

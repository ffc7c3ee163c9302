"""How the error of each band of noise falls with the images that a model has seen.

A network of lens150 learns at the noise levels of lens150-long, from random weights and, after a
warm-up, at one rate; the average of its weights is kept at each doubling of the images. Of every
such model `study where` measures where its error is born. Beside them stand the shipped models of
that network, which learnt in two and three stages, the first of them 64 pixels, the rate of each
falling at its end: lens150, whose last stage had lower noise levels, and lens150-long.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from .. import model as models
from ..data.images import ImageSet
from ..errors import ParameterError
from ..model import Model
from ..scores.jackknife import standard_error
from ..storage import atomic, atomic_folder, half_precision, root, studies_folder
from ..training.fit import fit
from ..training.loop import Step
from ..training.recipe import Recipe
from ..training.recipes import LENS150_LONG
from . import where
from .samplers import difference
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study growth"
FILE = "growth.json"
SHIPPED = ("lens150", "lens150-long")
UPDATES = 960
DOUBLINGS = 2  # of the images, before the last update
BATCH = 32
KEPT = ("data", "classes", "telescope", "recipe", "sampling", "machine")  # of a model's description


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("--updates", type=int, default=UPDATES, help="of the whole training")
    parser.add_argument("-n", type=int, default=where.MOST, help="images a level")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "growth", help="models and states"
    )


def recipe(updates: int) -> Recipe:
    """Of lens150-long network, noise levels and warm-up; in one stage, and then at one rate."""
    changes = {"steps": updates, "batch": BATCH, "lr": 6e-4, "decay_share": 0.0}
    looks = {"held_out_every": max(1, updates // 8), "save_every": 100}
    return replace(LENS150_LONG.scaled(**changes, **looks), name=f"growth-{updates}")


def marks(updates: int) -> list[int]:
    """The updates at which a model is kept: the last one, and the halves before it.

    Raises ParameterError where there are too few.
    """
    if updates % 2**DOUBLINGS or updates < 2**DOUBLINGS:
        raise ParameterError(f"{updates} updates: take a multiple of {2**DOUBLINGS}.")
    return [updates >> k for k in range(DOUBLINGS, -1, -1)]


def trained(plan: Recipe, images: ImageSet, work: Path) -> Model:
    """The whole training; the average of the weights at each mark lies in a file of its own."""
    kept = marks(plan.train.steps)

    def keep(step: Step) -> None:
        path = weights_of(work, plan, step.number)
        if step.number in kept and not path.exists():
            weights = half_precision(work, step.ema.net)
            with atomic(path) as part:
                save_file({name: one.contiguous() for name, one in weights.items()}, part)

    return fit(plan, images, work / plan.name, work / f"{plan.name}-state", keep)


def weights_of(work: Path, plan: Recipe, update: int) -> Path:
    """The file of the average after so many updates."""
    return work / f"{plan.name}-{update}.safetensors"


def at_mark(model: Model, path: Path, update: int) -> Path:
    """A model's folder with the weights it had at a mark. Raises ParameterError without them."""
    if not path.exists():
        cure = f"Remove {model.folder} and its state, and all is trained again"
        raise ParameterError(f"{path}: the weights of update {update} are gone. {cure}.")
    model.denoiser.net.load_state_dict(load_file(path))
    spec = {name: model.spec[name] for name in KEPT}
    arguments = model.spec["network"]["arguments"]
    folder = path.with_suffix("")
    side = model.shape[-1]
    seen = update * BATCH
    given = (folder, model.denoiser, arguments, model.stretch, side)
    return models.save(*given, **spec, curve=[], images_seen=seen, stages=[])


def bands(folder: Path | str, n: int) -> dict:
    """What `study where` finds of a model: its floor and a row a level."""
    table = where.measure(str(folder), n, where.SIGMAS)
    found = [table.find(sigma=sigma) for sigma in (*sorted(where.SIGMAS), None)]
    rows = [{k: v for k, v in row.items() if k != "computed_on"} for row in found]
    return {"floor": table.more["floor"], "levels": rows}


def folder_of(name: str, args: argparse.Namespace) -> Path:
    """A shipped model's; in a trial a copy, since the shipped one keeps its number of images."""
    folder = models.find(name)
    if args.n == where.MOST:
        return folder
    copy = args.work / f"{folder.name}-{args.n}-{models.load(folder).spec['sha256'][:12]}"
    if not copy.exists():
        with atomic_folder(copy) as part:
            left_out = shutil.ignore_patterns(where.FILE)
            shutil.copytree(folder, part, ignore=left_out, dirs_exist_ok=True)
    return copy


def rises(row: dict) -> list[tuple[float, float]]:
    """What each level of a stored row costs: the rise from the one before, and its error.

    The first is above the floor; the last ends with noise alone.
    """
    found = []
    before = row["floor"]
    for level in row["levels"]:
        found.append(difference(level, before))
        before = level
    return found


def whole(row: dict) -> np.ndarray:
    """The distance above the floor from noise alone: of all images, and without each group."""
    ends = row["levels"][-1], row["floor"]
    drawn, floor = (np.array([one["distance"], *one["distances_without"]]) for one in ends)
    return drawn - floor


def with_error(values: np.ndarray) -> tuple[float, float]:
    """What was made of `whole`: of all images, and its standard error by the jackknife."""
    return float(values[0]), float(standard_error(values[1:, None])[0])


def measured(update: int, args: argparse.Namespace) -> dict:
    """Train where that is still to do, and measure the model of a mark."""
    plan = recipe(args.updates)
    model = trained(plan, plan.images("train"), args.work)
    path = weights_of(args.work, plan, update)
    about = {"recipe": plan.as_dict(), "minutes": round(model.spec["seconds"] / 60, 1)}
    return about | bands(at_mark(model, path, update), args.n)


def run(args: argparse.Namespace) -> None:
    """Train, and measure each mark that is not stored already; then the shipped models.

    Raises ParameterError for a trial in the place of the results.
    """
    trial = args.n != where.MOST or args.updates != UPDATES
    check_trial(trial, args.out, "--updates and -n")
    shipped = {name: models.load(name).spec for name in SHIPPED}
    about = {"n": args.n, "updates": args.updates}
    about["shipped_sha256"] = [spec["sha256"] for spec in shipped.values()]
    table = Table(args.out / FILE, about)

    def words(row: dict) -> str:
        return f"distance {row['levels'][-1]['distance']:.2f}"

    for update in marks(args.updates):
        key = {"images": update * BATCH, "role": "one rate"}
        table.row(key, lambda update=update: measured(update, args), words)
    for name, spec in shipped.items():
        seen = sum(stage["images_seen"] for stage in [*spec["stages"], spec])
        key = {"images": seen, "role": name}
        table.row(key, lambda name=name: bands(folder_of(name, args), args.n), words)

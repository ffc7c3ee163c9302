"""What a further stage buys lens150-long: its own loss, and one that is balanced over noise levels.

Both stages go on from the shipped weights, alike in all but the loss. Each is scored as a card has
it, measured as `study census` does, and asked by `study where` at which noise level its error is
born; and its guesses of test lenses stand beside those of the shipped model. One seed each.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import model as models
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..model import Model
from ..runtime import best_device
from ..scores.card import ENOUGH, check_numbers
from ..scores.features import extractor
from ..storage import fingerprint_of, read_json, root, studies_folder
from ..training.fit import fit
from ..training.recipe import Recipe
from ..training.recipes import LENS150_LONG
from . import cards, choices, growth, where
from .samplers import difference
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study growth_on"
FILE = "growth-on.json"
START = "lens150-long"
STAGES = {"on-balanced": True, "on": False}  # is the loss balanced?
STEPS = 4_500
GUESSED = 512  # test lenses
HEADS = ("", *(f"σ = {sigma:g}" for sigma in choices.LEVELS), "noise alone")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("names", nargs="*", help=f"of {', '.join(STAGES)}; both, if none")
    parser.add_argument("--steps", type=int, default=STEPS, help="updates of 32 images")
    parser.add_argument("-n", type=int, default=ENOUGH, help="images to generate")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument("--work", type=Path, default=root() / "runs" / "growth", help="models")


def recipe(name: str, steps: int = STEPS) -> Recipe:
    """The recipe of a stage: that of lens150-long, with batches and a rate for one that goes on."""
    changes = {"steps": steps, "batch": 32, "lr": 4e-4, "decay_share": 0.9, "save_every": 250}
    changes |= {"held_out_every": max(1, steps // 9), "balance": STAGES[name]}
    trial = "" if steps == STEPS else f"-{steps}"
    return replace(LENS150_LONG.scaled(**changes), name=f"growth-{name}{trial}")


def guesses(model: Model, shipped: Model, clean: np.ndarray) -> dict:
    """How far the squared error of a guess lies from the shipped model's, at `choices.LEVELS`.

    `guess` is the mean of ln(error / shipped model's) over lenses (n, 1, H, W), `guess_error` its
    standard error.
    """
    apart = np.log(choices.errors(model, clean) / choices.errors(shipped, clean))
    error = apart.std(0, ddof=1) / len(apart) ** 0.5
    return {"guess": apart.mean(0).tolist(), "guess_error": error.tolist()}


def trained(plan: Recipe, shipped: Model, work: Path) -> Model:
    """The model of a stage, from its folder where it lies there already, made of the same."""
    folder = work / plan.name
    if folder.exists():
        model = models.load(folder)
        begun = [stage["sha256"] for stage in model.spec["stages"]][-1:]
        own = model.spec["recipe"]["train"]
        same = fingerprint_of(own) == fingerprint_of(plan.as_dict()["train"])
        if same and begun == [shipped.spec["sha256"]]:
            return model
    return fit(plan, plan.images("train"), folder, work / f"{plan.name}-state", start=shipped)


def compute(name: str, shipped: Model, test: ImageSet, args: argparse.Namespace) -> dict:
    """Train a stage where that is still to do, and measure it."""
    model = trained(recipe(name, args.steps), shipped, args.work)
    row = {key: model.spec[key] for key in ("recipe", "images_seen", "seconds", "sha256")}
    clean = lenses("test", test.pixels.shape[-1], noiseless=True).pixels[: min(GUESSED, args.n)]
    row |= guesses(model, shipped, clean)
    net = extractor("efficientnet", best_device())
    row |= cards.card(model, model.sampling, net, test, args.n)
    return row | {"bands": growth.bands(model.folder, min(where.MOST, args.n))}


def by_level(rows: list[dict], shipped: list[dict]) -> list[tuple[str, ...]]:
    """Of stored stages: what a guess is worth, then lenses restored from each noise level.

    Guesses stand against those of the shipped model, distances less those of its rows of `study
    where`, and those of the first stage less the second's, in pairs of equal images.
    """
    found = []
    for row in rows:
        each = zip(row["guess"], row["guess_error"], strict=True)
        cells = [f"{np.expm1(x):+.1%} ± {np.exp(x) * error:.1%}" for x, error in each]
        found.append((f"squared error of a guess, {row['name']} against {START}", *cells, ""))
    levels = {row["name"]: row["bands"]["levels"] for row in rows}
    pairs = [(name, START) for name in levels]
    pairs += [tuple(levels)] if len(levels) == 2 else []
    levels[START] = shipped
    for one, other in pairs:
        both = [{row["sigma"]: row for row in levels[name]} for name in (one, other)]
        apart = {s: "{:+.2f} ± {:.2f}".format(*difference(both[0][s], both[1][s])) for s in both[0]}
        cells = [apart.get(sigma, "") for sigma in (*choices.LEVELS, None)]
        found.append((f"distance of lenses restored from there, {one} less {other}", *cells))
    return found


def stored() -> list[tuple[str, ...]]:
    """`by_level` of what is stored. Raises DataError where that is missing or damaged."""
    rows = read_json(studies_folder() / FILE, f"Make it: {EXAMPLE}")["rows"]
    cure = f"Make it: python -m lensdiff study where {START}"
    return by_level(rows, read_json(models.find(START) / where.FILE, cure)["rows"])


def run(args: argparse.Namespace) -> None:
    """Train, score and measure each stage that is not stored already, beside the shipped model.

    Raises ParameterError for an unknown name, or a trial in the place of the results.
    """
    unknown = sorted({*args.names} - {*STAGES})
    if unknown:
        raise ParameterError(f"There is no stage {unknown[0]!r}; there are {', '.join(STAGES)}.")
    trial = args.n != ENOUGH or args.steps != STEPS
    check_trial(trial, args.out, "--steps and -n")
    cards.check(args.n)
    shipped = models.load(START)
    test = lenses("test", shipped.shape[-1])
    check_numbers(test, args.n)
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "steps": args.steps, "start_sha256": shipped.spec["sha256"]}
    table = Table(args.out / FILE, about | {"extractor_sha256": net.sha256})
    if "shipped" not in table.more:
        table.write(shipped=cards.of_features(shipped, net, test, args.n))
    for name in args.names or STAGES:
        table.row({"name": name}, lambda name=name: compute(name, shipped, test, args), _words)


def _words(row: dict) -> str:
    return f"excess {row['distance'] - row['floor']:.2f} ± {row['excess_error']:.2f}"

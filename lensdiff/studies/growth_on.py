"""What a further stage buys the long-trained models: their own loss, or one balanced over noise.

Both stages go on from the shipped weights, with all weights learning, alike in all but the loss.
Each is scored as a card has it, measured as `study census` does, and asked by `study where` at
which noise level its error is born; and its guesses of test lenses stand beside those of the
shipped model. One seed each.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import model as models
from ..data.images import ImageSet, lenses
from ..errors import DataError, ParameterError
from ..model import Model
from ..runtime import best_device
from ..scores.card import ENOUGH, check_numbers
from ..scores.features import extractor
from ..storage import fingerprint_of, read_json, root, studies_folder
from ..training.fit import fit
from ..training.recipe import Recipe
from ..training.recipes import LENS64_LONG, LENS150_LONG
from . import cards, census, choices, growth, where
from .samplers import difference
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study growth_on"
FILE = "growth-on.json"
START = "lens150-long"
STAGES = {"on-balanced": True, "on": False}  # is the loss balanced?
GUESSED = 512  # test lenses
HEADS = ("", *(f"σ = {sigma:g}" for sigma in choices.LEVELS), "noise alone")


@dataclass(frozen=True)
class Start:
    """What a stage goes on from: the recipe of a shipped model, updates, and an end of names."""

    recipe: Recipe
    steps: int
    end: str = ""


STARTS = {START: Start(LENS150_LONG, 4_500), "lens64-long": Start(LENS64_LONG, 10_000, "-64")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("names", nargs="*", help=f"of {', '.join(STAGES)}; both, if none")
    parser.add_argument("--start", choices=STARTS, default=START, help="the shipped model")
    parser.add_argument("--steps", type=int, help="updates of 32 images, in place of the start's")
    parser.add_argument("-n", type=int, default=ENOUGH, help="images to generate")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument("--work", type=Path, default=root() / "runs" / "growth", help="models")


def file_of(start: str) -> str:
    """The table's name for stages of this shipped model."""
    return FILE.replace(".", f"{STARTS[start].end}.")


def recipe(name: str, start: str = START, steps: int | None = None) -> Recipe:
    """The recipe of a stage: that of its start, all weights learning, in batches of 32.

    `steps` updates, or as many as the start has.
    """
    known = STARTS[start]
    count = known.steps if steps is None else steps
    changes = {"steps": count, "batch": 32, "lr": 4e-4, "decay_share": 0.9, "save_every": 250}
    changes |= {"held_out_every": max(1, count // 9), "balance": STAGES[name], "learns": ()}
    trial = "" if count == known.steps else f"-{count}"
    return replace(known.recipe.scaled(**changes), name=f"growth-{name}{known.end}{trial}")


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
    model = trained(recipe(name, args.start, args.steps), shipped, args.work)
    row = {key: model.spec[key] for key in ("recipe", "images_seen", "seconds", "sha256")}
    clean = lenses("test", test.pixels.shape[-1], noiseless=True).pixels[: min(GUESSED, args.n)]
    row |= guesses(model, shipped, clean)
    net = extractor("efficientnet", best_device())
    row |= cards.card(model, model.sampling, net, test, args.n)
    return row | {"bands": growth.bands(model.folder, min(where.MOST, args.n))}


def by_level(rows: list[dict], shipped: list[dict], start: str = START) -> list[tuple[str, ...]]:
    """Of stored stages: what a guess is worth, then lenses restored from each noise level.

    Guesses stand against those of the shipped model, distances less those of its rows of `study
    where`, and those of the first stage less the second's, in pairs of equal images.
    """
    found = []
    for row in rows:
        each = zip(row["guess"], row["guess_error"], strict=True)
        cells = [f"{np.expm1(x):+.1%} ± {np.exp(x) * error:.1%}" for x, error in each]
        found.append((f"squared error of a guess, {row['name']} against {start}", *cells, ""))
    levels = {row["name"]: row["bands"]["levels"] for row in rows}
    pairs = [(name, start) for name in levels]
    pairs += [tuple(levels)] if len(levels) == 2 else []
    levels[start] = shipped
    for one, other in pairs:
        both = [{row["sigma"]: row for row in levels[name]} for name in (one, other)]
        apart = {s: "{:+.2f} ± {:.2f}".format(*difference(both[0][s], both[1][s])) for s in both[0]}
        cells = [apart.get(sigma, "") for sigma in (*choices.LEVELS, None)]
        found.append((f"distance of lenses restored from there, {one} less {other}", *cells))
    return found


def _table(start: str) -> dict:
    return read_json(studies_folder() / file_of(start), f"Make it: {EXAMPLE} --start {start}")


def _levels(start: str) -> dict:
    cure = f"Make it: python -m lensdiff study where {start}"
    return read_json(models.find(start) / where.FILE, cure)


def stored(start: str = START) -> list[tuple[str, ...]]:
    """`by_level` of what is stored. Raises DataError where that is missing or damaged."""
    return by_level(_table(start)["rows"], _levels(start)["rows"], start)


def measured(start: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Rows and heads of what is stored of a start, of the stages that went on from it, of lenses.

    Distance less its floor, less that of the start in pairs of equal images, `census.SHOWN`, the
    accuracy of a classifier against test lenses (½ by chance), and the W1 of flux and pieces over
    their bands. Raises DataError as `stored`, and for a start that was not measured itself.
    """
    table = _table(start)
    own = table["shipped"]
    if "census" not in own:
        reason = f"{start} itself was scored by its card's features, without a census"
        raise DataError(f"{file_of(start)}: {reason}. Take a start whose features are not kept.")
    columns = {start: _column(own, own, table["n"])}
    columns |= {row["name"]: _column(row, own, table["n"]) for row in table["rows"]}
    words = ("distance less its floor", f"the same, less that of {start}", *census.SHOWN.values())
    words += ("accuracy of a classifier", "W₁ of flux, in bands", "W₁ of pieces, in bands")
    known = census.shares(own["census"]["counts"]["test"], table["n"])
    columns["test lenses"] = ["", "", *known, "", "", ""]
    return list(zip(words, *columns.values(), strict=True)), ("", *columns)


def _column(row: dict, own: dict, n: int) -> list[str]:
    """The cells of one model in `measured`; `own` is the start's row."""
    found = row["census"]
    scalars = [found["scalars"][key] for key in ("flux_arcsec2", "pieces")]
    bands = [(x["w1"] / x["w1_band"], x["w1_error"] / x["w1_band"]) for x in scalars]
    less = "{:+.2f} ± {:.2f}".format(*difference(row, own)) if row is not own else ""
    cells = [f"{row['distance'] - row['floor']:.2f} ± {row['excess_error']:.2f}", less]
    cells += census.shares(found["counts"]["drawn"], n)
    cells.append("{:.1%} ± {:.1%}".format(*found["two_sample"]))
    return cells + [f"{value:.1f} ± {error:.1f}" for value, error in bands]


def counts(start: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """`where.counts_by_level` of a start and of its stored stages. Raises DataError as `stored`."""
    table = _table(start)
    own = _levels(start)
    found = {start: (own["floor"], own["rows"], own["n"])}
    for row in table["rows"]:
        bands = row["bands"]
        found[row["name"]] = (bands["floor"], bands["levels"], min(where.MOST, table["n"]))
    return where.counts_by_level(found)


def run(args: argparse.Namespace) -> None:
    """Train, score and measure each stage that is not stored already, beside the shipped model.

    Raises ParameterError for an unknown name, or a trial in the place of the results.
    """
    unknown = sorted({*args.names} - {*STAGES})
    if unknown:
        raise ParameterError(f"There is no stage {unknown[0]!r}; there are {', '.join(STAGES)}.")
    own = STARTS[args.start].steps
    steps = own if args.steps is None else args.steps
    trial = args.n != ENOUGH or steps != own
    check_trial(trial, args.out, "--steps and -n")
    cards.check(args.n)
    shipped = models.load(args.start)
    test = lenses("test", shipped.shape[-1])
    check_numbers(test, args.n)
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "steps": steps, "start_sha256": shipped.spec["sha256"]}
    table = Table(args.out / file_of(args.start), about | {"extractor_sha256": net.sha256})
    if "shipped" not in table.more:
        table.write(shipped=cards.of_own(shipped, net, test, args.n))
    for name in args.names or STAGES:
        table.row({"name": name}, lambda name=name: compute(name, shipped, test, args), _words)


def _words(row: dict) -> str:
    return f"excess {row['distance'] - row['floor']:.2f} ± {row['excess_error']:.2f}"

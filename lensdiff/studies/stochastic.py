"""Does fresh noise on the way mend lenses? A model's own sampler beside stochastic DDIM.

A step of DDIM with eta = 1 (Song et al. 2021, eq. 16: DDPM's ancestral sampling) takes out more
noise than its level asks for and adds fresh noise, so that later calls may mend what earlier ones
did (Karras et al. 2022, section 4). DDIM with eta = 0 is the control of the same order; a model's
own sampler may be of second order. All draw the same seeds over the same range of levels, with as
many calls. A row has the distance, and how many lenses have two images or a ring, and each defect.
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
from ..model import Model, Sampling
from ..runtime import best_device
from ..scores.card import FIRST_SEED, check_numbers
from ..scores.distances import frechet
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import read_json, studies_folder
from .census import SHOWN, counts, shares
from .samplers import difference, error, lens_model, with_groups
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study stochastic lens64-long lens150-long"
FILE = "stochastic.json"
TIMES = (1, 2)  # the model's own calls
MOST = 512  # images a row
HEADS = ("lenses", "calls", "distance less its floor", "less the model's own", *SHOWN.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("models", nargs="+", help="shipped models, or folders")
    parser.add_argument("-n", type=int, default=MOST, help="images a row")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def ways(own: Sampling) -> list[Sampling]:
    """Its own sampler, DDIM without and with fresh noise, at `TIMES` its own steps; own first."""
    found = []
    for times in TIMES:
        longer = replace(own, steps=times * own.steps)
        found.append(longer)
        found += [replace(own, sampler="ddim", eta=eta, steps=longer.calls) for eta in (0.0, 1.0)]
    return list(dict.fromkeys(found))


def look(model: Model, sampling: Sampling, net: nn.Module, real: Statistics) -> dict:
    """Calls, distance and counts of `real.n` images. MetricError where one can't be measured."""
    images = as_stored(model.draw(real.n, FIRST_SEED, sampling=sampling))
    found = statistics(net, torch.from_numpy(images).split(64), real.n, str(sampling))
    return {"calls": sampling.calls, **with_groups(found, real), "counts": counts(images)}


def of_test(net: nn.Module, test: ImageSet, real: Statistics) -> dict:
    """The floor: distance and counts of as many other test lenses."""
    rows = range(real.n, 2 * real.n)
    others = as_stored(np.asarray(test.pixels[rows.start : rows.stop]))
    return {"floor": frechet(reference(net, test, rows), real), "counts": counts(others)}


def lines(rows: list[dict], n: int) -> list[tuple[str, ...]]:
    """Of stored rows of `n` images: whose lenses, calls, excess, difference, shares of defects.

    Errors of an excess leave out that of the floor; those of shares are binomial. Of a name's
    weights, the last that were stored.
    """
    found = []
    floors = {row["name"]: row for row in rows if row["role"] == "test lenses"}
    for name, test in floors.items():
        same = [row for row in rows if row["name"] == name]
        same = [row for row in same if row["model_sha256"] == test["model_sha256"]]
        drawn = [row for row in same if row["role"] == "drawn"]
        for row in sorted(drawn, key=lambda row: row["calls"]):
            plain = "its own sampler" if row["sampler"] == drawn[0]["sampler"] else "DDIM"
            words = f"{name}, {'stochastic DDIM' if row['eta'] else plain}"
            apart = difference(row, drawn[0])  # its own comes first
            less = "{:+.2f} ± {:.2f}".format(*apart) if row is not drawn[0] else ""
            excess = f"{row['distance'] - test['floor']:.2f} ± {error(row):.2f}"
            found.append((words, str(row["calls"]), excess, less, *shares(row["counts"], n)))
        found.append((f"test lenses, for {name}", "", "", "", *shares(test["counts"], n)))
    return found


def stored() -> list[tuple[str, ...]]:
    """The `lines` of the stored table. Raises DataError where it is missing or damaged."""
    table = read_json(studies_folder() / FILE, f"Make it: {EXAMPLE}")
    return lines(table["rows"], table["n"])


def run(args: argparse.Namespace) -> None:
    """Draw, score and count each row that is not stored already.

    Raises ParameterError for a trial in the place of the results, and for models whose own sampler
    is stochastic already; MetricError for too few or too many images.
    """
    check_trial(args.n != MOST, args.out, "-n")
    models = {name: lens_model(name) for name in args.models}
    for name, model in models.items():
        if model.sampling.eta:
            raise ParameterError(f"{name} is sampled with fresh noise already. Take another model.")
        check_numbers(lenses("test", model.shape[-1]), args.n, model.shape)
    net = extractor("efficientnet", best_device())
    table = Table(args.out / FILE, {"n": args.n, "extractor_sha256": net.sha256})
    for name, model in models.items():
        _measure(name, model, net, lenses("test", model.shape[-1]), table)


def _measure(name: str, model: Model, net: nn.Module, test: ImageSet, table: Table) -> None:
    real = reference(net, test, range(table.about["n"]))
    key = {"name": name, "model_sha256": model.spec["sha256"]}
    table.row(key | {"role": "test lenses"}, lambda: of_test(net, test, real))
    for way in ways(model.sampling):
        given = key | {"role": "drawn", "sampler": way.sampler, "eta": way.eta, "steps": way.steps}
        table.row(given, lambda way=way: look(model, way, net, real), _words)


def _words(row: dict) -> str:
    return f"distance {row['distance']:.2f}, {row['counts']['broken_ridge']} ridges jump"

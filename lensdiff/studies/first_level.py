"""At which noise level sampling should begin: pure noise of too low a level lacks the mean image.

A sampler begins with noise alone, which is what noised images look like only where the first level
hides them all, and their mean, too. Begun at sigma, the path of normal data whose mean lies |mean|
from the origin ends |mean| / sqrt(std^2 + sigma^2) of their standard deviations short of it, as the
exact solution x - mean ~ sqrt(std^2 + sigma^2) says; `shift` is that for large sigma. The first
levels are compared on seeds and test images that no card uses; the best gets a card.
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
from ..scores.card import ENOUGH, check_numbers
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import read_json, studies_folder
from . import cards, growth_on
from .samplers import difference, lens_model, with_groups
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study first_level lens150-long lens64-long"
FILE = "first-level.json"
TIMES = (1, 2, 4, 8)  # the model's own first level
LOOKED = 512  # images of each level: the test images behind those of cards, and seeds of their own
SEED = 2_000_000
HEADS = ("model", "lenses", "begun at σ", "mean image / σ", "distance", "less begun at its own")
STAGE_HEADS = ("weights", "begun at σ", "distance", "less lens150-long begun there")
STAGE_HEADS += ("less lens150-long as shipped", "less `on` begun there", "accuracy of a classifier")
STAGES = {f"runs/growth/growth-{name}": name for name in growth_on.STAGES}  # by their folders
CONTROL = "runs/growth/growth-on"
ROLES = {"look": "others, 512", "card": "of the card, 2,048"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("models", nargs="+", help="shipped models, or folders")
    parser.add_argument("--times", type=float, nargs="+", default=TIMES, help="the own first level")
    parser.add_argument("-n", type=int, default=ENOUGH, help="images of the card")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def shift(model: Model, images: ImageSet, n: int = 1_000) -> float:
    """|mean| of the first `n` images, in the network's units, over the model's first level."""
    mean = model.stretch(torch.from_numpy(np.array(images.pixels[:n]))).mean(0)
    return float(mean.square().sum().sqrt()) / model.sampling.high


def look(model: Model, sampling: Sampling, net: nn.Module, real: Statistics) -> dict:
    """How far the images of a sampling are from `real`."""
    images = as_stored(model.draw(real.n, SEED, sampling=sampling))
    found = statistics(net, torch.from_numpy(images).split(64), real.n, str(sampling))
    return with_groups(found, real)


def chosen(rows: list[dict]) -> dict:
    """Of the rows of one model's levels the nearest to the test images that no card uses."""
    return min(rows, key=lambda row: row["distance"])


def label(row: dict) -> str:
    """What a card of 150 pixels is called beside those of models; nothing for rows of other kinds.

    Nor has the control of `study growth_on` a name there: `stages` has it.
    """
    reaches = "3 to 6" in row.get("census", {}).get("power_ratio", {})
    reaches &= row["name"] != CONTROL
    return f"{_short(row)}, begun at σ = {row['high']:g}" if reaches else ""


def _short(row: dict) -> str:
    """The name of a row's model; that of a stage of `study growth_on` as it is called there."""
    name = row["name"]
    return f"{growth_on.START}, {STAGES[name]}" if name in STAGES else name


def lines(rows: list[dict]) -> list[tuple[str, ...]]:
    """Of stored rows: model, images, first level, |mean| over it, distance, and less the own's."""
    found = []
    shifts = {row["name"]: row["shift"] for row in rows if row["role"] == "mean"}
    for name, at_own in shifts.items():
        for role, words in ROLES.items():
            of_role = [row for row in rows if (row["name"], row["role"]) == (name, role)]
            for row in of_role:
                own = of_role[0]  # the model's own level comes first
                apart = "{:+.2f} ± {:.2f}".format(*difference(row, own)) if row is not own else ""
                mean = f"{at_own * own['high'] / row['high']:.2f}"
                cells = (f"{row['high']:g}", mean, f"{row['distance']:.2f}", apart)
                found.append((_short(row), words, *cells))
    return found


def stored() -> list[tuple[str, ...]]:
    """The `lines` of the stored table. Raises DataError where it is missing or damaged."""
    return lines(read_json(studies_folder() / FILE, f"Make it: {EXAMPLE}")["rows"])


def stages(rows: list[dict], census: dict[str, dict]) -> list[tuple[str, ...]]:
    """Cards of lens150-long and of the stages that went on from it, in pairs of equal images.

    A row has its first level, its distance, what it has less than the shipped weights begun at that
    level, than these begun at their own, and than the stage `on` begun at that level; and the
    accuracy of a classifier between it and test lenses (½ by chance), which shipped weights have in
    their row of `census`.
    """
    names = {growth_on.START: growth_on.START, **STAGES}
    found = {(row["name"], row["high"]): row for row in rows if row["role"] == "card"}
    lines = []
    for (name, high), row in found.items():
        if name not in names:
            continue
        own = min(level for one, level in found if one == growth_on.START)
        keys = [(growth_on.START, high), (growth_on.START, own)]
        keys.append((CONTROL if name != growth_on.START else "", high))
        others = [found.get(key) for key in keys]
        pairs = [difference(row, one) if one not in (None, row) else None for one in others]
        apart = ["{:+.2f} ± {:.2f}".format(*pair) if pair else "" for pair in pairs]
        measured = row.get("census") or census.get(name)
        told = "{:.1%} ± {:.1%}".format(*measured["two_sample"]) if measured else ""
        lines.append((names[name], f"{high:g}", f"{row['distance']:.2f}", *apart, told))
    return lines


def run(args: argparse.Namespace) -> None:
    """Look at each first level that is not stored, then make the card of the best and of the own.

    Raises ParameterError for a trial in the place of the results, and for levels of a schedule.
    """
    check_trial(args.n != ENOUGH, args.out, "-n")
    cards.check(args.n)
    net = extractor("efficientnet", best_device())
    table = Table(args.out / FILE, {"n": args.n, "extractor_sha256": net.sha256})
    for name in args.models:
        model = lens_model(name)
        if model.sampling.levels != "log":
            raise ParameterError(f"{name} has levels of another kind. Take one of log levels.")
        test = lenses("test", model.shape[-1])
        check_numbers(test, args.n, model.shape)
        _measure(name, model, net, test, args, table)


def _measure(
    name: str, model: Model, net: nn.Module, test: ImageSet, args: argparse.Namespace, table: Table
) -> None:
    real = reference(net, test, range(2 * args.n, min(2 * args.n + LOOKED, len(test))))
    own = model.sampling
    key = {"name": name, "model_sha256": model.spec["sha256"]}
    for times in dict.fromkeys((1, *args.times)):  # its own first
        sampling = replace(own, high=times * own.high)
        given = {**key, "role": "look", "high": sampling.high}
        table.row(given, lambda s=sampling: look(model, s, net, real), _words)
    looks = [row for row in table.rows if (row["name"], row["role"]) == (name, "look")]
    clean = lenses("test", model.shape[-1], noiseless=model.telescope is not None)
    table.row({**key, "role": "mean"}, lambda: {"shift": shift(model, clean)})
    best = replace(own, high=chosen(looks)["high"])
    for sampling in dict.fromkeys((own, best)):
        given = {**key, "role": "card", "high": sampling.high}
        if sampling == own:
            table.row(given, lambda: cards.of_own(model, net, test, args.n), _words)
        else:
            table.row(given, lambda s=sampling: cards.card(model, s, net, test, args.n), _words)


def _words(row: dict) -> str:
    return f"distance {row['distance']:.2f}"

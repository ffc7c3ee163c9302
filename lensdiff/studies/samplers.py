"""Every sampler at several numbers of network calls, scored.

All draw the same seeds through the model's own range of levels, so that two settings are compared
pair by pair. With 256 images a setting it takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import Module

from .. import model as models
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..model import Model, Sampling
from ..runtime import best_device, machine
from ..scores.card import FIRST_SEED, check_numbers
from ..scores.distances import compared, frechet, kid
from ..scores.features import extractor
from ..scores.jackknife import standard_error, without_groups
from ..scores.statistics import Statistics, reference, statistics
from .cost import significant
from .table import Table

EXAMPLE = "python -m lensdiff study samplers runs/my-model --calls 10 20 --most 0"
WAYS = (("ddim", 0.0), ("ddim", 1.0), ("heun", 0.0), ("dpmpp_2m", 0.0))
CALLS = (5, 10, 20, 50)
OWN = ("folder-", "pictures-")  # what the names of sets read from files begin with
SCORED = ("diverse-", "colour-", "digits-")  # and those of sets with test images of their kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("-n", type=int, default=160, help="images a setting")
    parser.add_argument("--calls", type=int, nargs="+", default=CALLS, help="of each sampler")
    parser.add_argument("--most", type=int, default=100, help="steps of the longest DDIM; 0: none")
    parser.add_argument("--own", action="store_true", help="also the model's own, also in fp32")
    parser.add_argument(
        "--no-thousand",
        dest="thousand",
        action="store_false",
        help="don't time 1,000 steps: it takes minutes",
    )


def settings(base: Sampling, calls: tuple[int, ...] = CALLS, most: int = 100) -> list[Sampling]:
    """Every sampler at every number of calls, and DDIM at `most`.

    Heun makes an odd number of calls: the one below an even one.
    """
    chosen = []
    for sampler, eta in WAYS:
        for n in calls:
            steps = (n + 1) // 2 if sampler == "heun" else n
            chosen.append(replace(base, sampler=sampler, eta=eta, steps=steps))
    longest = [replace(base, sampler="ddim", eta=0.0, steps=most)] if most else []
    return [*chosen, *longest]


def score(model: Model, sampling: Sampling, net: torch.nn.Module, real: Statistics, n: int) -> dict:
    """Draw and score one setting."""
    seeds = range(FIRST_SEED, FIRST_SEED + n)
    found = statistics(net, model.generate(seeds, sampling), n, str(sampling))
    return {"calls": sampling.calls, **with_groups(found, real)}


def with_groups(found: Statistics, real: Statistics) -> dict:
    """`compared`, and the distances without each group of images, from which errors are made."""
    without = [round(float(one), 4) for one in without_groups(found, real)]
    return {**compared(found, real), "distances_without": without}


def error(row: dict) -> float:
    """Standard error of a stored row's distance."""
    return float(standard_error(np.array(row["distances_without"])[:, None])[0])


def difference(row: dict, other: dict) -> tuple[float, float]:
    """How far the distance of `row` is above that of `other`, and its standard error.

    Both have the same seeds and the same reference, whose groups are left out together.
    """
    apart = np.subtract(row["distances_without"], other["distances_without"])
    return row["distance"] - other["distance"], float(standard_error(apart[:, None])[0])


def timed(model: Model, sampling: Sampling, what: str, samples: int = 16) -> dict:
    """Seconds that `samples` images take."""
    list(model.generate(range(1), replace(sampling, steps=1)))  # a device's first call takes longer
    start = time.perf_counter()
    list(model.generate(range(samples), sampling))
    seconds = significant(time.perf_counter() - start, 4)
    found = {"what": what, "samples": samples, "calls": sampling.calls, "seconds": seconds}
    return {**found, "machine": machine()}


def learnt_by(spec: dict) -> str:
    """The name of the set that a model with this description learnt, or nothing.

    Of pairs that a teacher drew (`training.reflow`), it is what the teacher learnt.
    """
    name = str(dict(spec.get("data") or {}).get("name", ""))
    before = spec.get("stages") or []
    if name.startswith("pairs of ") and before:
        return learnt_by({"data": before[-1].get("data"), "stages": before[:-1]})
    return name


def check_of_lenses(model: Model, name: str) -> None:
    """Raises ParameterError for a model that did not learn the lenses it is to be held against."""
    learnt = learnt_by(model.spec)
    if learnt and not learnt.startswith("diverse-"):
        cure = "This study is for models of simulated lenses"
        raise ParameterError(f"{name} learnt {learnt}. {cure}.")


def lens_model(name: str, side: int | None = None) -> Model:
    """A diffusion model of simulated grey lenses, of `side` pixels where that is given.

    Raises ParameterError for another one.
    """
    model = models.load(name)
    if not isinstance(model, Model):
        raise ParameterError(f"{name} is a classifier or an autoencoder: it draws no lenses.")
    check_of_lenses(model, name)
    if side is not None and model.shape != (1, side, side):
        raise ParameterError(f"{name} draws no lenses of {side} pixels. Take one that does.")
    return model


def timings(model: Model, thousand: bool) -> list[dict]:
    """How long sixteen images take, ancestral in 1,000 steps and by Heun's method in 18."""
    clamp = model.sampling.clamp
    karras = Sampling("heun", 18, "karras", low=0.01, clamp=clamp)
    rows = [timed(model, karras, "Heun, 18 steps")]
    if thousand:
        ddpm = Sampling("ddim", 1_000, "linear", eta=1.0, clamp=clamp)
        rows.insert(0, timed(model, ddpm, "ancestral, 1,000 steps"))
    return rows


def circumstances(model: Model, net: Module, test: ImageSet, n: int) -> dict:
    """What all rows of a sweep have in common."""
    base = model.sampling
    clamped = ", clamped" if base.clamp else ""
    return {
        "model_sha256": model.spec["sha256"],
        "extractor": net.name,
        "n": n,
        "reference": f"test set of {test.name}, images 0 to {n - 1}",
        "levels": f"{base.levels} levels {base.high:g} to {base.low:g}{clamped}",
        "first_seed": FIRST_SEED,
    }


def sweep(
    name: str,
    n: int,
    calls: tuple[int, ...],
    most: int,
    own: bool = False,
    thousand: bool = True,
    file: Path | None = None,
) -> Table:
    """All settings that `file`, else samplers.json beside the model, lacks; and the timing."""
    model = lens_model(name)
    net = extractor("efficientnet", best_device())
    test = lenses("test", model.shape[-1])
    check_numbers(test, n, model.shape)
    first = reference(net, test, range(n))
    second = reference(net, test, range(n, 2 * n))
    base = model.sampling
    about = circumstances(model, net, test, n)
    table = Table(file or model.folder / "samplers.json", about)
    # beside the rows: another processor's last digit is no other circumstance
    table.more |= {"floor": frechet(second, first), "kid_floor": kid(second, first)[0]}
    chosen = [(model, one) for one in settings(base, calls, most)]
    if own:
        chosen += [(model, base), (models.load(name, precision="fp32"), base)]
    for judged, sampling in chosen:
        key = {"sampler": sampling.sampler, "eta": sampling.eta, "steps": sampling.steps}
        key["precision"] = judged.denoiser.precision
        table.row(
            key,
            lambda judged=judged, sampling=sampling: score(judged, sampling, net, first, n),
            lambda row: f"{row['distance']:.2f}",
        )
    if len(table.more.get("timing", [])) < 1 + thousand:
        table.write(timing=timings(model, thousand))
    return table


def run(args: argparse.Namespace) -> None:
    """Score what is missing, and write samplers.json beside the weights."""
    sweep(args.model, args.n, tuple(args.calls), args.most, args.own, args.thousand)

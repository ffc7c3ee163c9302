"""At which noise level a model's error is born: test lenses noised to sigma, and taken from there.

Test lenses, noiseless where the model learnt such, get noise of each level sigma, and the model's
own sampler takes them from there to images, which its telescope, if any, observes. What they lack
at a low level the model can't lose at a higher one, so that the rise from one level to the next is
what the levels between cost. The last row begins with noise alone. Of simulated lenses each row
counts images and defects, too (those of older tables do not). Rows share lenses and reference, so
that a rise has an error of its own (`samplers.difference`). A model of classes can be asked class
by class: lenses of one class alone, restored as such; and how many of them a classifier, the judge,
still recognises.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import model as models
from ..data.images import ImageSet, lenses
from ..diffusion.process import SCHEDULES
from ..diffusion.sampling import SAMPLERS, noise
from ..errors import DataError, MetricError, ParameterError
from ..model import Model, Sampling
from ..networks import classifier
from ..runtime import best_device, machine
from ..scores.card import FIRST_SEED, check_numbers
from ..scores.distances import kid
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import is_shipped
from .census import SHOWN, counts, shares
from .samplers import check_of_lenses, with_groups
from .scoring import real_images
from .table import Table

EXAMPLE = "python -m lensdiff study where lens150"
FILE = "where.json"
SIGMAS = (0.5, 2.0, 5.0, 12.0, 40.0)
MOST = 512  # images a level, where there are as many
BATCH = 64
WORDS = "{distance:.2f}".format_map  # of a row
Asked = Callable[[Tensor], dict]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("-n", type=int, help="images a level (512, or half of what there is)")
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="noise levels")
    parser.add_argument("--label", help="lenses of this class alone, restored as such")
    parser.add_argument("--judge", help="a classifier that says how many show the --label: judge64")
    parser.add_argument("--data", type=Path, help="your files: those that the model did not learn")


def from_level(sampling: Sampling, sigma: float) -> Sampling:
    """The sampling that begins at `sigma`, with its levels as dense in ln(sigma) as before.

    Raises ParameterError for a level outside of those it has.
    """
    if sampling.levels in SCHEDULES:
        cure = "Take a model of log levels, as lens150"
        raise ParameterError(f"The model has a schedule's own levels ({sampling.levels}). {cure}.")
    if not sampling.low < sigma <= sampling.high:
        known = f"above {sampling.low:g} and at most {sampling.high:g}"
        raise ParameterError(f"sigma is {sigma:g}; the model's levels are {known}.")
    share = math.log(sigma / sampling.low) / math.log(sampling.high / sampling.low)
    return replace(sampling, steps=1 + max(1, round((sampling.steps - 1) * share)), high=sigma)


def restored(
    model: Model, clean: Tensor, sampling: Sampling, seeds: range, label: str | None = None
) -> Tensor:
    """Images (n, C, H, W) in [0, 1], noised to the first level and sampled from there.

    They are noiseless where the model has a telescope, as observed where it has none. Returns what
    the telescope records, or the images, in [0, 1], on the CPU.
    """
    device = next(model.denoiser.parameters()).device
    wanted = None if label is None else model.labels([label] * len(clean)).to(device)
    start = model.stretch(clean) + sampling.high * noise(seeds, clean.shape[1:])
    sampler = SAMPLERS[sampling.sampler]
    start = start.to(device)
    denoise = model.denoise(sampling)
    options = sampling.options()
    if sampling.sampler == "ddim":
        options["seeds"] = seeds
    for x in sampler(denoise, start, sampling.sigmas(), label=wanted, **options):
        last = x
    light = model.stretch.inverse(last).clamp(0, 1).cpu()
    return light if model.telescope is None else model.telescope.observe(light, list(seeds))


def _batches(
    model: Model, clean: ImageSet, n: int, sampling: Sampling, label: str | None
) -> Iterator[Tensor]:
    """Restored images of rows n to 2 n, which no reference holds."""
    for first in range(0, n, BATCH):
        count = min(BATCH, n - first)
        rows = torch.from_numpy(clean.pixels[n + first : n + first + count].copy())
        seeds = range(FIRST_SEED + first, FIRST_SEED + first + count)
        yield restored(model, rows, sampling, seeds, label)


def _scored(
    net: nn.Module, first: Statistics, images: Iterable[Tensor], steps: int, asked: Asked
) -> dict:
    """What a row has of numbers, against the reference `first`."""
    images = list(images)
    found = statistics(net, images, first.n, f"{steps} steps")
    row = {"steps": steps, **with_groups(found, first), "computed_on": machine()}
    return row | asked(torch.cat(images))


def _counted(images: Tensor) -> dict:
    """The `census` of bright images and defects; nothing of images that can't be measured."""
    try:
        return {"counts": counts(as_stored(images))}
    except MetricError:  # constant, or of a few pixels
        return {}


def _asking(model: Model, label: str | None, judge: str | None, data: Path | None) -> Asked:
    """What counts images of simulated lenses, and says in how many a judge finds the label."""

    def count(images: Tensor) -> dict:
        return _counted(images) if data is None else {}

    if judge is None:
        return count
    if label is None:
        raise ParameterError("--judge says how many images show a class: give its --label, too.")
    classes = tuple(model.spec["classes"])
    net = classifier.load(models.find(judge), classes)

    def recognised(images: Tensor) -> dict:
        answers = classifier.predict(net, images).argmax(1)
        share = float(np.mean(answers == classes.index(label)))
        return {"recognised": share, **count(images)}

    return recognised


def _checked(name: str, label: str | None, data: Path | None) -> Model:
    """The model of a name. Raises ParameterError where it can't be asked, or not for a class."""
    model = models.load(name)
    if not isinstance(model, Model):
        raise ParameterError(f"{name} draws no images. Take a diffusion model: lens150.")
    if model.autoencoder is not None:
        raise ParameterError(f"{name} learnt latents, not pixels. Take lens150.")
    if data is None:
        check_of_lenses(model, name)
    elif is_shipped(model.folder):
        raise ParameterError(f"{name} is a shipped model. Ask a copy of its folder with --data.")
    elif model.telescope is not None:
        cure = "Leave --data out, or take a model of such files"
        raise ParameterError(f"{name} learnt noiseless lenses, and files have noise. {cure}.")
    known = model.spec["classes"] if model.denoiser.net.classes else []
    if label is not None and label not in known:
        has = f"its classes are {', '.join(known)}" if known else "it was taught none"
        raise ParameterError(f"{name} knows no class {label!r}; {has}.")
    return model


def _sets(model: Model, label: str | None, data: Path | None) -> tuple[ImageSet, ImageSet]:
    """Images that it never saw, as observed and as it learnt such; those of a class."""
    side = model.shape[-1]
    test = lenses("test", side) if data is None else real_images(model, data)[0]
    clean = test
    if model.telescope is not None:
        clean = lenses("test", side, noiseless=True)
    if label is None:
        return test, clean
    if label not in (test.classes or ()):
        raise ParameterError(f"{test.name} has no class {label!r}.")
    rows = np.flatnonzero(test.labels == test.classes.index(label))
    return test.subset(rows, f"{label} alone"), clean.subset(rows, f"{label} alone")


def _fingerprint(judge: str | None) -> str | None:
    return None if judge is None else classifier.read(models.find(judge))[1]["sha256"]


def measure(
    name: str,
    n: int | None,
    sigmas: tuple[float, ...],
    label: str | None = None,
    data: Path | None = None,
    judge: str | None = None,
) -> Table:
    """A row a level, and one of noise alone (sigma None), in where.json beside the weights.

    With a `label`, of that class alone, in where-LABEL.json; with a `judge` also in which share of
    the images it finds that class (`recognised`). Raises ParameterError for what can't be asked.
    """
    model = _checked(name, label, data)
    asked = _asking(model, label, judge, data)
    chosen = {sigma: from_level(model.sampling, sigma) for sigma in sorted(sigmas)}
    test, clean = _sets(model, label, data)
    n = min(MOST, len(test) // 2) if n is None else n
    check_numbers(test, n, model.shape)
    net = extractor("efficientnet", best_device())
    first, second = (reference(net, test, range(k, k + n)) for k in (0, n))
    about = {"model_sha256": model.spec["sha256"], "n": n, "extractor": net.name}
    about["data"] = None if data is None else test.fingerprint  # tables of test lenses have none
    about["judge"] = _fingerprint(judge)
    table = Table(model.folder / (f"where-{label}.json" if label else FILE), about)
    table.more |= {"floor": with_groups(second, first), "kid_floor": kid(second, first)[0]}
    table.more["floor"] |= asked(torch.from_numpy(np.array(test.pixels[n : 2 * n])))

    def keep(key: dict, images: Iterable[Tensor], steps: int) -> None:
        table.row(key, lambda: _scored(net, first, images, steps, asked), WORDS)

    for sigma, sampling in chosen.items():
        images = _batches(model, clean, n, sampling, label)
        keep({"sigma": sigma, "steps": sampling.steps}, images, sampling.steps)
    wanted = None if label is None else model.labels([label] * n)
    images = model.generate(range(FIRST_SEED, FIRST_SEED + n), label=wanted)
    keep({"sigma": None}, images, model.sampling.steps)
    floor = table.more["floor"]["distance"]
    print(f"The floor is {floor:.2f}. What a row has above the one before arises between the two.")
    return table


def counts_by_level(
    tables: dict[str, tuple[dict, list[dict], int]],
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Rows and heads: what share of lenses shows each of `census.SHOWN`, restored from each level.

    Of each name the floor, the rows of levels and the images a level; columns are the levels that
    all have. The second column has the test lenses that the restored ones were; in the last a model
    draws from noise alone. Raises DataError for rows without counts, as older tables have them.
    """
    shared = set.intersection(*({row["sigma"] for row in rows} for _, rows, _ in tables.values()))
    levels = sorted(shared - {None}) + [None] * (None in shared)
    lines = []
    for name, (floor, rows, n) in tables.items():
        at = {row["sigma"]: row for row in rows}
        chosen = [floor, *(at[sigma] for sigma in levels)]
        if not all("counts" in row for row in chosen):
            raise DataError(
                f"The levels of {name} have no counts. Delete that table; make it anew."
            )
        each = [shares(row["counts"], n) for row in chosen]
        for words, cells in zip(SHOWN.values(), zip(*each, strict=True), strict=True):
            lines.append((f"{name}: {words}", *cells))
    heads = ["noise alone" if sigma is None else f"σ = {sigma:g}" for sigma in levels]
    return lines, ("", "test lenses", *heads)


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, and keep the table after each level."""
    measure(args.model, args.n, tuple(args.sigmas), args.label, args.data, args.judge)

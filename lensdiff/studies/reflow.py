"""Reflow: how many network calls straight paths save, and what they cost in quality."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import model as models
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..model import Model
from ..runtime import best_device
from ..scores.card import FIRST_SEED, SampleSizeWarning, card_with_error
from ..scores.features import extractor
from ..scores.statistics import as_stored, statistics, to_uint8
from ..storage import root, studies_folder
from ..training import reflow as training
from ..training.diffusion import TrainConfig
from ..training.published import PUBLISHED
from .recipes import keep_grid
from .table import Table

EXAMPLE = "python -m lensdiff study reflow runs/recipes/ours"
FILE = "reflow.json"
CALLS = (1, 2, 4, 8, 20)
PAIRS = 8_192
UPDATES = 3_000
SCORED = 512
SHOWN = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("model", help="a shipped name, or the folder of a model")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of noise and its images")
    parser.add_argument("--updates", type=int, default=UPDATES, help="of the new training")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate for a score")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "reflow", help="the model and its state"
    )


def config(updates: int) -> TrainConfig:
    """The settings of the new training: those of our recipe, at a lower rate."""
    settings = PUBLISHED["ours"].recipe.train
    return replace(settings, steps=updates, lr=settings.lr / 2, held_out_every=0, save_every=250)


def straightness(model: Model, n: int = 64, steps: int = 20) -> float:
    """How far paths are from straight lines: 0 for lines (Liu et al. 2022, eq. 5, normalised).

    It is the mean square of the path's direction less its mean direction, over the mean square of
    the latter. Directions are by t = sigma / (1 + sigma), along which the textbook's flow runs.
    """
    sampling = replace(model.sampling, sampler="ddim", steps=steps, clamp=False, eta=0.0)
    _, x0 = training.pairs(model, n, FIRST_SEED, sampling)
    sigmas = sampling.sigmas()
    device = next(model.denoiser.parameters()).device
    eps = training.noise(range(FIRST_SEED, FIRST_SEED + n), model.denoised_shape, device)
    mean = eps - torch.from_numpy(x0).to(device)
    x = eps * float(sigmas[0])
    total = 0.0
    weight = 0.0
    with torch.no_grad():
        for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            estimate = model.denoiser(x, sigma)
            direction = (x - estimate) / sigma - estimate  # eps less x0, as they are guessed here
            step = sigma / (1 + sigma) - target / (1 + target)
            total += step * float((direction - mean).square().mean())
            weight += step
            x = estimate + target / sigma * (x - estimate)
    return total / weight / float(mean.square().mean())


def look(
    model: Model, calls: int, net: nn.Module, test: ImageSet, args: argparse.Namespace
) -> dict:
    """The card of `n` images of a number of calls; the first ones are kept beside the table."""
    sampling = replace(model.sampling, sampler="ddim", steps=calls, eta=0.0)
    images = as_stored(model.draw(args.n, FIRST_SEED, sampling=sampling))
    found = statistics(net, torch.from_numpy(images).split(64), args.n, "generated lenses")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleSizeWarning)
        made = card_with_error(net, found, test, sampling, FIRST_SEED, args.n)
    shown = to_uint8(images[:SHOWN]).numpy()
    keep_grid(args.out / "reflow" / f"{model.folder.name}-{calls}.png", shown)
    return {"card": made.as_dict()}


def run(args: argparse.Namespace) -> None:
    """Reflow the model, then score it and its teacher at each number of calls."""
    teacher = models.load(args.model)
    if not isinstance(teacher, Model):
        raise ParameterError(f"{args.model} draws nothing. Take a diffusion model.")
    net = extractor("efficientnet", best_device())
    about = {"teacher_sha256": teacher.spec["sha256"], "n": args.n, "extractor_sha256": net.sha256}
    about |= {"pairs": args.pairs, "updates": args.updates}
    table = Table(args.out / FILE, about)
    place = args.work / "reflow"
    if not (place / models.SPEC).exists():
        plan = config(args.updates)
        training.reflow(teacher, plan, place, args.pairs, state=args.work / "state")
    student = models.load(place)
    test = lenses("test", teacher.shape[-1])
    for name, model in (("teacher", teacher), ("student", student)):
        table.row({"name": name, "role": "path"}, lambda m=model: {"bent": straightness(m)})
        for calls in CALLS:
            table.row(
                {"name": name, "role": "quality", "calls": calls},
                lambda m=model, c=calls: look(m, c, net, test, args),
                lambda row: f"distance {row['card']['distance']:.1f}",
            )

"""Reflow: how many network calls straight paths save, and what they cost in quality.

Beside teacher and student stands a control, the teacher after as many updates without pairs, and
the teacher at its own levels, by DPM-Solver++ and by DDIM, which saves calls without a training.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import model as models
from ..data.images import lenses
from ..errors import ParameterError
from ..model import Model, Sampling
from ..runtime import best_device
from ..scores.card import FIRST_SEED, check_numbers
from ..scores.distances import frechet
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import fingerprint_of, root, studies_folder
from ..training import reflow as training
from ..training.diffusion import TrainConfig
from ..training.fit import fit
from ..training.published import PUBLISHED
from .ablations import keep_pictures
from .recipes import COLUMNS
from .samplers import check_of_lenses, with_groups
from .table import Table

EXAMPLE = "python -m lensdiff study reflow lens64"
FILE = "reflow.json"
CALLS = (1, 2, 4, 8, 16)
PAIRS = 4_096  # by the teacher's own sampling
UPDATES = 1_500
SCORED = 512
SHOWN = 8
SECONDS = {"student": "student_s", "control": "control_s"}  # of their trainings, in the table


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


def control(teacher: Model, plan: TrainConfig, args: argparse.Namespace, name: str) -> Model:
    """The teacher after as many more updates on the lenses themselves, joined with new noise."""
    network = teacher.spec["network"]
    recipe = replace(
        PUBLISHED["ours"].recipe,
        name=name,
        train=plan,
        kind=network["name"],
        network=network["arguments"],
        prediction=teacher.spec["prediction"],
        sampling=teacher.sampling,
        pixels=teacher.shape[-1],
        noiseless=teacher.telescope is not None,
    )
    images = recipe.images("train")
    state = args.work / f"{name}-state"
    return fit(recipe, images, args.work / name, state, start=teacher)


def contender(name: str, teacher: Model, about: dict, args: argparse.Namespace) -> Model:
    """A model of the table, which is trained where it is not in `args.work` already."""
    plan = config(args.updates)
    own = fingerprint_of([about, repr(plan)])[:12]
    if name == "teacher":
        return teacher
    if name == "control":
        return control(teacher, plan, args, f"longer-{own}")
    folder = args.work / f"reflow-{own}"
    state = args.work / f"reflow-{own}-state"
    return training.reflow(teacher, plan, folder, args.pairs, state=state)


def straightness(model: Model, n: int = 64, steps: int = 20) -> float:
    """How far paths are from straight lines: 0 for lines (Liu et al. 2022, eq. 5, normalised).

    It is the mean square of the path's direction less its mean direction, over the mean square of
    the latter. Directions are by t = sigma / (1 + sigma), along which the textbook's flow runs.
    """
    sampling = flow(model, steps)
    eps, x0 = (torch.from_numpy(x) for x in training.pairs(model, n, FIRST_SEED, sampling))
    sigmas = sampling.sigmas()
    device = next(model.denoiser.parameters()).device
    # a line from x0 to high * eps has the noise eps - x0 / high, and this less x0 as its direction
    mean = (eps - x0 * (1 + 1 / float(sigmas[0]))).to(device)
    x = eps.to(device) * float(sigmas[0])
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


def flow(model: Model, calls: int) -> Sampling:
    """Euler's method on the flow, at evenly spaced times: DDIM at their noise levels."""
    high = model.sampling.high
    return Sampling("ddim", calls, "flow", high, clamp=model.sampling.clamp)


def solved(model: Model, calls: int, sampler: str = "dpmpp_2m") -> Sampling:
    """The model's own levels, or fewer of them, by DPM-Solver++ or another sampler."""
    return replace(model.sampling, sampler=sampler, eta=0.0, steps=calls)


def label(sampling: Sampling) -> str:
    """What a row calls a sampling: its sampler; DDIM off the flow with the kind of its levels."""
    off = sampling.sampler == "ddim" and sampling.levels != "flow"
    return f"ddim-{sampling.levels}" if off else sampling.sampler


def ways(name: str, model: Model) -> list[Sampling]:
    """How a model is sampled: along the flow, and the teacher at its own levels as well."""
    chosen = [flow(model, calls) for calls in CALLS]
    if name == "teacher":
        chosen += [solved(model, calls) for calls in CALLS]
        chosen += [solved(model, calls, "ddim") for calls in CALLS]
        chosen.append(model.sampling)
    return chosen


def look(
    model: Model,
    sampling: Sampling,
    net: nn.Module,
    real: Statistics,
    args: argparse.Namespace,
    name: str,
) -> dict:
    """How far `n` images of a sampling are from `real`; the first are kept beside the table."""
    images = as_stored(model.draw(args.n, FIRST_SEED, sampling=sampling))
    picture = f"{name}-{label(sampling)}-{sampling.calls}.png"
    keep_pictures(args.out / "reflow" / picture, images[:SHOWN], COLUMNS)
    found = statistics(net, torch.from_numpy(images).split(64), args.n, str(sampling))
    return with_groups(found, real)


def run(args: argparse.Namespace) -> None:
    """Score the model, its student and a control at each number of calls; train where need be."""
    teacher = models.load(args.model)
    if not isinstance(teacher, Model):
        raise ParameterError(f"{args.model} draws nothing. Take a diffusion model.")
    check_of_lenses(teacher, args.model)
    if teacher.autoencoder is not None:
        raise ParameterError(f"{args.model} learnt latents. Take a model of pixels, as lens64.")
    net = extractor("efficientnet", best_device())
    about = {"teacher_sha256": teacher.spec["sha256"], "n": args.n, "extractor_sha256": net.sha256}
    about |= {"pairs": args.pairs, "updates": args.updates}
    table = Table(args.out / FILE, about)
    test = lenses("test", teacher.shape[-1])
    check_numbers(test, args.n, teacher.shape)
    real = reference(net, test, range(args.n))
    if "floor" not in table.more:
        table.write(floor=frechet(reference(net, test, range(args.n, 2 * args.n)), real))
    trained = functools.cache(lambda name: contender(name, teacher, about, args))

    def bent(name: str) -> dict:
        model = trained(name)
        if name in SECONDS:
            table.more[SECONDS[name]] = model.spec["seconds"]
        return {"bent": straightness(model)}

    for name in ("teacher", *SECONDS):
        table.row({"name": name, "role": "path"}, functools.partial(bent, name))
        for how in ways(name, teacher):  # those of a student are its teacher's
            table.row(
                {"name": name, "role": "quality", "sampler": label(how), "calls": how.calls},
                lambda s=how, k=name: look(trained(k), s, net, real, args, k),
                lambda row: f"distance {row['distance']:.1f}",
            )

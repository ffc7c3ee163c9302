"""What the training of the long-trained lenses leaves open, each choice beside a control.

The first group begins with random weights, at the noise levels of lens64-long: other noise levels,
a loss that is balanced over them, smaller batches, another optimiser. The second goes on from the
weights of lens64-long, with the lenses that it knows, with these turned by any angle, or with
others beside them. All of a group see as many images, with three training seeds. A row has the
distance of drawn images, and the squared error of the guess on test lenses at fixed noise levels,
which tells smaller differences. Last it is asked how much better the long-trained model guesses
lenses that it has learnt than others: as much as further lenses could bring.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import model as models
from ..data.images import TRAIN_IMAGES, ImageSet, lenses
from ..diffusion.process import LogNormal
from ..errors import ParameterError
from ..lensing.population import rotated
from ..lensing.simulate import simulate
from ..lensing.telescope import min_max
from ..model import Model
from ..runtime import best_device, machine, progress
from ..scores.card import FIRST_SEED
from ..scores.distances import frechet, precision_recall
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import fingerprint_of, root, studies_folder
from ..training.diffusion import DiffusionTask
from ..training.loop import Run
from ..training.recipe import Recipe
from ..training.recipes import LENS64_LONG, LENS150, TINY
from .muon import Muon
from .paired import alternate
from .samplers import with_groups
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study choices"
FILE = "choices.json"
SHIPPED = "lens64-long"
PIXELS = 64
SEEDS = (0, 1, 2)
STEPS = 1_000  # updates of 32 images, from random weights
STEPS_ON = 400  # from the weights of the shipped model
SCORED = 512
COPIES = 3  # of each learnt lens, by other angles; as many others in their place
LEVELS = (0.1, 0.5, 2.0, 5.0, 12.0, 40.0)  # of the squared errors, in the network's units
PARTS = 16  # of the noise levels, equally likely, over which the loss is balanced
BATCH = 64
TIMED = 128  # images whose updates are timed


@dataclass(frozen=True)
class Choice:
    """What a row tries: settings of its training, its images ("own", "rotated", "more")."""

    words: str
    changes: dict = field(default_factory=dict)
    balanced: bool = False
    muon: bool = False
    learns: str = "own"
    goes_on: bool = False


CHOICES = {
    "control": Choice("ln σ ~ N(0.6, 1.5²), batch 32, AdamW"),
    "lower": Choice("ln σ ~ N(−1.2, 1.4²)", {"sigmas": LogNormal(-1.2, LENS150.train.sigmas.std)}),
    "balanced": Choice("loss balanced over noise levels", balanced=True),
    "batch-16": Choice("batch 16, twice the updates", {"batch": 16, "steps": 2 * STEPS}),
    "muon": Choice("Muon for matrices and convolutions", muon=True),
    "on": Choice("the 9,000 lenses that it knows", goes_on=True),
    "rotated": Choice("each by three more angles", learns="rotated", goes_on=True),
    "more": Choice("27,000 others beside them", learns="more", goes_on=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHOICES)}; all, if none")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="training seeds")
    parser.add_argument("--steps", type=int, help="updates of 32 images of each training")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument("--work", type=Path, default=root() / "runs" / "choices", help="models")


def recipe(name: str, seed: int, steps: int | None = None) -> Recipe:
    """The recipe of a choice: a tiny network from random weights, or the shipped one trained on."""
    choice = CHOICES[name]
    if choice.goes_on:
        changes = {"steps": STEPS_ON, "lr": 4e-4, "warmup_steps": 50, "decay_share": 1.0}
        plan = LENS64_LONG
    else:
        changes = {"steps": STEPS, "lr": 2e-3, "warmup_steps": 50, "ema": 0.995}
        plan = replace(LENS64_LONG, network=TINY.network)
    changes |= {"seed": seed, "learns": (), "held_out_every": 0, **choice.changes}
    if steps is not None:
        changes["steps"] = steps * 32 // changes.get("batch", 32)
    return replace(plan.scaled(**changes), name=f"choices-{name}")


class Balanced(DiffusionTask):
    """A denoiser whose loss at each noise level is divided by its running mean there."""

    def __init__(self, *given: object):
        super().__init__(*given)
        self.means = torch.ones(PARTS)
        self.known = torch.zeros(PARTS, dtype=torch.bool)

    def part_of(self, sigma: Tensor) -> Tensor:
        """Which of the equally likely parts of the noise levels each sigma (n,) lies in."""
        sigmas = self.config.sigmas
        share = torch.special.ndtr((sigma.double().log() - sigmas.mean) / sigmas.std)
        return (share * PARTS).long().clamp(0, PARTS - 1)

    def loss(self, module: nn.Module, part: tuple) -> Tensor:
        x0, sigma, eps, label = part
        config = self.config
        losses = self.saved.loss(x0, sigma, eps, label, config.criterion, config.weight)
        where = self.part_of(sigma).cpu()
        for k in where.unique():
            now = losses.detach().cpu()[where == k].mean()
            self.means[k] = now if not self.known[k] else self.means[k].lerp(now, 0.05)
            self.known[k] = True
        # the mean stays what it was, so that the clipping of gradients means the same
        even = self.means[self.known].mean() / self.means[where]
        return (losses * even.to(losses.device)).mean()


@functools.cache
def images_of(learns: str) -> tuple[ImageSet, tuple[np.ndarray, np.ndarray]]:
    """Noiseless lenses of `PIXELS` a side, and the (train, held-out) rows.

    "own" are those of all recipes; "rotated" has each learnt one in further angles, simulated anew,
    and "more" as many other lenses.
    """
    own = lenses("train", PIXELS, noiseless=True)
    learnt, held = own.split()
    if learns == "own":
        return own, (learnt, held)
    count = COPIES * len(learnt)
    rows = np.concatenate([learnt, len(own) + np.arange(count)])
    if learns == "more":
        return lenses("train", PIXELS, len(own) + count, noiseless=True), (rows, held)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, count)
    truth = rotated(np.tile(own.truth[learnt], COPIES), angles)
    light = np.concatenate(list(simulate(truth, own.unobserved, noiseless=True)))
    every = replace(
        own,
        name=f"{own.name}, and turned",
        pixels=np.concatenate([own.pixels, min_max(light)[:, None]]),
        fingerprint=fingerprint_of([own.fingerprint, "turned", COPIES]),
        folder=None,
        labels=np.concatenate([own.labels, truth["label"]]),
        truth=np.concatenate([own.truth, truth]),
    )
    return every, (rows, held)


def training(choice: Choice, plan: Recipe, shipped: Model) -> Run:
    """The training of a choice, which has not begun; its network may be that of `shipped`."""
    images, rows = images_of(choice.learns)
    denoiser = shipped.denoiser if choice.goes_on else plan.denoiser()
    kind = Balanced if choice.balanced else DiffusionTask
    task = kind(denoiser, images, plan.train, shipped.stretch, rows)
    found = Run(task, plan.train.settings(denoiser.precision))
    if choice.muon:
        found.optimizer = Muon(denoiser.net, ("stem", "exit"), plan.train.lr)
    return found


def trained(name: str, seed: int, args: argparse.Namespace) -> Model:
    """The model of a choice, from its folder where it lies there already."""
    folder = args.work / f"{name}-{seed}-{args.steps or 'all'}"
    if folder.exists():
        return models.load(folder)
    choice = CHOICES[name]
    plan = recipe(name, seed, args.steps)
    shipped = models.load(SHIPPED)
    steps = training(choice, plan, shipped).steps()
    *_, last = progress(steps, plan.train.steps, f"training {plan.name}")
    kept = {key: shipped.spec[key] for key in ("telescope", "sampling", "classes")}
    about = {"recipe": plan.as_dict(), "seconds": round(last.seconds)}
    about |= {"data": images_of(choice.learns)[0].as_dict()}
    about |= {"images_seen": last.images_seen, "curve": [], "stages": []}
    network = shipped.spec["network"]["arguments"] if choice.goes_on else plan.network
    given = (folder, last.ema, network, shipped.stretch, PIXELS)
    return models.load(models.save(*given, **kept, **about))


@torch.no_grad()
def errors(model: Model, clean: np.ndarray) -> np.ndarray:
    """Squared error a pixel of the guess of each image (n, C, H, W) at `LEVELS`: (n, levels).

    In the network's units; the noise of an image is the same for every model.
    """
    device = next(model.denoiser.parameters()).device
    generator = torch.Generator().manual_seed(FIRST_SEED)
    found = []
    for some in torch.from_numpy(np.array(clean)).split(BATCH):
        x0 = model.stretch(some)
        eps = torch.randn(x0.shape, generator=generator)
        guesses = [model.denoiser((x0 + s * eps).to(device), s).cpu() for s in LEVELS]
        found.append(torch.stack([(one - x0).square().mean((1, 2, 3)) for one in guesses], 1))
    return torch.cat(found).double().numpy()


def compute(
    name: str, seed: int, net: nn.Module, real: Statistics, args: argparse.Namespace
) -> dict:
    """Train and score one row."""
    model = trained(name, seed, args)
    images = as_stored(model.draw(real.n, FIRST_SEED))
    found = statistics(net, torch.from_numpy(images).split(BATCH), real.n, name)
    precision, recall = precision_recall(real.rows, found.rows)
    clean = lenses("test", PIXELS, noiseless=True).pixels[: args.n]
    kept = {key: model.spec[key] for key in ("recipe", "images_seen", "seconds", "sha256")}
    return {
        "words": CHOICES[name].words,
        **with_groups(found, real),
        "precision": precision,
        "recall": recall,
        "errors": [float(x) for x in errors(model, clean).mean(0)],
        **kept,
    }


def gap(args: argparse.Namespace) -> dict:
    """How much better the shipped model guesses learnt lenses than test lenses, at each level.

    Some lenses are harder than others. So the error of each is held against that of a control,
    which has seen few images: the gap is the mean of ln(error / control's) over test lenses, less
    that over learnt ones, with its standard error.
    """
    own, (learnt, _) = images_of("own")
    test = lenses("test", PIXELS, noiseless=True).pixels
    count = min(2 * args.n, len(learnt), len(test))
    sets = {"learnt": own.pixels[learnt[:: len(learnt) // count][:count]], "test": test[:count]}
    both = [models.load(SHIPPED), trained("control", SEEDS[0], args)]
    row = {"n": count, "levels": list(LEVELS)}
    means = {}
    for words, clean in sets.items():
        own_errors, control = (errors(model, clean) for model in both)
        row[words] = [float(x) for x in own_errors.mean(0)]
        apart = np.log(own_errors / control)
        means[words] = apart.mean(0), apart.std(0, ddof=1) / np.sqrt(count)
    row["gap"] = [float(x) for x in means["test"][0] - means["learnt"][0]]
    row["gap_error"] = [float(x) for x in np.hypot(means["test"][1], means["learnt"][1])]
    return row


def times(rounds: int = 7) -> dict:
    """Seconds of updates with as many images of each choice of the first group, in turns."""
    works = {}
    for name, choice in CHOICES.items():
        if not choice.goes_on:
            plan = recipe(name, SEEDS[0])
            one = training(choice, plan, models.load(SHIPPED))
            updates = range(TIMED // plan.train.batch)
            works[name] = lambda one=one, updates=updates: [one.update(k, 0.0) for k in updates]
    found = alternate(works, rounds)
    rounded = {name: [round(x, 4) for x in seconds] for name, seconds in found.items()}
    return {"images": TIMED, "machine": machine(), "seconds": rounded}


def run(args: argparse.Namespace) -> None:
    """Train and score each row that is not stored already, then the times and the gap.

    Raises ParameterError for an unknown name, or a trial in the place of the results.
    """
    unknown = [name for name in args.names if name not in CHOICES]
    if unknown:
        raise ParameterError(f"There is no {unknown[0]!r}; there are {', '.join(CHOICES)}.")
    check_trial(args.n != SCORED or args.steps is not None, args.out, "--steps and -n")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "updates": args.steps, "extractor_sha256": net.sha256}
    about |= {"start_sha256": models.load(SHIPPED).spec["sha256"], "learnt_of": TRAIN_IMAGES}
    table = Table(args.out / FILE, about)
    test = lenses("test", PIXELS)
    real = reference(net, test, range(args.n))
    table.write(floor=frechet(reference(net, test, range(args.n, 2 * args.n)), real))
    for seed in args.seeds:
        for name in args.names or CHOICES:
            table.row(
                {"name": name, "seed": seed},
                lambda name=name, seed=seed: compute(name, seed, net, real, args),
                lambda row: f"distance {row['distance']:.2f}, {row['seconds']} s",
            )
    if not args.names:
        table.row({"role": "times"}, times)
        table.row({"role": "gap"}, lambda: gap(args), lambda row: f"{row['gap']}")

"""What the training of the long-trained lenses leaves open, each choice beside a control.

The first group begins with random weights, at the noise levels of lens64-long: other noise levels,
a loss that is balanced over them, smaller batches, another optimiser. The second goes on from the
weights of lens64-long, with the lenses that it knows, with these turned by any angle, or with
others beside them. All of a group see as many images, with three training seeds. A row has the
squared error of the guess on test lenses at fixed noise levels, and in the first group the distance
of drawn images, which tells larger differences only. Last it is asked how much better the
long-trained model guesses lenses that it has learnt than others: as much as further lenses could
bring.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import model as models
from ..data.images import TRAIN_IMAGES, lenses
from ..errors import ParameterError
from ..model import Model
from ..runtime import best_device, machine
from ..scores.card import FIRST_SEED, check_numbers
from ..scores.distances import frechet, precision_recall
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import root, studies_folder
from . import choice_training, muon
from .choice_training import CHOICES
from .cost import significant
from .paired import alternate
from .samplers import with_groups
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study choices"
FILE = "choices.json"
SEEDS = (0, 1, 2)
SCORED = 512
LEVELS = (0.1, 0.5, 2.0, 5.0, 12.0, 40.0)  # of the squared errors, in the network's units
BATCH = 64
TIMED = 128  # images whose updates are timed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHOICES)}; all, if none")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="training seeds")
    parser.add_argument("--steps", type=int, help="updates of 32 images of each training")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument("--work", type=Path, default=root() / "runs" / "choices", help="models")


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
    """Train one row, draw where random weights were begun with, and take its errors.

    What goes on from a trained model changes too little for a distance of so few images.
    """
    model = choice_training.trained(name, seed, args)
    clean = lenses("test", choice_training.PIXELS, noiseless=True).pixels[: args.n]
    row = {key: model.spec[key] for key in ("recipe", "images_seen", "seconds", "sha256")}
    row["errors"] = [float(x) for x in errors(model, clean).mean(0)]
    if CHOICES[name].goes_on:
        return row
    images = as_stored(model.draw(real.n, FIRST_SEED))
    found = statistics(net, torch.from_numpy(images).split(BATCH), real.n, name)
    precision, recall = precision_recall(real.rows, found.rows)
    return row | with_groups(found, real) | {"precision": precision, "recall": recall}


def gap(args: argparse.Namespace) -> dict:
    """How much better the shipped model guesses learnt lenses than test lenses, at each level.

    Some lenses are harder than others. So the error of each is held against that of a control,
    which has seen few images: the gap is the mean of ln(error / control's) over test lenses, less
    that over learnt ones, with its standard error. (The control has learnt the same lenses, but has
    seen each a few times, so that the gap comes out a little too small at most.)
    """
    own, (learnt, _) = choice_training.images_of("own")
    test = lenses("test", choice_training.PIXELS, noiseless=True).pixels
    count = min(2 * args.n, len(learnt), len(test))
    sets = {"learnt": own.pixels[learnt[:: len(learnt) // count][:count]], "test": test[:count]}
    both = [
        models.load(choice_training.SHIPPED),
        choice_training.trained("control", SEEDS[0], args),
    ]
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
        if not choice.goes_on and (muon.HAS or not choice.muon):
            plan = choice_training.recipe(name, SEEDS[0])
            one = choice_training.training(choice, plan, models.load(choice_training.SHIPPED))
            updates = range(TIMED // plan.train.batch)
            works[name] = lambda one=one, updates=updates: [one.update(k, 0.0) for k in updates]
    found = alternate(works, rounds)
    rounded = {name: [significant(x, 4) for x in seconds] for name, seconds in found.items()}
    return {"images": TIMED, "machine": machine(), "seconds": rounded}


def run(args: argparse.Namespace) -> None:
    """Train and score each row that is not stored already, then the times and the gap.

    Raises ParameterError for an unknown name, or a trial in the place of the results.
    """
    known = [name for name, choice in CHOICES.items() if muon.HAS or not choice.muon]
    if len(known) < len(CHOICES) and not args.names:
        print(f"PyTorch {torch.__version__} has no Muon, which is left out.")
    unknown = [name for name in args.names if name not in CHOICES]
    if unknown:
        raise ParameterError(f"There is no {unknown[0]!r}; there are {', '.join(CHOICES)}.")
    check_trial(args.n != SCORED or args.steps is not None, args.out, "--steps and -n")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "updates": args.steps, "extractor_sha256": net.sha256}
    start = models.load(choice_training.SHIPPED).spec["sha256"]
    about |= {"start_sha256": start, "learnt_of": TRAIN_IMAGES}
    table = Table(args.out / FILE, about)
    side = choice_training.PIXELS
    test = lenses("test", side)
    check_numbers(test, args.n, (1, side, side))
    real = reference(net, test, range(args.n))
    if "floor" not in table.more:
        table.write(floor=frechet(reference(net, test, range(args.n, 2 * args.n)), real))
    for seed in args.seeds:
        for name in args.names or known:
            table.row(
                {"name": name, "seed": seed},
                lambda name=name, seed=seed: compute(name, seed, net, real, args),
                lambda row: f"{row['seconds']} s, distance {row.get('distance', 'not taken')}",
            )
    if not args.names:
        table.row({"role": "times"}, times)
        table.row({"role": "gap"}, lambda: gap(args), lambda row: f"{row['gap']}")

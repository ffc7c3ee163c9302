"""Transformers beside U-Nets: equal weights and equal minutes, three seeds; and how size pays.

All learn the light of 64 x 64 lenses and are sampled alike. Each predicts x0 under EDM's weight, at
a rate that was the best of four in short runs; two U-Nets learn a flow at logit-normal times.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import model as models
from ..data.images import lenses
from ..diffusion.process import LogNormal
from ..diffusion.sampling import noise
from ..errors import ParameterError
from ..model import Model
from ..networks.transformer import SelfAttention
from ..runtime import best_device
from ..scores.card import FIRST_SEED
from ..scores.features import extractor
from ..scores.statistics import as_stored
from ..storage import root, studies_folder
from ..training.fit import fit
from ..training.published import PUBLISHED
from ..training.recipe import Recipe
from .ablations import keep_pictures
from .cost import cost, update_seconds
from .recipes import COLUMNS, scored
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study transformers unet dit vit"
FILE = "transformers.json"
SIZES = ("small", "base", "large")
RATES = (4e-4, 8e-4, 1.6e-3, 3.2e-3)
RATE_SHARE = 5  # a run that tries a rate has a fifth of the updates
WARMUP_SHARE = 20  # of the updates, the rate rises over one in so many
SHIFT = 3.0  # of a flow's times
SEEDS = (0, 1, 2)  # of the size `base`; the others have the first
MINUTES = 10  # of a run, unless a multiple of them is asked for
LOOKS = 16  # held-out losses of a run
SCORED = 512
SHOWN = 16
MAPPED = 3  # the test lens on which attention is looked at
MAP_SIGMA = 0.5


@dataclass(frozen=True)
class Kind:
    """An architecture: `networks` by size, of nearly equal weights, and `updates` of a run.

    The updates of each size fill ten minutes of two x86-64 cores with bfloat16 that do 0.4e12
    operations a second in a product of matrices, by `--time`; `lr` is the best of `RATES`, by
    `--rates`.
    """

    kind: str
    networks: tuple[dict, dict, dict]
    updates: tuple[int, int, int]
    lr: float = 1.6e-3
    shift: float = 0.0  # of the times of a flow; 0: x0 is predicted, and nothing is shifted


def _unet(*channels: int) -> dict:
    return {"channels": channels, "blocks": 2, "attention_levels": (2,), "unshuffle": 2}


def _dit(width: int, depth: int, patch: int = 4, **more: object) -> dict:
    return {"patch": patch, "width": width, "depth": depth, "heads": width // 64, **more}


KINDS = {
    "unet": Kind(
        "UNet",
        (_unet(24, 48, 72), _unet(48, 96, 144), _unet(96, 192, 288)),
        (1_300, 730, 250),
    ),
    "dit": Kind(
        "DiT",
        (_dit(128, 5), _dit(256, 5), _dit(512, 5)),
        (1_200, 470, 150),
    ),
    # large patches and a bottleneck, as in Li & He 2025
    "vit": Kind(
        "DiT",
        (
            _dit(128, 5, 8, bottleneck=32),
            _dit(256, 5, 8, bottleneck=32),
            _dit(512, 5, 8, bottleneck=32),
        ),
        (4_300, 1_820, 710),
    ),
}
FLOWS = {
    "flow": replace(KINDS["unet"], shift=1.0),
    "flow-shifted": replace(KINDS["unet"], shift=SHIFT),
}


def recipe(
    name: str,
    size: str,
    seed: int,
    updates: int | None = None,
    lr: float | None = None,
    minutes: int = MINUTES,
) -> Recipe:
    """The recipe of a run: ours of `study recipes`, with another network and budget.

    Times of a flow are logit-normal: ln(t / (1 - t)) = ln(sigma) is normal, and a shift multiplies
    sigma (Esser et al. 2024, section 3.1 and eq. 23).
    """
    kind = {**KINDS, **FLOWS}[name]
    place = SIZES.index(size)
    steps = updates or kind.updates[place] * minutes // MINUTES
    changes = {"steps": steps, "seed": seed, "lr": lr or kind.lr}
    changes |= {"warmup_steps": steps // WARMUP_SHARE}
    changes |= {"held_out_every": max(1, steps // LOOKS), "save_every": max(1, steps // 4)}
    plan = PUBLISHED["ours"].recipe
    if kind.shift:
        changes |= {"sigmas": LogNormal(math.log(kind.shift), 1.0), "weight": "none"}
        plan = replace(plan, prediction="flow")
    full = f"{name}-{size}-{seed}{long(minutes)}"
    full += (f"-{steps}" if updates else "") + (f"-{lr:g}" if lr else "")
    network = kind.networks[place]
    return replace(plan.scaled(**changes), name=full, kind=kind.kind, network=network)


def long(minutes: int) -> str:
    """What the name of a longer run has more."""
    return "" if minutes == MINUTES else f"-{minutes}min"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join((*KINDS, *FLOWS))
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or {known}")
    parser.add_argument("--time", action="store_true", help="only time updates, and store nothing")
    parser.add_argument("--rates", action="store_true", help="short runs that try four rates")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="of the networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the size base")
    parser.add_argument(
        "--minutes", type=int, default=MINUTES, help="of each run, a multiple of ten"
    )
    parser.add_argument("--lr", type=float, help="another learning rate than the best short run's")
    parser.add_argument("--updates", type=int, help="of each run, in place of its minutes' worth")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate for a score")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "transformers", help="models and states"
    )


@torch.no_grad()
def attention_maps(
    model: Model, x: torch.Tensor, sigma: float, queries: list[int]
) -> list[list[list[float]]]:
    """Weights of attention by block, of each of `queries` over all patches; the mean over heads.

    `x` (1, C, H, W) is a noisy image in the network's units; patches are counted row by row.
    """
    found = []

    def keep(attention: SelfAttention, given: tuple) -> None:
        q, k, _ = attention.split(*given)
        scores = q.float() @ k.float().mT / q.shape[-1] ** 0.5
        weights = scores.softmax(-1).mean((0, 1))[queries]
        found.append([[round(float(w), 6) for w in row] for row in weights])

    hooks = [block.attention.register_forward_pre_hook(keep) for block in model.denoiser.net.blocks]
    try:
        model.denoiser(x, sigma)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def maps(model: Model) -> dict:
    """Attention of a trained transformer on a noisy test lens, from three places."""
    light = lenses("test", model.shape[-1], noiseless=True).pixels[MAPPED]
    image = model.stretch(torch.from_numpy(np.array(light))[None])
    eps = noise([MAPPED], model.shape)
    device = next(model.denoiser.parameters()).device
    x = (image + MAP_SIGMA * eps).to(device)
    side = model.shape[-1] // model.denoiser.net.patch
    # the brightest patch, the one across the centre, and a corner
    whole = torch.nn.functional.avg_pool2d(image, model.denoiser.net.patch)[0, 0]
    row, column = divmod(int(whole.argmax()), side)
    across = (side - 1 - row) * side + side - 1 - column
    queries = [row * side + column, across, side + 1]
    weights = attention_maps(model, x, MAP_SIGMA, queries)
    return {"sigma": MAP_SIGMA, "image": MAPPED, "queries": queries, "weights": weights}


def compute(plan: Recipe, net: nn.Module, args: argparse.Namespace, picture: str) -> dict:
    """Train and score one run; the first seed's images are kept as `picture`."""
    place = args.work / plan.name
    model = fit(plan, plan.images("train"), place, args.work / f"{plan.name}-state")
    images = as_stored(model.draw(args.n, FIRST_SEED))
    card = scored(net, images, lenses("test", plan.pixels), model.sampling)
    if plan.train.seed == SEEDS[0]:
        path = args.out / "transformers" / f"{picture}.png"
        keep_pictures(path, images[:SHOWN], COLUMNS)
    kept = ("recipe", "sha256", "curve")
    return {
        "card": card,
        **cost(model),
        **{key: model.spec[key] for key in kept},
    }


def rate(plan: Recipe, work: Path) -> dict:
    """The last held-out loss of a short run."""
    model = fit(plan, plan.images("train"), work / plan.name, work / f"{plan.name}-state")
    return {"held_out": model.spec["curve"][-1]["held_out"], "updates": plan.train.steps}


def try_rates(table: Table, names: list[str], args: argparse.Namespace) -> None:
    """A short run of the size base at each of `RATES`."""
    for name in names:
        for lr in RATES:
            updates = args.updates or KINDS[name].updates[1] // RATE_SHARE
            plan = recipe(name, "base", SEEDS[0], updates, lr)
            table.row(
                {"name": name, "role": "rate", "lr": lr},
                lambda plan=plan: rate(plan, args.work),
                lambda row: f"held-out loss {row['held_out']:.4f}",
            )


def time_all(names: list[str], sizes: list[str]) -> None:
    """Print what an update takes, and how many fill ten minutes."""
    for name in names:
        for size in sizes:
            plan = recipe(name, size, SEEDS[0])
            shape = (1, plan.pixels, plan.pixels)
            found = update_seconds(plan.denoiser(), shape, plan.as_dict())
            print(f"{plan.name}: {found:.3f} s an update, {60 * MINUTES / found:,.0f} in all")


def jobs(names: list[str], args: argparse.Namespace) -> list[tuple[str, str, int]]:
    """(name, size, seed) of each run: all sizes with the first seed, others only of the size base.

    A flow is of the size base alone.
    """
    found = []
    for seed in args.seeds:
        for size in args.sizes:
            for name in names:
                if size == "base" or (seed == SEEDS[0] and name in KINDS):
                    found.append((name, size, seed))
    return found


def run(args: argparse.Namespace) -> None:
    """Train, score and store each run that is not stored already.

    Raises ParameterError for an architecture that there isn't, or a trial in the place of the
    results.
    """
    every = {**KINDS, **FLOWS}
    names = list(every) if "all" in args.names else list(dict.fromkeys(args.names))
    for name in names:
        if name not in every:
            raise ParameterError(f"There is no {name!r}; there are all, {', '.join(every)}.")
    if args.minutes < MINUTES or args.minutes % MINUTES:
        raise ParameterError(f"--minutes must be a multiple of {MINUTES}, not {args.minutes}.")
    if args.time:
        time_all([name for name in names if name in KINDS], args.sizes)
        return
    check_trial(args.updates or args.n != SCORED, args.out, "--updates and -n")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "updates": args.updates, "extractor_sha256": net.sha256}
    table = Table(args.out / FILE, about)
    if args.rates:
        try_rates(table, [name for name in names if name in KINDS], args)
        return
    for name, size, seed in jobs(names, args):
        plan = recipe(name, size, seed, args.updates, args.lr, args.minutes)
        own = f"{name}-{size}-{seed}{long(args.minutes)}" + (f"-{args.lr:g}" if args.lr else "")
        key = {"name": name, "size": size, "seed": seed, "minutes": args.minutes}
        table.row(
            {**key, "lr": args.lr},
            lambda plan=plan, own=own: compute(plan, net, args, own),
            lambda row: f"distance {row['card']['distance']:.1f}",
        )
    for name in names:
        place = args.work / recipe(name, "base", SEEDS[0], args.updates).name
        if every[name].kind == "DiT" and (place / models.SPEC).exists():
            key = {"name": name, "role": "maps"}
            table.row(key, lambda where=place: maps(models.load(where)))
    print(table)

"""Transformers beside U-Nets: equal weights and equal minutes, three seeds; and how size pays.

All learn the light of 64 x 64 lenses, predict x0 under EDM's weight, and are sampled alike; the
held-out loss of a run is stored against its minutes.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import model as models
from ..data.images import lenses
from ..diffusion.sampling import noise
from ..errors import ParameterError
from ..model import Model
from ..networks.transformer import SelfAttention
from ..runtime import best_device
from ..scores.card import FIRST_SEED, SampleSizeWarning, card_with_error
from ..scores.features import extractor
from ..scores.statistics import as_stored, statistics, to_uint8
from ..storage import root, studies_folder
from ..training.fit import fit
from ..training.published import PUBLISHED
from ..training.recipe import Recipe
from .recipes import cost, keep_grid
from .table import Table

EXAMPLE = "python -m lensdiff study transformers unet dit"
FILE = "transformers.json"
SIZES = ("small", "base", "large")
SEEDS = (0, 1, 2)  # of the size `base`; the others have the first
LOOKS = 16  # held-out losses of a run
SCORED = 512
SHOWN = 16
MAPPED = 3  # the test lens on which attention is looked at
MAP_SIGMA = 0.5


@dataclass(frozen=True)
class Kind:
    """An architecture: `networks` by size, of nearly equal weights, and `updates` of a run.

    The updates of each size fill ten minutes of two x86-64 cores with bfloat16, measured.
    """

    kind: str
    networks: tuple[dict, dict, dict]
    updates: tuple[int, int, int]
    lr: float = 8e-4


def _unet(*channels: int) -> dict:
    return {"channels": channels, "blocks": 2, "attention_levels": (2,), "unshuffle": 2}


def _dit(width: int, depth: int, patch: int = 4, **more: object) -> dict:
    return {"patch": patch, "width": width, "depth": depth, "heads": width // 64, **more}


KINDS = {
    "unet": Kind(
        "UNet",
        (_unet(24, 48, 72), _unet(48, 96, 144), _unet(96, 192, 288)),
        (5_000, 2_000, 600),
    ),
    "dit": Kind(
        "DiT",
        (_dit(128, 5), _dit(256, 5), _dit(512, 5)),
        (5_000, 2_000, 600),
    ),
    # large patches and a bottleneck, as in Li & He 2025
    "vit": Kind(
        "DiT",
        (
            _dit(128, 5, 8, bottleneck=32),
            _dit(256, 5, 8, bottleneck=32),
            _dit(512, 5, 8, bottleneck=32),
        ),
        (9_000, 6_000, 2_000),
    ),
}


def recipe(name: str, size: str, seed: int, updates: int | None = None) -> Recipe:
    """The recipe of a run: ours of `study recipes`, with another network and budget."""
    kind = KINDS[name]
    place = SIZES.index(size)
    steps = updates or kind.updates[place]
    look = max(1, steps // LOOKS)
    plan = PUBLISHED["ours"].recipe.scaled(
        steps=steps, seed=seed, lr=kind.lr, held_out_every=look, save_every=look
    )
    full = f"{name}-{size}-{seed}"
    return replace(plan, name=full, kind=kind.kind, network=kind.networks[place])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or {', '.join(KINDS)}")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="of the networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the size base")
    parser.add_argument("--updates", type=int, help="of each run, in place of ten minutes' worth")
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


def compute(plan: Recipe, net: nn.Module, args: argparse.Namespace) -> dict:
    """Train and score one run; the first seed's images are kept beside the table."""
    place = args.work / plan.name
    model = fit(plan, plan.images("train"), place, args.work / f"{plan.name}-state")
    images = as_stored(model.draw(args.n, FIRST_SEED))
    found = statistics(net, torch.from_numpy(images).split(64), args.n, "generated lenses")
    test = lenses("test", plan.pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleSizeWarning)
        made = card_with_error(net, found, test, model.sampling, FIRST_SEED, args.n)
    if plan.train.seed == SEEDS[0]:
        shown = to_uint8(images[:SHOWN]).numpy()
        keep_grid(args.out / "transformers" / f"{plan.name}.png", shown)
    kept = ("recipe", "sha256", "curve", "machine")
    return {"card": made.as_dict(), **cost(model), **{key: model.spec[key] for key in kept}}


def run(args: argparse.Namespace) -> None:
    """Train, score and store each run that is not stored already.

    Raises ParameterError for an architecture that there isn't.
    """
    names = list(KINDS) if "all" in args.names else list(dict.fromkeys(args.names))
    for name in names:
        if name not in KINDS:
            raise ParameterError(f"There is no {name!r}; there are all, {', '.join(KINDS)}.")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "updates": args.updates, "extractor_sha256": net.sha256}
    table = Table(args.out / FILE, about)
    for seed in args.seeds:
        for size in args.sizes:
            if size != "base" and seed != SEEDS[0]:
                continue
            for name in names:
                plan = recipe(name, size, seed, args.updates)
                table.row(
                    {"name": name, "size": size, "seed": seed},
                    lambda plan=plan: compute(plan, net, args),
                    lambda row: f"distance {row['card']['distance']:.1f}",
                )
    for name in names:
        place = args.work / f"{name}-base-{SEEDS[0]}"
        if KINDS[name].kind == "DiT" and (place / models.SPEC).exists():
            key = {"name": name, "role": "maps"}
            table.row(key, lambda where=place: maps(models.load(where)))

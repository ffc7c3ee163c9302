"""Lenses in latents beside lenses in pixels: quality by network calls, physics, and cost.

Two models of equal minutes of training are asked for the same numbers of network calls.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import model as models
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..model import Model
from ..runtime import best_device
from ..scores.card import ENOUGH, FIRST_SEED, card_with_error, check_numbers
from ..scores.features import extractor
from ..scores.statistics import as_stored, statistics
from ..storage import studies_folder
from .cost import cost
from .physics import physics
from .table import Table

EXAMPLE = "python -m lensdiff study latent_lenses latent150 runs/pixels --calls 10 20"
FILE = "latent_lenses.json"
FITTED = 96
KEPT = ("distance", "floor", "kid", "kid_std", "kid_floor", "n_generated", "excess_error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("models", nargs="+", help="shipped names, or folders")
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 20], help="network calls")
    parser.add_argument("-n", type=int, default=ENOUGH, help="lenses to generate for a score")
    parser.add_argument("--fits", type=int, default=FITTED, help="of them that are fitted")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def quality(model: Model, calls: int, test: ImageSet, n: int, net: nn.Module, fits: int) -> dict:
    """Distance with its floor, physics, and defects of `n` lenses of a number of calls."""
    sampling = replace(model.sampling, sampler="dpmpp_2m", steps=calls)
    images = as_stored(model.draw(n, FIRST_SEED, sampling=sampling))
    found = statistics(net, torch.from_numpy(images).split(64), n, "generated lenses")
    card = card_with_error(net, found, test, sampling, FIRST_SEED, n).as_dict()
    return {**{name: card[name] for name in KEPT}, "sampling": str(sampling)} | physics(
        images, np.array(test.pixels[:n]), fits
    )


def run(args: argparse.Namespace) -> None:
    """Compute what is missing, and keep the table after each row."""
    if min(args.calls) < 2:
        raise ParameterError(f"--calls must be 2 or more, got {min(args.calls)}.")
    found = [models.load(name) for name in args.models]
    for name, model in zip(args.models, found, strict=True):
        if not isinstance(model, Model) or model.telescope is None:
            raise ParameterError(f"{name} draws no noiseless lenses. Take a model that does.")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "fits": args.fits, "extractor_sha256": net.sha256}
    table = Table(args.out / FILE, about)
    for model in found:
        key = {"name": model.folder.name, "model_sha256": model.spec["sha256"]}
        table.row({**key, "role": "cost"}, lambda m=model: cost(m), _costs)
        test = lenses("test", model.shape[-1])
        check_numbers(test, args.n)
        for calls in args.calls:
            table.row(
                {**key, "role": "quality", "calls": calls},
                lambda m=model, c=calls, t=test: quality(m, c, t, args.n, net, args.fits),
                _quality,
            )


def _costs(row: dict) -> str:
    return f"{1e3 * row['call_s']:.1f} ms a call, {row['training_bytes'] / 1e6:.1f} MB an image"


def _quality(row: dict) -> str:
    return f"distance {row['distance']:.2f}, floor {row['floor']:.2f}"

"""Lenses in latents beside lenses in pixels: quality by network calls, physics, and cost.

Two models of equal minutes of training are asked for the same numbers of network calls.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import model as models
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..lensing import defects, measure
from ..lensing.survey import diverse
from ..model import Model
from ..runtime import best_device
from ..scores.card import ENOUGH, FIRST_SEED, card_with_error, check_numbers
from ..scores.features import extractor
from ..scores.statistics import as_stored, statistics
from ..storage import studies_folder
from .physics import fitted
from .table import Table

EXAMPLE = "python -m lensdiff study latent_lenses latent150 runs/pixels --calls 10 20"
FILE = "latent_lenses.json"
FITTED = 96
TIMED = 32
TRAINED = 8  # images of a training step whose memory is counted
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


def physics(images: np.ndarray, real: np.ndarray, fits: int) -> dict:
    """Measured properties, and shares with a defect, of generated and of test lenses.

    `scalars` has for each name of `measure.SCALARS` what `measure.compare` gives where both have
    eight values; `rms` are the residuals of a lens fit to the first `fits` images, in peaks.
    """
    scale = diverse(images.shape[-1]).pixel_arcsec
    mine = measure.measure(images, scale)
    theirs = measure.measure(real, scale)
    scalars = {}
    for name in measure.SCALARS:
        if min(np.isfinite(x[name]).sum() for x in (mine, theirs)) >= 8:
            scalars[name] = measure.compare(theirs[name], mine[name])
    broken = {}
    for side, those in (("generated", images), ("test", real)):
        rules = defects.defects(those, scale)
        broken[side] = int(np.any([rule for rule in rules.values()], 0).sum())
    rms = [round(float(x), 6) for x in fitted(images[:fits]).rms]
    return {"scalars": scalars, "with_a_defect": broken, "rms": rms}


def cost(model: Model) -> dict:
    """What a lens costs: network, memory of training, and time of drawing.

    `training_bytes` is what autograd keeps of an image until the backward pass, `call_s` a network
    call of an image in a batch of `TIMED`, `decode_s` the decoder, `update_s` an update of the
    weights: `training_s` is by the clock, and holds whatever paused the training.
    """
    autoencoder = model.autoencoder
    spec = autoencoder.spec if autoencoder else {"seconds": 0, "images_seen": 0}
    counted = sum(p.numel() for p in model.denoiser.parameters())
    found = {
        "parameters": counted,
        "autoencoder_parameters": 0,
        "training_bytes": training_bytes(model),
        "training_s": model.spec["seconds"],
        "autoencoder_training_s": spec["seconds"],
        "images_seen": model.spec["images_seen"],
        "machine": model.spec["machine"],
        "decode_s": 0.0,
        "updates": model.spec["recipe"]["train"]["steps"],
        "update_s": update_seconds(model),
    }
    device = next(model.denoiser.parameters()).device
    x = torch.randn(TIMED, *model.denoised_shape, device=device)
    sigma = torch.ones(TIMED, device=device)
    with torch.no_grad():
        found["call_s"] = seconds(lambda: model.denoiser(x, sigma)) / TIMED
    if autoencoder is not None:
        found["autoencoder_parameters"] = sum(p.numel() for p in autoencoder.net.parameters())
        found["decode_s"] = seconds(lambda: autoencoder.decode(x)) / TIMED
    return found


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of `work()`, after one that isn't counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def update_seconds(model: Model) -> float:
    """Median seconds of an update with as many images as its recipe has, on a copy."""
    denoiser = copy.deepcopy(model.denoiser).requires_grad_(True)
    device = next(denoiser.parameters()).device
    optimizer = torch.optim.AdamW(denoiser.parameters(), 1e-4, fused=True)
    n = model.spec["recipe"]["train"]["batch"]
    x = torch.randn(n, *model.denoised_shape, device=device)
    sigma = torch.ones(n, device=device)

    def update() -> None:
        optimizer.zero_grad()
        denoiser.loss(x, sigma, torch.randn_like(x)).mean().backward()
        optimizer.step()

    return seconds(update)


def training_bytes(model: Model) -> int:
    """Bytes that autograd keeps of an image between forward and backward pass.

    Two batches differ by `TRAINED` images; what does not grow with them, as weights, cancels.
    """
    more = bytes_kept(model, 2 * TRAINED) - bytes_kept(model, TRAINED)
    return more // TRAINED


def bytes_kept(model: Model, n: int) -> int:
    """Bytes that autograd keeps of a training step of `n` images, each storage counted once."""
    denoiser = model.denoiser
    device = next(denoiser.parameters()).device
    x = torch.randn(n, *model.denoised_shape, device=device)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    denoiser.requires_grad_(True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            denoiser(x, torch.ones(n, device=device))
    finally:
        denoiser.requires_grad_(False)
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in kept}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


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

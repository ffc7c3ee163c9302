"""At which noise level a model's error is born: test lenses noised to sigma, and taken from there.

Noiseless test lenses get noise of each level sigma, and the model's own sampler takes them from
there to images, which the telescope observes. What they lack at a low level the model can't lose at
a higher one, so that the rise from one level to the next is what the levels between cost. The last
row begins with noise alone. Rows share lenses and reference, so that a rise has an error of its own
(`samplers.difference`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import model as models
from ..data.images import ImageSet, lenses
from ..diffusion.sampling import SAMPLERS, noise
from ..errors import ParameterError
from ..model import Model, Sampling
from ..runtime import best_device, machine
from ..scores.card import FIRST_SEED
from ..scores.distances import kid
from ..scores.features import extractor
from ..scores.statistics import Statistics, reference, statistics
from .samplers import with_groups
from .table import Table

EXAMPLE = "python -m lensdiff study where lens150"
FILE = "where.json"
SIGMAS = (0.5, 2.0, 5.0, 12.0, 40.0)
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("model", help="a shipped model's name, or a folder; it learnt noiseless")
    parser.add_argument("-n", type=int, default=512, help="images a level")
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="noise levels")


def from_level(sampling: Sampling, sigma: float) -> Sampling:
    """The sampling that begins at `sigma`, with its levels as dense in ln(sigma) as before.

    Raises ParameterError for a level outside of those it has.
    """
    if not sampling.low < sigma <= sampling.high:
        known = f"above {sampling.low:g} and at most {sampling.high:g}"
        raise ParameterError(f"sigma is {sigma:g}; the model's levels are {known}.")
    share = math.log(sigma / sampling.low) / math.log(sampling.high / sampling.low)
    return replace(sampling, steps=1 + max(1, round((sampling.steps - 1) * share)), high=sigma)


def restored(model: Model, clean: Tensor, sampling: Sampling, seeds: range) -> Tensor:
    """Noiseless images (n, C, H, W) in [0, 1], noised to the first level and sampled from there.

    Returns what the model's telescope records of them, in [0, 1], on the CPU.
    """
    device = next(model.denoiser.parameters()).device
    start = model.stretch(clean) + sampling.high * noise(seeds, clean.shape[1:])
    sampler = SAMPLERS[sampling.sampler]
    denoise = model.denoise(sampling)
    for x in sampler(denoise, start.to(device), sampling.sigmas(), **sampling.options()):
        last = x
    light = model.stretch.inverse(last).clamp(0, 1).cpu()
    return model.telescope.observe(light, list(seeds))


def _batches(model: Model, clean: ImageSet, n: int, sampling: Sampling) -> Iterator[Tensor]:
    """Restored images of rows n to 2 n, which no reference holds."""
    for first in range(0, n, BATCH):
        count = min(BATCH, n - first)
        rows = torch.from_numpy(clean.pixels[n + first : n + first + count].copy())
        seeds = range(FIRST_SEED + first, FIRST_SEED + first + count)
        yield restored(model, rows, sampling, seeds)


def _scored(net: nn.Module, first: Statistics, images: Iterator[Tensor], steps: int) -> dict:
    """What a row has of numbers, against the reference `first`."""
    found = statistics(net, images, first.n, f"{steps} steps")
    return {"steps": steps, **with_groups(found, first), "computed_on": machine()}


def measure(name: str, n: int, sigmas: tuple[float, ...]) -> Table:
    """A row a level, and one of noise alone (sigma None), in where.json beside the weights.

    Raises ParameterError for a model without a telescope: its images are not noiseless.
    """
    model = models.load(name)
    if not isinstance(model, Model) or model.telescope is None:
        raise ParameterError(f"{name} did not learn noiseless lenses. Take lens150.")
    if model.autoencoder is not None:
        raise ParameterError(f"{name} learnt latents, not pixels. Take lens150.")
    chosen = {sigma: from_level(model.sampling, sigma) for sigma in sorted(sigmas)}
    test = lenses("test", model.shape[-1])
    clean = lenses("test", model.shape[-1], noiseless=True)
    net = extractor("efficientnet", best_device())
    first = reference(net, test, range(n))
    second = reference(net, test, range(n, 2 * n))
    about = {"model_sha256": model.spec["sha256"], "n": n, "extractor": net.name}
    table = Table(model.folder / FILE, about)
    table.more |= {"floor": with_groups(second, first), "kid_floor": kid(second, first)[0]}
    for sigma, sampling in chosen.items():
        images = _batches(model, clean, n, sampling)
        table.row(
            {"sigma": sigma, "steps": sampling.steps},
            lambda images=images, steps=sampling.steps: _scored(net, first, images, steps),
            lambda row: f"{row['distance']:.2f}",
        )
    images = model.generate(range(FIRST_SEED, FIRST_SEED + n))
    table.row(
        {"sigma": None},
        lambda: _scored(net, first, images, model.sampling.steps),
        lambda row: f"{row['distance']:.2f}",
    )
    return table


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, and keep the table after each level."""
    measure(args.model, args.n, tuple(args.sigmas))

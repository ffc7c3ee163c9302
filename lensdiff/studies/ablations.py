"""Small fair comparisons: runs that differ from one basis in one thing, and are scored alike.

Each sees as many images. A run takes three to eight minutes on two cores, and is stored with its
recipe, curve and cards; its pictures lie beside the table.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import rotate
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..data.images import ImageSet, lenses
from ..diffusion.process import ScheduleWarning
from ..diffusion.sampling import draw, table_levels
from ..errors import DataError
from ..model import Model, Sampling
from ..runtime import best_device, progress
from ..scores.card import FIRST_SEED, SampleSizeWarning, card
from ..scores.features import extractor
from ..scores.statistics import statistics, to_uint8
from ..storage import atomic, fingerprint_of, read_json, root, studies_folder
from ..training.fit import fit
from ..training.loop import Step, ema_average
from .ablation_runs import RUNS, STEPS, Run
from .table import Table

EXAMPLE = "python -m lensdiff study ablations basis eps x0 v"
OWN_STEPS = 50
SCORED = 512
SHOWN = 16
FILE = "ablations.json"


def turned(images: ImageSet, degrees: float, seed: int = 0) -> ImageSet:
    """Every image turned by an angle of its own, uniform in ±`degrees`, bilinear; corners that
    nothing fills are black (0).
    """
    angles = np.random.default_rng(seed).uniform(-degrees, degrees, len(images))
    pixels = np.empty(images.pixels.shape, np.float32)
    for i, angle in enumerate(progress(angles, what=f"turning by up to {degrees:g} degrees")):
        rotate(
            images.pixels[i], angle, axes=(2, 1), reshape=False, order=1, cval=0.0, output=pixels[i]
        )
    name = f"{images.name}, turned by up to {degrees:g} degrees, corners black"
    return replace(
        images,
        name=name,
        pixels=pixels,
        fingerprint=fingerprint_of([images.fingerprint, degrees, seed]),
        folder=None,
    )


class Averages:
    """Further averages of a run's weights, one for each of `decays`: call it with every step."""

    def __init__(self, decays: tuple[float, ...]):
        self.decays = decays
        self.models = {}

    def __call__(self, step: Step) -> None:
        for decay in self.decays:
            if decay not in self.models:
                self.models[decay] = (
                    AveragedModel(step.model, multi_avg_fn=ema_average(decay))
                    .eval()
                    .requires_grad_(False)
                )
            self.models[decay].update_parameters(step.model)

    def of(self, model: Model) -> dict[float, Model]:
        """The checkpoint with each average's weights in place of its own."""
        return {
            decay: replace(model, denoiser=averaged.module)
            for decay, averaged in self.models.items()
        }


def train_run(
    run: Run, images: ImageSet, folder: Path | str, state: Path | str | None = None, each=None
) -> Model:
    """Train one run on the training rows of `images`; the split is that of the set before any
    turning.

    A run of noiseless images takes the same default lenses without their noise, whatever `images`
    hold.
    """
    rows = images.split()
    own = turned(images, run.turned_deg) if run.turned_deg else images
    if run.recipe.noiseless:
        own = lenses("train", images.pixels.shape[-1], len(images), noiseless=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)
        return fit(run.recipe, own, folder, state, each, rows)


def drawn_from_own_table(model: Model, table: Tensor, seeds: range, steps: int, eta: float):
    """Yield images in [0, 1] on the CPU, drawn by DDIM or (eta = 1) ancestral steps through a
    schedule's own levels, guesses clamped.
    """
    device = next(model.denoiser.parameters()).device
    denoise = model.denoise(Sampling(clamp=True))
    levels = table_levels(table, steps)
    shape = model.shape
    for x in draw(denoise, shape, seeds, levels, "ddim", device=device, eta=eta):
        yield model.stretch.inverse(x).clamp(0, 1).cpu()


def _ways(run: Run, model: Model) -> list[tuple[str, int, Callable[[range], Iterator[Tensor]]]]:
    """How a run is sampled: (sampling in words, network calls, images of seeds)."""
    ways = []
    if run.family != "T":
        ways.append((str(model.sampling), model.sampling.calls, model.generate))
    if run.table is not None:
        levels = f"its own {run.recipe.train.sigmas.schedule} levels"
        words = f"ddim, eta 0, {OWN_STEPS} steps, {levels}, clamped"

        def own(seeds: range) -> Iterator[Tensor]:
            return drawn_from_own_table(model, run.table, seeds, OWN_STEPS, 0.0)

        ways.append((words, OWN_STEPS, own))
    return ways


def score_run(
    run: Run, model: Model, net: nn.Module, test: ImageSet, n: int = SCORED
) -> list[dict]:
    """The run's cards: by the sampler that all share, and through its own schedule's levels."""
    seeds = range(FIRST_SEED, FIRST_SEED + n)
    cards = []
    for words, calls, images in _ways(run, model):
        found = statistics(net, images(seeds), n, f"images of {run.recipe.name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SampleSizeWarning)
            cards.append(card(net, found, test, words, calls, FIRST_SEED, n).as_dict())
    return cards


def pictures(run: Run, model: Model, n: int = SHOWN) -> Tensor:
    """`n` images (n, C, H, W) from the first seeds.

    They are ancestral through all T steps in the family "T", else by the sampler that all share.
    """
    if run.family == "T":
        return torch.cat(
            list(drawn_from_own_table(model, run.table, range(n), len(run.table), 1.0))
        )
    return torch.cat(list(model.generate(range(n))))


def keep_pictures(path: Path, images: Tensor) -> None:
    """Write images (n, 1, H, W) side by side, as a PNG."""
    strip = np.concatenate(list(to_uint8(images)[:, 0].numpy()), 1)
    with atomic(path) as part:
        Image.fromarray(strip).save(part, optimize=True)


def compute(run: Run, net: nn.Module, folder: Path, work: Path) -> dict:
    """Train and score one run, and keep its pictures in `folder`; returns its row."""
    name = run.recipe.name
    averages = Averages(run.emas)
    state = None if run.emas else work / f"{name}-state"  # averages are not in the state
    model = train_run(run, lenses("train"), work / name, state, averages)
    test = lenses("test")
    cards = score_run(run, model, net, test)
    for decay, other in averages.of(model).items():
        cards += [{**one, "ema": decay} for one in score_run(run, other, net, test)]
    keep_pictures(folder / "ablations" / f"{name}.png", pictures(run, model))
    kept = ("recipe", "data", "images_seen", "seconds", "machine", "sha256", "curve")
    return {
        "family": run.family,
        "description": run.description,
        "turned_deg": run.turned_deg,
        "cards": cards,
        "weights": sum(p.numel() for p in model.denoiser.parameters()),
        **{key: model.spec[key] for key in kept},
    }


def stored(folder: Path | None = None) -> dict[str, dict]:
    """The stored runs by name, in the order of `RUNS`, with their `pictures` (n, H, W) in [0, 1].

    Raises DataError for a missing row or damaged files.
    """
    folder = folder or studies_folder()
    cure = "Run it again: python -m lensdiff study ablations"
    rows = {row["name"]: row for row in read_json(folder / FILE, f"{cure} all")["rows"]}
    found = {}
    for name in RUNS:
        path = folder / "ablations" / f"{name}.png"
        try:
            strip = np.asarray(Image.open(path), np.float32) / 255
            pixels = strip.reshape(len(strip), -1, len(strip)).swapaxes(0, 1)
            found[name] = {**rows[name], "pictures": pixels}
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: can't be read ({error!r}). {cure} {name}") from error
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join(RUNS)
    names = [*RUNS, "all"]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=f"all, or {known}")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "ablations", help="checkpoints and states"
    )


def run(args: argparse.Namespace) -> None:
    """Train, score and store each run that is not stored already."""
    net = extractor("efficientnet", best_device())
    table = Table(args.out / FILE, {"steps": STEPS, "scored_images": SCORED})
    for name in RUNS if "all" in args.names else args.names:
        table.row(
            {"name": name},
            lambda name=name: compute(RUNS[name], net, args.out, args.work),
            lambda row: ", ".join(f"{one['distance']:.2f}" for one in row["cards"]),
        )

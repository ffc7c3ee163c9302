"""Small fair comparisons: runs that differ from one basis in one thing or two, scored alike.

Each but `few` sees as many images, with three training seeds. A run takes three to eight minutes
on two cores, and is stored with its recipe, curve and cards; pictures of seed 0 lie beside the
table.
"""

from __future__ import annotations

import argparse
import shutil
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

from ..data.images import TRAIN_IMAGES, TRAIN_SEED, ImageSet, lenses, split_rows
from ..diffusion.process import ScheduleWarning
from ..diffusion.sampling import draw, table_levels
from ..errors import ParameterError
from ..lensing.population import sample_params
from ..lensing.simulate import simulate
from ..lensing.survey import diverse
from ..lensing.telescope import min_max
from ..model import Model, Sampling
from ..runtime import best_device, machine, progress
from ..scores.card import FIRST_SEED, SampleSizeWarning, card
from ..scores.features import extractor
from ..scores.statistics import statistics, to_uint8
from ..storage import atomic, fingerprint_of, root, studies_folder
from ..training.fit import fit
from ..training.loop import Step, ema_average
from .ablation_compare import FILE, Difference, compare, merge, seeds_of, stored  # noqa: F401
from .ablation_runs import RUNS, SEEDS, STEPS, Run, jobs
from .table import Table

EXAMPLE = "python -m lensdiff study ablations basis eps x0 v"
OWN_STEPS = 50
SCORED = 512
SHOWN = 16
ABOUT = {"steps": STEPS, "scored_images": SCORED}


def turned(images: ImageSet, degrees: float, seed: int = 0) -> ImageSet:
    """Every image turned by an angle of its own, uniform in ±`degrees`, bilinear.

    Corners that nothing fills are black (0).
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


def few(rows: np.ndarray, n: int) -> np.ndarray:
    """`n` of the training `rows`, sorted: the same ones for every seed.

    Raises ParameterError where there are not as many.
    """
    if n > len(rows):
        raise ParameterError(f"images = {n}, but there are {len(rows)} to train on: take fewer.")
    return np.sort(np.random.default_rng(0).permutation(rows)[:n])


def few_lenses(n: int, pixels: int = 64, of: int = TRAIN_IMAGES) -> np.ndarray:
    """The `n` noiseless lenses (n, 1, H, W) in [0, 1] that the run `few` learns from.

    They alone are simulated, of all `of` training lenses.
    """
    survey = diverse(pixels)
    truth = sample_params(of, "mixed", TRAIN_SEED, survey)[few(split_rows(of)[0], n)]
    return min_max(np.concatenate(list(simulate(truth, survey, noiseless=True))))[:, None]


def train_run(
    run: Run,
    images: ImageSet,
    folder: Path | str,
    state: Path | str | None = None,
    each: Callable[[Step], None] | None = None,
) -> Model:
    """Train one run on the training rows of `images`, split before any turning.

    A run of noiseless images takes the same default lenses without their noise, whatever `images`
    hold; one of a few images takes as many training rows, and all held-out ones.
    """
    rows = images.split()
    if run.images:
        rows = (few(rows[0], run.images), rows[1])
    own = turned(images, run.turned_deg) if run.turned_deg else images
    if run.recipe.noiseless:
        own = lenses("train", images.pixels.shape[-1], len(images), noiseless=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)
        return fit(run.recipe, own, folder, state, each, rows)


def generate_by_table(
    model: Model, table: Tensor, seeds: range, steps: int, eta: float
) -> Iterator[Tensor]:
    """Yield images in [0, 1] on the CPU, generated by DDIM through a schedule's own levels.

    With eta = 1 the steps are ancestral. Each E[x0 | x] is clamped, but for latents.
    """
    device = next(model.denoiser.parameters()).device
    denoise = model.denoise(Sampling(clamp=True))
    levels = table_levels(table, steps)
    shape = model.denoised_shape
    for x in draw(denoise, shape, seeds, levels, "ddim", device=device, eta=eta):
        yield model.images_of(x)


def _ways(run: Run, model: Model) -> list[tuple[str, int, Callable[[range], Iterator[Tensor]]]]:
    """How a run is sampled: (sampling in words, network calls, images of seeds)."""
    ways = []
    if run.family != "T":
        ways.append((str(model.sampling), model.sampling.calls, model.generate))
    if run.table is not None:
        levels = f"its own {run.recipe.train.sigmas.schedule} levels"
        words = f"ddim, eta 0, {OWN_STEPS} steps, {levels}, clamped"

        def own(seeds: range) -> Iterator[Tensor]:
            return generate_by_table(model, run.table, seeds, OWN_STEPS, 0.0)

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
        steps = len(run.table)
        return torch.cat(list(generate_by_table(model, run.table, range(n), steps, 1.0)))
    return torch.cat(list(model.generate(range(n))))


def keep_pictures(path: Path, images: Tensor | np.ndarray, columns: int = 0) -> None:
    """Write images (n, C, H, W), as a PNG, in whole rows of `columns`; 0: in one. C is 1 or 3."""
    pixels = to_uint8(images).numpy()
    columns = columns or len(pixels)
    starts = range(0, len(pixels) - columns + 1, columns)
    rows = [np.concatenate(list(pixels[k : k + columns]), 2) for k in starts]
    whole = np.concatenate(rows, 1).transpose(1, 2, 0)
    with atomic(path) as part:
        Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole).save(part, optimize=True)


def compute(run: Run, net: nn.Module, folder: Path, work: Path) -> dict:
    """Train and score one run; returns its row. Pictures of seed 0 are kept in `folder`."""
    name = run.recipe.name
    seed = run.recipe.train.seed
    place = work / f"{name}-{seed}"
    averages = Averages(run.emas)
    # averages are not in the state
    state = None if run.emas else work / f"{name}-{seed}-state"
    model = train_run(run, lenses("train"), place, state, averages)
    test = lenses("test")
    cards = score_run(run, model, net, test)
    for decay, other in averages.of(model).items():
        cards += [{**one, "ema": decay} for one in score_run(run, other, net, test)]
    if seed == 0:
        keep_pictures(folder / "ablations" / f"{name}.png", pictures(run, model))
    if state is not None:
        shutil.rmtree(state, ignore_errors=True)  # it was there to resume from
    kept = ("recipe", "data", "images_seen", "seconds", "sha256", "curve")
    return {
        "family": run.family,
        "description": run.description,
        "turned_deg": run.turned_deg,
        "images": run.images,
        "cards": cards,
        "weights": sum(p.numel() for p in model.denoiser.parameters()),
        "machine": machine(),
        **{key: model.spec[key] for key in kept},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join(RUNS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or {known}")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="training seeds")
    parser.add_argument("--shard", default="1/1", help="K/M: every M-th run, from the K-th")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "ablations", help="checkpoints and states"
    )
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FOLDER", help="take in what these folders hold"
    )
    parser.add_argument(
        "--replace", action="store_true", help="merged runs take the place of stored ones"
    )


def run(args: argparse.Namespace) -> None:
    """Train, score and store each run that is not stored already; or merge tables.

    Raises ParameterError where nothing is asked for, or for an unknown run or shard.
    """
    if not args.names and not args.merge:
        raise ParameterError(f"No run is named: give all, or some of {', '.join(RUNS)}.")
    if args.merge:
        count = merge(args.merge, args.out, args.replace)
        print(f"{args.out / FILE}: {count} runs were merged.")
    todo = jobs(RUNS if "all" in args.names else args.names, args.seeds, args.shard)
    if not todo:
        return
    net = extractor("efficientnet", best_device())
    table = Table(args.out / FILE, ABOUT)
    for name, seed in todo:
        chosen = RUNS[name].with_seed(seed)
        table.row(
            {"name": name, "seed": seed},
            lambda chosen=chosen: compute(chosen, net, args.out, args.work),
            lambda row: ", ".join(f"{one['distance']:.2f}" for one in row["cards"]),
        )

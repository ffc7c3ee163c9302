"""The published solutions and ours, each trained for thirty minutes of two cores, scored alike.

A row has the recipe, its curve, its card, physics where lenses are grey, and what it costs; its
pictures lie beside the table.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..data.images import ImageSet
from ..diffusion.process import ScheduleWarning
from ..errors import ParameterError
from ..model import Model
from ..runtime import best_device
from ..scores.card import FIRST_SEED, SampleSizeWarning, card_with_error, check_numbers
from ..scores.features import extractor
from ..scores.statistics import as_stored, statistics, to_uint8
from ..storage import atomic, root, studies_folder
from ..training.fit import fit
from ..training.published import PUBLISHED, Published
from .ablations import generate_by_table
from .latent_lenses import physics, seconds
from .table import Table

EXAMPLE = "python -m lensdiff study recipes ddpm ours"
FILE = "recipes.json"
SCORED = 512
SHOWN = 64  # generated images whose picture is kept
OWN = 16  # of them by the source's own sampler
OWN_STEPS = 200  # at most, of that sampler: its time is that of a call, times all of its steps
FITTED = 48
TIMED = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join(PUBLISHED)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of {known}")
    parser.add_argument("--steps", type=int, help="updates, in place of thirty minutes' worth")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate for a score")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "recipes", help="checkpoints and states"
    )


def train(solution: Published, work: Path, steps: int | None = None) -> Model:
    """The solution's model, trained in `work` and kept there; its autoencoder first, if any.

    A run that was killed is gone on from.
    """
    recipe = solution.recipe if steps is None else solution.recipe.scaled(steps=steps)
    images = recipe.images("train")
    place = work / recipe.name
    autoencoder = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)  # where it ends is part of the recipe
        if solution.autoencoder is not None:
            plan = (
                solution.autoencoder if steps is None else solution.autoencoder.scaled(steps=steps)
            )
            autoencoder = fit(plan, images, work / plan.name, work / f"{plan.name}-state")
        state = work / f"{recipe.name}-state"
        return fit(recipe, images, place, state, autoencoder=autoencoder)


def flops(model: Model) -> int:
    """Multiplications and additions of a network call of one image."""
    x = torch.zeros(1, *model.denoised_shape, device=next(model.denoiser.parameters()).device)
    # the fused attention is not counted, the plain one is
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.denoiser(x, 1.0)
    return counter.get_total_flops()


def cost(model: Model) -> dict:
    """Weights, operations of a network call, and its seconds for one of `TIMED` images."""
    x = torch.randn(TIMED, *model.denoised_shape, device=next(model.denoiser.parameters()).device)
    with torch.no_grad():
        call = seconds(lambda: model.denoiser(x, 1.0), repeats=3) / TIMED
    found = {
        "weights": sum(p.numel() for p in model.denoiser.parameters()),
        "flops": flops(model),
        "call_s": call,
        "training_s": model.spec["seconds"],
        "images_seen": model.spec["images_seen"],
    }
    if model.autoencoder is not None:
        found["autoencoder_training_s"] = model.autoencoder.spec["seconds"]
    return found


def own_images(solution: Published, model: Model, n: int) -> tuple[Tensor, int]:
    """`n` images by the source's own sampler, in at most `OWN_STEPS` steps, and these steps.

    Ours is sampled as its recipe says.
    """
    table = solution.levels
    if table is None:
        return model.draw(n, FIRST_SEED), model.sampling.calls
    steps = min(solution.steps, OWN_STEPS, len(table))
    seeds = range(FIRST_SEED, FIRST_SEED + n)
    return torch.cat(list(generate_by_table(model, table, seeds, steps, solution.eta))), steps


def keep_grid(path: Path, images: np.ndarray, columns: int = 8) -> None:
    """Write uint8 images (n, C, H, W) as a PNG of rows of `columns`; C is 1 or 3."""
    rows = [images[k : k + columns] for k in range(0, len(images) - columns + 1, columns)]
    lines = [np.concatenate(list(row), 2) for row in rows]
    whole = np.concatenate(lines, 1).transpose(1, 2, 0)
    with atomic(path) as part:
        Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole).save(part, optimize=True)


def compute(solution: Published, net: nn.Module, args: argparse.Namespace, test: ImageSet) -> dict:
    """Train and score one solution; its pictures are kept in `args.out`."""
    model = train(solution, args.work, args.steps)
    images = as_stored(model.draw(args.n, FIRST_SEED))
    found = statistics(net, torch.from_numpy(images).split(64), args.n, "generated lenses")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleSizeWarning)
        made = card_with_error(net, found, test, model.sampling, FIRST_SEED, args.n)
    own, steps = own_images(solution, model, OWN)
    folder = args.out / "recipes"
    keep_grid(folder / f"{solution.name}.png", to_uint8(images[:SHOWN]).numpy())
    keep_grid(folder / f"{solution.name}-own.png", to_uint8(own).numpy())
    grey = images.shape[1] == 1
    kept = ("recipe", "data", "sha256", "curve", "machine")
    return {
        "says": asdict(solution.says),
        "card": made.as_dict(),
        "physics": physics(images, np.array(test.pixels[: args.n]), FITTED) if grey else None,
        "own_sampler": {"steps": solution.steps, "eta": solution.eta, "shown_steps": steps},
        **cost(model),
        **{key: model.spec[key] for key in kept},
    }


def run(args: argparse.Namespace) -> None:
    """Train, score and store each solution that is not stored already.

    Raises ParameterError for a name that there isn't.
    """
    names = list(PUBLISHED) if "all" in args.names else list(dict.fromkeys(args.names))
    for name in names:
        if name not in PUBLISHED:
            known = ", ".join(PUBLISHED)
            raise ParameterError(f"There is no solution {name!r}; there are all, {known}.")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "steps": args.steps, "extractor_sha256": net.sha256}
    table = Table(args.out / FILE, about)
    for name in names:
        solution = PUBLISHED[name]
        test = replace(solution.recipe, noiseless=False).images("test")  # as they are observed
        check_numbers(test, args.n)
        table.row(
            {"name": name},
            lambda one=solution, held=test: compute(one, net, args, held),
            lambda row: f"distance {row['card']['distance']:.1f}",
        )

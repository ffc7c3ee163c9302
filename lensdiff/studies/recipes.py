"""The published solutions and ours, for the updates of thirty minutes of two cores, scored alike.

A row has the recipe, its curve, its cards, physics where lenses are grey, and what it costs; its
pictures lie beside the table.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.images import ImageSet
from ..diffusion.process import ScheduleWarning
from ..errors import LensdiffError, ParameterError
from ..model import Model, Sampling
from ..runtime import best_device
from ..scores.card import FIRST_SEED, LEAST, SampleSizeWarning, card_with_error, check_numbers
from ..scores.features import extractor
from ..scores.statistics import as_stored, statistics, to_uint8
from ..storage import fingerprint_of, root, studies_folder, write_arrays
from ..training.fit import fit
from ..training.published import PUBLISHED
from ..training.recipe import Recipe
from ..training.solution import Published
from .ablations import generate_by_table, keep_pictures
from .cost import cost
from .physics import physics
from .recipe_times import CALLS, call_times, time_all
from .table import Table, check_trial

EXAMPLE = "python -m lensdiff study recipes ddpm ours"
FILE = "recipes.json"
SCORED = 512
SHOWN = 64  # generated images whose picture is kept
SHOWN_IN_COLOUR = 16  # noise in three bands is not compressed
COLUMNS = 8  # of that picture
OWN = 128  # images by the source's own sampler
OWN_CALLS = 50  # at most, of that sampler
FITTED = 48
# recipes of our own that are no solution of the task's history; their pictures are not kept
_OURS = PUBLISHED["ours"].recipe.scaled(balance=True)
FURTHER = {"ours-balanced": replace(PUBLISHED["ours"], recipe=replace(_OURS, name="ours-balanced"))}
NO_SIGNAL = 1_000  # a schedule whose last level is higher ends without any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join([*PUBLISHED, *FURTHER])
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of {known}")
    parser.add_argument("--time", action="store_true", help="only time updates, and store nothing")
    in_turn = "time network calls of all solutions in turn, store them, and nothing else"
    parser.add_argument("--calls", action="store_true", help=in_turn)
    parser.add_argument("--steps", type=int, help="updates, in place of thirty minutes' worth")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate for a score")
    parser.add_argument("--own", type=int, default=OWN, help="images by the source's own sampler")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument(
        "--work", type=Path, default=root() / "runs" / "recipes", help="checkpoints and states"
    )


# ---- training ------------------------------------------------------------------------------------


def train(solution: Published, work: Path, steps: int | None = None) -> Model:
    """The solution's model, trained in `work` and kept there; its autoencoder first, if any.

    A run that was killed is gone on from. Other `steps` have folders of their own.
    """
    own = "" if steps is None else f"-{steps}"
    recipe = solution.recipe if steps is None else solution.recipe.scaled(steps=steps)
    images = recipe.images("train")
    autoencoder = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)  # where it ends is part of the recipe
        if solution.autoencoder is not None:
            plan = solution.autoencoder
            plan = plan if steps is None else plan.scaled(steps=steps)
            place = work / f"{plan.name}{own}"
            autoencoder = fit(plan, images, place, work / f"{plan.name}{own}-state")
        state = work / f"{recipe.name}{own}-state"
        place = work / f"{recipe.name}{own}"
        return fit(recipe, images, place, state, autoencoder=autoencoder)


# ---- drawing and scoring -------------------------------------------------------------------------


def mended(images: np.ndarray) -> tuple[np.ndarray, int]:
    """Images (n, C, H, W), and how many of them are constant.

    Nothing can be measured of these, so one pixel of each is changed by a grey level.
    """
    flat = images.reshape(len(images), -1)
    constant = flat.min(1) == flat.max(1)
    images = images.copy()
    images[constant, :, 0, 0] += np.where(images[constant, :, 0, 0] > 0.5, -1, 1) / 255
    return images, int(constant.sum())


Drawing = Callable[[range], Iterable[Tensor]]  # images of seeds, batch after batch


def kept(path: Path, key: str, make: Drawing, n: int) -> np.ndarray:
    """`n` images as a PNG keeps them, float32, drawn once and then read from `path`.

    Each batch is kept, so that a drawing that was killed goes on from the last one.
    """
    done = []
    if path.exists():
        with np.load(path, allow_pickle=False) as saved:
            done += [saved["pictures"]] if str(saved["key"]) == key else []
    first = FIRST_SEED + sum(map(len, done))
    for images in make(range(first, FIRST_SEED + n)) if first < FIRST_SEED + n else ():
        done.append(to_uint8(images).numpy())
        write_arrays(path, pictures=np.concatenate(done), key=key)
    return np.concatenate(done) / np.float32(255)


def own_images(solution: Published, model: Model, most: float = np.inf) -> tuple[Drawing, int]:
    """What draws images by the source's own sampler, and in how many calls.

    It takes the levels up to `most` of its schedule. Ours is sampled as its recipe says.
    """
    table = solution.levels
    if table is None:
        return model.generate, model.sampling.calls
    table = table[table <= most]
    calls = min(solution.steps, OWN_CALLS, len(table))

    def draw(seeds: range) -> Iterable[Tensor]:
        return generate_by_table(model, table, seeds, calls, solution.eta)

    return draw, calls


def scored(
    net: nn.Module, images: np.ndarray, test: ImageSet, how: Sampling | str, calls: int = 0
) -> dict:
    """The card of generated images, with the errors of distance and excess.

    `how` they were drawn is a `Sampling`, or says it in words; then in how many `calls`.
    """
    n = len(images)
    found = statistics(net, torch.from_numpy(images).split(64), n, "generated lenses")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleSizeWarning)
        return card_with_error(net, found, test, how, FIRST_SEED, n, calls=calls).as_dict()


def real(test: ImageSet, n: int) -> dict:
    """Physics of `n` other test lenses, as of generated ones."""
    return {"physics": physics(test.pixels[n : 2 * n], test.pixels[:n], FITTED)}


def compute(solution: Published, net: nn.Module, args: argparse.Namespace) -> dict:
    """Train and score one solution; its pictures are kept in `args.out`."""
    model = train(solution, args.work, args.steps)
    test = observed(solution.recipe)
    key = fingerprint_of([model.spec["sha256"], str(model.sampling), args.n])
    place = args.work / "drawn"
    name = model.folder.name
    images, constant = mended(kept(place / f"{name}.npz", key, model.generate, args.n))
    draw, calls = own_images(solution, model)
    own_key = fingerprint_of([model.spec["sha256"], calls, solution.eta, args.own])
    own, own_constant = mended(kept(place / f"{name}-own.npz", own_key, draw, args.own))
    folder = (args.work if solution.name in FURTHER else args.out) / "recipes"
    grey = images.shape[1] == 1
    shown = SHOWN if grey else SHOWN_IN_COLOUR
    keep_pictures(folder / f"{solution.name}.png", images[:shown], COLUMNS)
    keep_pictures(folder / f"{solution.name}-own.png", own[: max(COLUMNS, shown // 4)], COLUMNS)
    ours = solution.levels is None
    how = model.sampling if ours else f"its own {calls} levels, eta {solution.eta:g}"
    return {
        "says": asdict(solution.says),
        "card": scored(net, images, test, model.sampling),
        "constant": constant,
        "own_card": scored(net, own, test, how, calls),
        "like_own": scored(net, images[: len(own)], test, model.sampling),
        "own_sampler": {"steps": solution.steps, "eta": solution.eta, "calls": calls}
        | {"constant": own_constant},
        "physics": physics(images, test.pixels[: args.n], FITTED) if grey else None,
        **cost(model),
        **{key: model.spec[key] for key in ("recipe", "data", "sha256", "curve")},
    }


def from_lower(solution: Published, net: nn.Module, args: argparse.Namespace) -> dict:
    """The source's own sampler once more, from where the common one begins.

    A schedule that ends without any signal begins at a level where an error of the predicted noise
    is multiplied by tens of thousands (Lin et al. 2024, section 3.2).
    """
    model = train(solution, args.work, args.steps)
    high = model.sampling.high
    draw, calls = own_images(solution, model, high)
    seeds = range(FIRST_SEED, FIRST_SEED + args.own)
    images, constant = mended(as_stored(torch.cat(list(draw(seeds)))))
    keep_pictures(
        args.out / "recipes" / f"{solution.name}-lower.png", images[: SHOWN // 4], COLUMNS
    )
    how = f"its own {calls} levels up to {high:g}, eta {solution.eta:g}"
    made = scored(net, images, observed(solution.recipe), how, calls)
    return {"card": made, "constant": constant, "calls": calls, "high": high}


def observed(recipe: Recipe) -> ImageSet:
    """The test images of a recipe, as they are observed."""
    return replace(recipe, noiseless=False).images("test")


def rows_of(table: Table, solution: Published, net: nn.Module, args: argparse.Namespace) -> None:
    """Fill the rows of a solution that are not stored already."""
    key = {"name": solution.name, "recipe_sha256": fingerprint_of(solution.recipe.as_dict())}

    def said(row: dict) -> str:
        return f"distance {row['card']['distance']:.1f}"

    table.row(key, lambda: compute(solution, net, args), said)
    if solution.levels is not None and float(solution.levels[-1]) > NO_SIGNAL:
        key["name"] = f"{solution.name} from a lower level"
        table.row(key, lambda: from_lower(solution, net, args), said)


def run(args: argparse.Namespace) -> None:
    """Train, score and store each solution that is not stored already.

    A solution that fails is named, and the others are gone on with. Raises ParameterError for a
    name that there isn't, for a trial in the place of the results, and at the end for failures.
    """
    every = PUBLISHED | FURTHER
    names = list(every) if "all" in args.names else list(dict.fromkeys(args.names))
    for name in names:
        if name not in every:
            known = ", ".join(every)
            raise ParameterError(f"There is no solution {name!r}; there are all, {known}.")
    if args.time:
        time_all({name: every[name] for name in names})
        return
    trial = args.steps is not None or (args.n, args.own) != (SCORED, OWN)
    check_trial(trial, args.out, "--steps, -n and --own")
    net = extractor("efficientnet", best_device())
    about = {"n": args.n, "own": args.own, "steps": args.steps, "extractor_sha256": net.sha256}
    table = Table(args.out / FILE, about)
    if args.calls:
        table.row({"name": CALLS}, lambda: call_times(PUBLISHED))
        return
    grey = observed(PUBLISHED["ours"].recipe)
    check_numbers(grey, args.n)
    if args.own < LEAST:
        raise ParameterError(f"--own {args.own}: an error bar needs {LEAST} images or more.")
    table.row({"name": "test lenses"}, lambda: real(grey, args.n))
    failed = []
    for name in names:
        try:
            rows_of(table, every[name], net, args)
        except LensdiffError as error:
            print(f"{name}: {error}")
            failed.append(name)
    print(table)
    if failed:
        raise ParameterError(f"Not all are stored: {', '.join(failed)} failed, see above.")

"""Train a recipe on simulated lenses or on a folder, and leave a page."""

from __future__ import annotations

import argparse
import math
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import ParameterError

ENOUGH_FILES = 160  # of these the tenth that is held out fills a score
BUDGET = ("steps", "minutes", "batch", "lr", "seed")
DATA_HELP = (
    "a folder of DeepLense files, of Common Test I for a classifier, of MNIST's for digits, of "
    "pictures for lenses in colour"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("recipe", help="lens64, lens150, classes64, lensnet, digits-vq, ...")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--state", type=Path, help="folder for the full state, to resume from")
    parser.add_argument("--data", type=Path, help=DATA_HELP)
    parser.add_argument("--symmetries", type=int, choices=(1, 2, 8), help="of --data")
    parser.add_argument("--unbalanced", action="store_true", help="unequal classes are fine")
    parser.add_argument("--start", help="a model to go on from: a new stage, with a new optimiser")
    for name, kind, what in (
        ("steps", int, "updates"),
        ("minutes", float, "minutes"),
        ("batch", int, "images an update"),
        ("lr", float, "learning rate"),
        ("seed", int, "seed"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=f"{what}, in place of the recipe's")
    noise = "noise levels of a denoiser: mean and standard deviation of ln(sigma)"
    parser.add_argument("--sigmas", type=float, nargs=2, metavar=("MEAN", "STD"), help=noise)
    even = "divide the loss of a denoiser at each noise level by its running mean there"
    parser.add_argument("--balance", action="store_const", const=True, help=even)
    which = "only weights of a denoiser with such a part in their dotted names learn, the others "
    which += "stay as in --start: stem exit noise down.0; without a part: all learn"
    parser.add_argument("--learns", nargs="*", metavar="PART", help=which)
    parser.add_argument("--autoencoder", help="whose latents a latent recipe learns: its folder")
    parser.add_argument("--width", type=int, help="channels of a denoiser's first level")
    what = "simulated lenses to learn, any number; of a classifier's images, only so many"
    parser.add_argument("--images", type=int, help=what)
    parser.add_argument("--head", choices=("attention", "plain"), help="of a classifier")
    parser.add_argument("--size", type=int, help="side of what a classifier's backbone sees")
    parser.add_argument("--backbone", help="of a classifier: any name that timm knows")
    parser.add_argument("--weights", type=Path, help="file of the backbone's pretrained weights")
    track = "also show the curve there: tensorboard (files beside the model) or wandb"
    parser.add_argument("--track", metavar="TRACKER", help=track)


def _given(args: argparse.Namespace, *names: str) -> dict:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def run(args: argparse.Namespace) -> None:
    """Train, tracked where that is asked, and leave a page."""
    from ..runtime import is_main, machine, processes, take_gpu
    from ..training import tracking
    from . import pages

    if args.folder.name in ("", ".."):
        raise ParameterError(f"{args.folder}: the model's folder needs a name of its own.")
    take_gpu()
    if is_main():
        print(f"{processes()} process{'es' * (processes() > 1)}, {machine()}", flush=True)
        if processes() == 1 and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
            print("accelerate starts one process on CPUs; torchrun starts several.", flush=True)
    if args.track is None:
        following = _train_recipe(args, tracking.report)
    else:
        _recipe(args)  # before anything is tracked
        place = args.folder.with_name(f"{args.folder.name}-{args.track}")
        with tracking.tracked(args.track, args.folder.name, place) as log:
            following = _train_recipe(args, lambda step: (tracking.report(step), log(step)))
    if is_main():
        print(f"{args.folder}: trained. {following}", flush=True)
        print(pages.of_model(args.folder))


def _recipe(args: argparse.Namespace) -> object:
    """The recipe that `args` name. Raises ParameterError where there is none."""
    from ..training import recipes

    known = recipes.every()
    if args.recipe not in known:
        raise ParameterError(f"There is no recipe {args.recipe!r}; there are {', '.join(known)}.")
    return known[args.recipe]


def _train_recipe(args: argparse.Namespace, each: Callable[[object], object]) -> str:
    """Train what `args` name; returns a sentence on what comes next."""
    from ..training import recipes

    recipe = _recipe(args)
    digits = recipe.data == "digits"
    place = shlex.quote(str(args.folder))
    data = f" --data {shlex.quote(str(args.data))}" if args.data else ""
    following = f"Score it with: python -m lensdiff score {place}{data}"
    if isinstance(recipe, recipes.AutoencoderRecipe):
        _train_autoencoder(args, recipe, each)
        command = f"python -m lensdiff train RECIPE DIR --autoencoder {place}{data}"
        following = f"Learn its latents with: {command}"
    elif isinstance(recipe, recipes.ClassifierRecipe):
        _train_classifier(args, recipe, each)
    else:
        learnt = _train_denoiser(args, recipe, each)
        if digits:
            following = "Notebook 08 shows how digits are judged."
        elif data and recipe.network.get("classes"):
            following = "Notebook 06 scores the classes of files: give it data_folder."
        elif data and learnt < ENOUGH_FILES:
            others = f"python -m lensdiff score {place} --data OTHERS"
            following = f"Score it with files that it did not learn: {others}"
    return following


def _refuse(args: argparse.Namespace, recipe: str, *names: str) -> None:
    for name in _given(args, *names):
        raise ParameterError(f"--{name} does not apply to the recipe {recipe}. Leave it out.")


def _check_files(args: argparse.Namespace, recipe: object, classes: bool) -> None:
    """Raise ParameterError for turns or unequal classes where there are none."""
    if args.symmetries is not None and (not args.data or recipe.data == "digits"):
        raise ParameterError("--symmetries is of files of lenses: give --data, or leave it out.")
    if args.unbalanced and not classes:
        raise ParameterError(f"--unbalanced: {recipe.name} learns no classes. Leave it out.")


def _train_autoencoder(args: argparse.Namespace, recipe: object, each: Callable) -> None:
    from ..training.fit import fit
    from ..training.recipe import images_of

    others = (
        "head",
        "size",
        "backbone",
        "weights",
        "width",
        "start",
        "autoencoder",
        "sigmas",
        "learns",
        "balance",
    )
    _refuse(args, recipe.name, *others)
    _check_files(args, recipe, classes=False)
    recipe = recipe.scaled(**_given(args, *BUDGET))
    images = images_of(recipe, args.data, args.symmetries or 1, args.images)
    fit(recipe, images, args.folder, args.state, each)


def _levels(args: argparse.Namespace) -> dict:
    """Noise levels that are asked for. Raises ParameterError for a spread that is not positive."""
    from ..diffusion.process import LogNormal

    if args.sigmas is None:
        return {}
    mean, std = args.sigmas
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise ParameterError(f"--sigmas {mean:g} {std:g}: a mean, and a deviation above 0.")
    return {"sigmas": LogNormal(mean, std)}


def _train_denoiser(args: argparse.Namespace, recipe: object, each: Callable) -> int:
    """Train it; returns how many images there were."""
    from ..training.fit import fit
    from ..training.recipe import images_of

    _refuse(args, recipe.name, "head", "size", "backbone", "weights")
    _check_files(args, recipe, bool(recipe.network.get("classes")))
    recipe = recipe.scaled(**_given(args, *BUDGET), **_levels(args))
    if args.learns is not None:
        recipe = recipe.scaled(learns=tuple(args.learns))
    if args.balance:
        recipe = recipe.scaled(balance=True)
    recipe = recipe if args.width is None else recipe.widened(args.width)
    if args.data and recipe.autoencoder and recipe.data != "digits":
        recipe = _latents_of_files(args, recipe)
    if args.data and recipe.noiseless:
        recipe = recipe.as_observed()
        how = f"as they are, noise and all, and sampled down to {recipe.sampling.low:g}"
        print(f"Files hold no noiseless images: they are learnt {how}.")
    images = images_of(recipe, args.data, args.symmetries or 1, args.images)
    more = (args.start, args.unbalanced, args.autoencoder)
    fit(recipe, images, args.folder, args.state, each, None, *more)
    return len(images)


def _latents_of_files(args: argparse.Namespace, recipe: object) -> object:
    """The recipe in the turns of the files. ParameterError without an autoencoder for files."""
    from ..data.images import ELEMENTS

    if args.autoencoder is None:
        reason = f"{recipe.autoencoder} learnt simulated lenses, and files are others"
        first = f"train {recipe.autoencoder} DIR --data {shlex.quote(str(args.data))}"
        cure = f"First: {first}; then --autoencoder DIR"
        raise ParameterError(f"{recipe.name}: {reason}. {cure}.")
    return replace(recipe, elements=ELEMENTS[args.symmetries or 1])


def _train_classifier(args: argparse.Namespace, recipe: object, each: Callable) -> None:
    import numpy as np

    from ..data.images import ELEMENTS
    from ..training.fit import HELD_OUT, fit
    from ..training.recipe import images_of

    _refuse(args, recipe.name, "minutes", "width", "autoencoder", "sigmas", "learns", "balance")
    if args.start and args.weights:
        cure = "Leave --weights out"
        raise ParameterError(f"--start {args.start} has weights for the backbone, too. {cure}.")
    _check_files(args, recipe, classes=True)
    recipe = recipe.scaled(**_given(args, "steps", "batch", "lr", "seed"))
    chosen = _given(args, "head", "size", "backbone", "weights")
    recipe = replace(recipe, model={**recipe.model, **chosen})
    if args.symmetries is not None:
        recipe = recipe.scaled(elements=ELEMENTS[args.symmetries])
    images = images_of(recipe, args.data)
    if args.images is not None and args.images < 1:
        raise ParameterError(f"--images {args.images}: learn one or more.")
    rows, held = images.split(HELD_OUT)
    fewer = np.random.default_rng(recipe.train.seed).permutation(rows)[: args.images]
    split = (np.sort(fewer), held)
    fit(recipe, images, args.folder, args.state, each, split, args.start, args.unbalanced)

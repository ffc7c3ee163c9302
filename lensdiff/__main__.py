"""The only command: `python -m lensdiff train | draw | score | study | notebooks`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .errors import LensdiffError, ParameterError
from .studies import STUDIES

SHARD_HELP = "the K-th of M parts, for independent jobs; the last to finish joins them"
BUDGET = ("steps", "minutes", "batch", "lr", "seed")
DATA_HELP = (
    "a folder of DeepLense files, of Common Test I for a classifier, of MNIST's for digits, of "
    "pictures for lenses in colour"
)


def _command(commands: object, name: str, what: str, example: str) -> argparse.ArgumentParser:
    """A subcommand whose help ends with an example."""
    return commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# ---- train ---------------------------------------------------------------------------------------


def _add_train(commands: object) -> None:
    example = "python -m lensdiff train tiny runs/my-model --state runs/my-state"
    what = "train a recipe on simulated lenses, or on your own folder"
    parser = _command(commands, "train", what, example)
    parser.add_argument("recipe", help="lens64, lens150, classes64, lensnet, digits-vq, ...")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--state", type=Path, help="folder for the full state, to resume from")
    parser.add_argument("--data", type=Path, help=DATA_HELP)
    parser.add_argument("--symmetries", type=int, choices=(1, 2, 8), default=1, help="of --data")
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
    parser.add_argument("--autoencoder", help="whose latents a latent recipe learns: its folder")
    parser.add_argument("--width", type=int, help="channels of a denoiser's first level")
    parser.add_argument("--images", type=int, help="a classifier learns from this many only")
    parser.add_argument("--head", choices=("attention", "plain"), help="of a classifier")
    parser.add_argument("--size", type=int, help="side of what a classifier's backbone sees")
    parser.add_argument("--backbone", help="of a classifier: any name that timm knows")
    parser.add_argument("--weights", type=Path, help="file of the backbone's pretrained weights")
    track = "also show the curve there: tensorboard (files beside the model) or wandb"
    parser.add_argument("--track", metavar="TRACKER", help=track)


def _given(args: argparse.Namespace, *names: str) -> dict:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _train(args: argparse.Namespace) -> None:
    """Train, tracked where that is asked, and leave a page."""
    from .runtime import is_main, machine, processes
    from .studies import pages
    from .training import tracking

    if is_main():
        print(f"{processes()} process{'es' * (processes() > 1)}, {machine()}", flush=True)
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
    from .training import recipes

    known = recipes.every()
    if args.recipe not in known:
        raise ParameterError(f"There is no recipe {args.recipe!r}; there are {', '.join(known)}.")
    return known[args.recipe]


def _train_recipe(args: argparse.Namespace, each: Callable[[object], object]) -> str:
    """Train what `args` name; returns a sentence on what comes next."""
    from .training import recipes

    recipe = _recipe(args)
    following = f"Score it with: python -m lensdiff score {args.folder}"
    if isinstance(recipe, recipes.AutoencoderRecipe):
        _train_autoencoder(args, recipe, each)
        following = f"Learn its latents with: train RECIPE DIR --autoencoder {args.folder}"
    elif isinstance(recipe, recipes.ClassifierRecipe):
        _train_classifier(args, recipe, each)
    else:
        _train_denoiser(args, recipe, each)
    return following


def _refuse(args: argparse.Namespace, recipe: str, *names: str) -> None:
    for name in _given(args, *names):
        raise ParameterError(f"--{name} does not apply to the recipe {recipe}. Leave it out.")


def _train_autoencoder(args: argparse.Namespace, recipe: object, each: Callable) -> None:
    from .training.fit import fit
    from .training.recipe import images_of

    others = ("images", "head", "size", "backbone", "weights", "width", "start", "autoencoder")
    _refuse(args, recipe.name, *others)
    recipe = recipe.scaled(**_given(args, *BUDGET))
    fit(recipe, images_of(recipe, args.data, args.symmetries), args.folder, args.state, each)


def _train_denoiser(args: argparse.Namespace, recipe: object, each: Callable) -> None:
    from .training.fit import fit
    from .training.recipe import images_of

    _refuse(args, recipe.name, "images", "head", "size", "backbone", "weights")
    recipe = recipe.scaled(**_given(args, *BUDGET))
    recipe = recipe if args.width is None else recipe.widened(args.width)
    if args.data and recipe.noiseless:
        print("Files hold no noiseless images: the recipe learns them as they are, noise and all.")
        recipe = replace(recipe, noiseless=False)
    images = images_of(recipe, args.data, args.symmetries)
    more = (args.start, args.unbalanced, args.autoencoder)
    fit(recipe, images, args.folder, args.state, each, None, *more)


def _train_classifier(args: argparse.Namespace, recipe: object, each: Callable) -> None:
    import numpy as np

    from .training.fit import HELD_OUT, fit
    from .training.recipe import images_of

    _refuse(args, recipe.name, "minutes", "width", "autoencoder")
    recipe = recipe.scaled(**_given(args, "steps", "batch", "lr", "seed"))
    chosen = _given(args, "head", "size", "backbone", "weights")
    recipe = replace(recipe, model={**recipe.model, **chosen})
    images = images_of(recipe, args.data, args.symmetries)
    rows, held = images.split(HELD_OUT)
    fewer = np.random.default_rng(recipe.train.seed).permutation(rows)[: args.images]
    split = (np.sort(fewer), held)
    fit(recipe, images, args.folder, args.state, each, split, args.start, args.unbalanced)


# ---- draw ----------------------------------------------------------------------------------------


def _add_draw(commands: object) -> None:
    example = "python -m lensdiff draw classes64 --label axion --guidance 2.5 --out runs/axions"
    what = "draw lenses with a model, into a PNG grid, an .npy and a page"
    parser = _command(commands, "draw", what, example)
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("-n", type=int, default=16, help="images (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the first image (default: 0)")
    parser.add_argument("--label", nargs="+", help="a class, or seven lens parameters")
    parser.add_argument("--guidance", type=float, default=1.0, help="scale (default: 1)")
    parser.add_argument("--steps", type=int, help="in place of the model's own")
    parser.add_argument("--noiseless", action="store_true", help="without the telescope's noise")
    parser.add_argument("--shard", metavar="K/M", help=SHARD_HELP)
    parser.add_argument("--out", type=Path, help="without its ending (default: MODEL-seed0)")


def _draw(args: argparse.Namespace) -> None:
    from .studies import draw

    draw.run(args)


# ---- score, study, notebooks ---------------------------------------------------------------------


def _add_score(commands: object) -> None:
    example = "python -m lensdiff score runs/my-model -n 512"
    what = "score a model by what it is: a card, a table of what was requested, or a report"
    parser = _command(commands, "score", what, example)
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("-n", type=int, help="images a side (2,048), or lenses requested (200)")
    parser.add_argument(
        "--extractor", choices=("efficientnet", "inception"), default="efficientnet"
    )
    parser.add_argument("--inception-weights", type=Path, help="pytorch-fid's weights file")
    parser.add_argument("--data", type=Path, help="a folder that the model never saw")
    parser.add_argument("--sampler", help="ddim, heun or dpmpp_2m, in place of the model's own")
    parser.add_argument("--steps", type=int, help="in place of the model's own")
    parser.add_argument("--levels", help="in place of the model's own: karras, log, or a schedule")
    parser.add_argument("--low", type=float, help="lowest noise level, in place of the model's own")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="of the network")
    parser.add_argument("--images", type=int, default=0, help="how many of the images to store")
    parser.add_argument("--legacy", action="store_true", help="also as earlier reports score")
    parser.add_argument("--scales", type=float, nargs="+", help="guidance of a conditional model")
    parser.add_argument("--judge", help="a classifier of a conditional model's classes")
    parser.add_argument("--each", type=int, default=192, help="images of a class at each scale")
    parser.add_argument("--most", type=int, default=300, help="images of a class at the best scale")
    parser.add_argument(
        "--recipe", choices=("lensnet", "judge64", "judge-digits"), help="of a judge"
    )
    parser.add_argument("--dry", action="store_true", help="print, and store nothing")
    parser.add_argument("--shard", metavar="K/M", help=SHARD_HELP)


def _score(args: argparse.Namespace) -> None:
    from .studies import pages, scoring

    done = scoring.run(args)
    if done and not args.dry:
        print(pages.of_model(args.model))


def _add_studies(commands: object, chosen: str | None) -> None:
    """The studies; only the chosen one is imported, for its options."""
    what = "compute a stored study; what is stored already is not repeated"
    parser = _command(commands, "study", what, "python -m lensdiff study heads")
    studies = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name, words in STUDIES.items():
        example = f"python -m lensdiff study {name}"
        module = (
            importlib.import_module(f".studies.{name}", __package__) if name == chosen else None
        )
        one = _command(studies, name, words, module.EXAMPLE if module else example)
        if module:
            module.add_arguments(one)


def _study(args: argparse.Namespace) -> None:
    importlib.import_module(f".studies.{args.study}", __package__).run(args)


def _notebooks(args: argparse.Namespace) -> int:
    from .notebook import runner

    return runner.run(args)


def parser_for(argv: list[str]) -> argparse.ArgumentParser:
    """The whole command line; of the studies and the runner only what `argv` names is imported."""
    parser = argparse.ArgumentParser(
        prog="python -m lensdiff",
        description="Train, draw with, score and study diffusion models of strong lenses.",
        epilog="example: python -m lensdiff draw lens150 -n 16 --out runs/lenses",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_draw(commands)
    _add_score(commands)
    _add_studies(commands, argv[1] if argv[:1] == ["study"] and len(argv) > 1 else None)
    example = "python -m lensdiff notebooks --profile smoke --only 03"
    what = "execute the notebooks in order; what did not change since its last good run is left"
    notebooks = _command(commands, "notebooks", what, example)
    if argv[:1] == ["notebooks"]:
        from .notebook import runner

        runner.add_arguments(notebooks)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; lensdiff's own errors are one sentence on stderr, and the exit status 1."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser_for(argv).parse_args(argv)
    run = {"train": _train, "draw": _draw, "score": _score, "study": _study}
    try:
        return run.get(args.command, _notebooks)(args) or 0
    except LensdiffError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; what was saved so far is kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as torchrun and Slurm end a process
    sys.exit(main())

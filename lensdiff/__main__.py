"""The only command: `python -m lensdiff simulate | train | draw | score | study | notebooks`."""

from __future__ import annotations

import argparse
import importlib
import io
import signal
import sys
from pathlib import Path

from .errors import LensdiffError
from .studies import STUDIES, simulate, train

SHARD_HELP = "the K-th of M parts, for independent jobs; the last to finish joins them"


def _command(commands: object, name: str, what: str, example: str) -> argparse.ArgumentParser:
    """A subcommand whose help ends with an example."""
    return commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# ---- simulate, train -----------------------------------------------------------------------------


def _add_simulate(commands: object) -> None:
    example = "python -m lensdiff simulate lens64 -n 1000000 --shard 3/8"
    what = "simulate a recipe's lenses into the cache, by independent jobs if there are many"
    simulate.add_arguments(_command(commands, "simulate", what, example))


def _add_train(commands: object) -> None:
    example = "python -m lensdiff train tiny runs/my-model --state runs/my-state"
    what = "train a recipe on simulated lenses, or on your own folder"
    train.add_arguments(_command(commands, "train", what, example))


# ---- draw ----------------------------------------------------------------------------------------


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """Options of a sampling in place of the model's own."""
    own = "in place of the model's own"
    parser.add_argument("--sampler", help=f"ddim, heun or dpmpp_2m, {own}")
    parser.add_argument("--steps", type=int, help=own)
    parser.add_argument("--levels", help=f"{own}: karras, log, flow, or a schedule")
    for name, end in (("high", "highest"), ("low", "lowest")):
        parser.add_argument(f"--{name}", type=float, help=f"{end} noise level, {own}")


def _add_draw(commands: object) -> None:
    example = "python -m lensdiff draw classes64 --label axion --guidance 2.5 --out runs/axions"
    what = "draw lenses with a model, into a PNG grid, an .npy and a page"
    parser = _command(commands, "draw", what, example)
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("-n", type=int, default=16, help="images (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the first image (default: 0)")
    parser.add_argument("--label", nargs="+", help="a class, or seven lens parameters")
    parser.add_argument("--guidance", type=float, default=1.0, help="scale (default: 1)")
    _add_sampling(parser)
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
    data = "your files: unseen ones, or the folder that it learnt, of which a tenth was held out"
    parser.add_argument("--data", type=Path, help=data)
    _add_sampling(parser)
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
    _add_simulate(commands)
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a file of Windows has no sigma
    args = parser_for(argv).parse_args(argv)
    run = {"simulate": simulate.run, "train": train.run, "draw": _draw}
    run |= {"score": _score, "study": _study}
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

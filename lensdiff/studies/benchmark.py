"""lensdiff beside what a user would take instead: time, memory, quality, and how cost grows.

Contenders take turns in one process, and what is said of them is a ratio with its spread. A row
says when, on what machine and with which versions; another kind of processor gets rows of its own.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

from ..errors import ParameterError
from ..lensing.population import KINDS
from ..notebook import times
from ..runtime import best_device, best_precision, machine
from ..storage import studies_folder
from . import benchmark_parts as parts
from .table import Table

EXAMPLE = "python -m lensdiff study benchmark training frechet"
FILE = "benchmark.json"
VERSIONS = ("torch", "numpy", "scipy")
PEERS = ("denoising-diffusion-pytorch", "diffusers", "azula", "lenstronomy", "pytorch-fid")


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: its rows by name, and `minutes` of two CPU cores with bfloat16."""

    rows: dict[str, Callable[[int], dict]]
    minutes: float


PARTS = {
    "training": Part(
        {f"{side}": lambda rounds, side=side: parts.training(side, rounds) for side in parts.SIDES},
        8,
    ),
    "frechet": Part(
        {f"{n}": lambda rounds, n=n: parts.frechet_distance(n, rounds) for n in parts.ROWS}, 5
    ),
    "simulation": Part(
        {kind: lambda rounds, kind=kind: parts.simulation(kind, rounds) for kind in KINDS}, 1
    ),
    "reading": Part({"files": parts.reading}, 1),
    "calls": Part({"lens64": parts.calls}, 12),
    "batches": Part({"lens64": parts.batches}, 2),
    "growth": Part(
        {what: lambda rounds, what=what: parts.growth(what, rounds) for what in parts.GROWING}, 4
    ),
    "limits": Part({"machine": parts.limits}, 0.5),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join(PARTS)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of {known}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def circumstances() -> dict:
    """When, where and with what a row was measured."""
    versions = {name: metadata.version(name) for name in VERSIONS}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"date": date.today().isoformat(), "machine": times.machine(), "versions": versions}


def kind() -> str:
    """What rows of one kind of processor are told apart by: its precision, or the GPU's name."""
    return best_precision() if best_device() == "cpu" else machine()


def run(args: argparse.Namespace) -> None:
    """Measure and store each row that is not stored already for this kind of processor.

    Raises ParameterError for a part that there isn't, or for fewer rounds in the place of results.
    """
    names = list(PARTS) if "all" in args.names else list(dict.fromkeys(args.names))
    for name in names:
        if name not in PARTS:
            raise ParameterError(f"There is no part {name!r}; there are all, {', '.join(PARTS)}.")
    if args.rounds != 5 and args.out == studies_folder():
        raise ParameterError("--rounds makes a trial: give it --out, a folder.")
    minutes = sum(PARTS[name].minutes for name in names)
    print(f"About {minutes:g} minutes on two CPU cores with bfloat16, twice that without.")
    table = Table(args.out / FILE, {"rounds": args.rounds})
    for name in names:
        for row, compute in PARTS[name].rows.items():
            table.row(
                {"part": name, "row": row, "kind": kind()},
                lambda compute=compute: {**circumstances(), **compute(args.rounds)},
            )

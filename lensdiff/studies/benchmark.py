"""lensdiff beside what a user would take instead: time, memory, quality, and how cost grows.

Contenders take turns in one process, and what is said of them is a ratio with its spread. A row
says when, on what machine and with which versions; another kind of processor gets rows of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from ..errors import ParameterError
from ..lensing.population import KINDS
from ..notebook import times
from ..runtime import best_device, best_precision, cpu_has_bf16, machine
from ..storage import root, studies_folder
from . import benchmark_memory as memory
from . import benchmark_parts as parts
from . import benchmark_whole, peer_quality
from .recipes import SCORED
from .table import Table, check_trial

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
        20,
    ),
    "folding": Part(
        {f"{side}": lambda rounds, side=side: parts.folding(side, rounds) for side in parts.SIDES},
        1,
    ),
    "frechet": Part(
        {f"{n}": lambda rounds, n=n: parts.frechet_distance(n, rounds) for n in parts.ROWS}, 5
    ),
    "simulation": Part(
        {kind: lambda rounds, kind=kind: parts.simulation(kind, rounds) for kind in KINDS}, 1
    ),
    "reading": Part({"files": parts.reading}, 1),
    "calls": Part({"lens64": parts.calls}, 31),
    "drawing": Part({"lens64": parts.drawing}, 2),
    "sixteen": Part({parts.LARGEST: parts.sixteen}, 1),
    "batches": Part({"lens64": parts.batches}, 2),
    "growth": Part(
        {what: lambda rounds, what=what: parts.growth(what, rounds) for what in parts.GROWING}, 4
    ),
    "memory": Part(
        {what: lambda _, w=what: memory.drawing(w, parts.GROWING[w]) for what in parts.GROWING}, 2
    ),
    "scores": Part(
        {f"{n}": lambda _, n=n: benchmark_whole.scores(n) for n in benchmark_whole.SCORES},
        2,
    ),
    "limits": Part({"machine": benchmark_whole.limits}, 0.5),
    "start": Part({"first lens": lambda _: benchmark_whole.first_lens()}, 4),
}
START = "start"  # the last of all, since it needs a network
QUALITY = "quality"  # it also needs a folder for its states
QUALITY_MINUTES = 50  # of a peer; the long way goes on from its state, and only draws: 5 to 20
# The same work in seconds, for a look at what a part measures.
SMALL: dict[str, Callable[[int], dict]] = {
    "training": lambda rounds: parts.training(16, rounds, memory=False),
    "folding": lambda rounds: parts.folding(64, rounds),
    "frechet": lambda rounds: parts.frechet_distance(200, rounds, width=48),
    "simulation": lambda rounds: parts.simulation(KINDS[0], rounds),
    "reading": lambda rounds: parts.reading(rounds, files=64),
    "calls": lambda rounds: parts.calls(rounds, n=8, steps=(2, 3), slow=6),
    "drawing": lambda rounds: parts.drawing(rounds, n=1, steps=(2, 3), slow=6),
    "sixteen": lambda rounds: parts.sixteen(rounds, n=1),
    "batches": lambda rounds: parts.batches(rounds, sizes=(1, 4)),
    "growth": lambda rounds: parts.growth("side", rounds, values=(8, 32)),
    "memory": lambda _: memory.drawing("side", values=(16, 64)),
    "scores": lambda _: benchmark_whole.scores(64),
    "limits": benchmark_whole.limits,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    known = ", ".join((*PARTS, QUALITY))
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of {known}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--updates", type=int, help="of each peer, in place of ours' time")
    parser.add_argument("-n", type=int, default=SCORED, help="images to generate for a score")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")
    parser.add_argument("--work", type=Path, help="states of the peers' trainings")


def circumstances() -> dict:
    """When, where and with what a row was measured."""
    versions = {name: metadata.version(name) for name in VERSIONS}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"date": date.today().isoformat(), "machine": times.machine(), "versions": versions}


def kind() -> str:
    """What rows of one kind of processor are told apart by.

    Of a CPU its precision, and its threads where they aren't two; else the GPU's name.
    """
    if best_device() != "cpu":
        return machine()
    precision = best_precision()
    if precision == "fp32" and cpu_has_bf16():
        precision = "fp32 in place of bf16"
    threads = torch.get_num_threads()
    return precision if threads == times.CORES else f"{precision}, threads: {threads}"


def work_of(args: argparse.Namespace) -> Path:
    """Where states of the peers' trainings lie: what is measured anew has others."""
    anew = args.out != studies_folder()
    return args.work or (args.out / "states" if anew else root() / "runs" / "benchmark")


def run(args: argparse.Namespace) -> None:
    """Measure and store each row that is not stored already for this kind of processor.

    Raises ParameterError for a part that there isn't, or for a trial in the place of results.
    """
    every = (*(name for name in PARTS if name != START), QUALITY, START)
    names = list(every) if "all" in args.names else list(dict.fromkeys(args.names))
    for name in names:
        if name not in every:
            raise ParameterError(f"There is no part {name!r}; there are all, {', '.join(every)}.")
    trial = (args.rounds, args.updates, args.n) != (5, None, SCORED)
    check_trial(trial, args.out, "--rounds, --updates and -n")
    about = {"rounds": args.rounds, "updates": args.updates, "n": args.n}
    table = Table(args.out / FILE, about)
    work = {
        (part, name): compute for part in names for name, compute in rows_of(part, args).items()
    }
    missing = [key for key in work if table.find(**key_of(*key)) is None]
    minutes = sum(minutes_of(part) for part, _ in missing)
    if missing:
        print(f"About {in_words(minutes)} on two CPU cores with bfloat16, twice that without.")
    if len(missing) < len(work):
        stored = f"{len(work) - len(missing)} of {len(work)} rows are stored, and stay as they are"
        print(f"{stored}; with --out FOLDER they are measured anew, and kept there.")
    for key in missing:
        table.row(key_of(*key), lambda key=key: {**circumstances(), **work[key]()})


def key_of(part: str, name: str) -> dict:
    """What a row is found by, on a machine of this kind."""
    return {"part": part, "row": name, "kind": kind()}


def in_words(minutes: float) -> str:
    """Minutes, or hours where they are many."""
    return f"{minutes:.3g} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def minutes_of(part: str) -> float:
    """Minutes of a row of a part, on two CPU cores with bfloat16."""
    return QUALITY_MINUTES if part == QUALITY else PARTS[part].minutes / len(PARTS[part].rows)


def rows_of(part: str, args: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """The rows of a part, and what computes each."""
    if part != QUALITY:
        rows = PARTS[part].rows
        return {name: functools.partial(compute, args.rounds) for name, compute in rows.items()}
    given = {"out": args.out, "work": work_of(args), "updates": args.updates, "n": args.n}
    # all of them in equal time first: the long way goes on from their states
    every = itertools.product(peer_quality.WAYS, peer_quality.BUILDERS)
    return {
        f"{name}, {how}": functools.partial(peer_quality.quality, name, how, **given)
        for how, name in every
    }


def measured(part: str, small: bool) -> dict[str, Callable[[int], dict]]:
    """What measures each row of a part in so many rounds; or one row of it, in seconds."""
    return {"small": SMALL[part]} if small else PARTS[part].rows


def numbers(row: dict, above: str = "") -> dict[str, float]:
    """The numbers of a row by their place in it; of lists of numbers the medians."""
    found: dict[str, float] = {}
    for name, value in row.items():
        place = f"{above}, {name}" if above else str(name)
        if isinstance(value, dict):
            found |= numbers(value, place)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, one in enumerate(value, 1):
                found |= numbers(one, f"{place} {number}")
        elif isinstance(value, list) and value and isinstance(value[0], (int, float)):
            found[place] = float(np.median(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[place] = float(value)
    return found

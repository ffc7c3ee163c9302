"""Run times of the notebooks: what the runner recorded, and what they come to on this machine.

`python -m lensdiff notebooks --record` writes data/studies/runtimes.json: a record for each kind of
processor, with the seconds of each notebook and a short measurement of the machine. README and
notebooks show these times; a run scales them by the same measurement, made again.
"""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import DataError
from ..runtime import PRECISION, best_device, best_precision, cpu_has_bf16, synchronize
from ..storage import read_json, root, studies_folder, write_json, write_text
from .files import series

NAME = "runtimes.json"
CURE = f"Restore it: git checkout data/studies/{NAME}"
CORES = 2  # of the machines whose times are recorded for a CPU
HEADS = {"bf16": f"{CORES} CPU cores with bfloat16", "fp32": "in float32", "gpu": "GPU"}
UNRECORDED = "Its run time is not recorded yet."
SENTENCE = re.compile(rf'Run time on [^"\\\n]*?\(recorded [^()]*\)\.|{re.escape(UNRECORDED)}')
BLOCK = re.compile(r"(<!-- run times: .*? -->\n)(.*?)(<!-- end of run times -->)", re.S)
LEVELS = ((48, 32), (96, 16), (144, 8))  # channels and side of the U-Net of 64 x 64 pixels
BATCH = 32
MATRIX = 1536
PART_SECONDS = 3.0


# ---- records -------------------------------------------------------------------------------------


def kind() -> str:
    """The kind of processor that the notebooks use here: 'gpu', or a CPU's 'bf16' or 'fp32'.

    'fp16', which LENSDIFF_PRECISION may ask for, is never recorded.
    """
    return best_precision("cpu") if best_device() == "cpu" else "gpu"


def machine() -> str:
    """What this machine is, in words: its GPU, its cores, and whether they have bfloat16."""
    gpus = {"cuda": torch.cuda.get_device_name, "mps": lambda: "GPU of a Mac", "cpu": str}
    gpu = gpus[best_device()]()
    gpu += ", " if gpu else ""
    has = "with" if cpu_has_bf16() else "without"
    count = torch.get_num_threads()
    cores = f"{count} CPU core{'s' if count > 1 else ''} ({platform.machine()})"
    described = f"{gpu}{cores} {has} bfloat16 instructions"
    if os.environ.get(PRECISION):
        return f"{described}, {PRECISION}={best_precision()}"
    return described


def records(path: Path | None = None) -> dict[str, dict]:
    """The record of each kind of processor that has one, in the order of `HEADS`.

    Raises DataError where the file is damaged; without one there are no records.
    """
    path = path or studies_folder() / NAME
    found = read_json(path, CURE) if path.exists() else {}
    return {name: found[name] for name in HEADS if name in found}


def record(seconds: Mapping[str, float], measured: dict[str, float], path: Path) -> None:
    """Store the seconds of each notebook ('00', '01', ...) as those of this kind of processor."""
    entry = {
        "machine": machine(),
        "date": date.today().isoformat(),
        "versions": {"torch": torch.__version__.split("+")[0]},
        "measurement": measured,
        "seconds": {name: max(1, round(spent)) for name, spent in seconds.items()},
    }
    write_json(path, {**records(path), kind(): entry})


def expected(notebook: str, path: Path | None = None) -> dict[str, float]:
    """Recorded seconds of a notebook ('03', or its whole name) by kind of processor."""
    number = notebook[:2]
    found = records(path)
    return {name: one["seconds"][number] for name, one in found.items() if number in one["seconds"]}


# ---- in words ------------------------------------------------------------------------------------


def words(seconds: float) -> str:
    """A duration as prose has it: '46 s', '3 min'."""
    return f"{seconds:.0f} s" if round(seconds) < 60 else f"{seconds / 60:.0f} min"


def sentence(notebook: str, path: Path | None = None) -> str:
    """The recorded run time of a notebook in one sentence, for its head; never an invented one."""
    spent = {name: words(seconds) for name, seconds in expected(notebook, path).items()}
    if not spent:
        return UNRECORDED
    found = records(path)
    parts = []
    if "bf16" in spent:
        parts.append(f"{spent['bf16']} with bfloat16 instructions")
    if "fp32" in spent:
        parts.append(f"{spent['fp32']} in float32")  # what a CPU without them takes
    places = [f"on {CORES} CPU cores: {', '.join(parts)}"] if parts else []
    if "gpu" in spent:
        places.append(f"on a GPU ({found['gpu']['machine'].split(',')[0]}): {spent['gpu']}")
    return f"Run time {'; '.join(places)} (recorded {dates(found[name] for name in spent)})."


def dates(entries: Iterable[Mapping]) -> str:
    """The dates of records, each once."""
    return " and ".join(sorted({one["date"] for one in entries}))


def with_times(readme: str, path: Path | None = None) -> str:
    """The README with the run times of its table of notebooks made anew; the rest is as it was.

    Raises DataError where the table's comments are missing.
    """
    block = BLOCK.search(readme)
    if not block:
        raise DataError("README.md has no <!-- run times: ... --> block. Put it back.")
    lines = [line for line in block[2].splitlines() if re.match(r"\| \[\d\d ", line)]
    rows = [line.strip("| ").split(" | ")[:2] for line in lines]
    found = records(path)
    head = ["notebook", "what it shows", *(HEADS[name] for name in found)]
    total = ["all", ""]
    for one in found.values():
        spent = [one["seconds"].get(row[0][1:3]) for row in rows]
        for row, seconds in zip(rows, spent, strict=True):
            row.append("" if seconds is None else words(seconds))
        total.append("" if None in spent else words(sum(spent)))
    table = [head, ["---"] * len(head), *rows]
    if any(total[2:]):
        table.append(total)
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"{readme[: block.start(2)]}{text}\n{readme[block.end(2) :]}"


def refresh(folder: Path | None = None) -> None:
    """Bring README.md and the sentences in the committed notebooks up to date with the records.

    `folder` is that of the repository.
    """
    folder = folder or root()
    path = folder / "data" / "studies" / NAME
    pages = {page: _current(page, path) for page in series(folder / "notebooks")}
    readme = folder / "README.md"
    if readme.exists():
        pages[readme] = with_times(readme.read_text(encoding="utf-8"), path)
    for page, text in pages.items():
        if text != page.read_text(encoding="utf-8"):
            write_text(page, text)


def _current(page: Path, path: Path) -> str:
    """The text of a notebook's file with today's sentence in place of an older one."""
    now = sentence(page.name, path)
    return SENTENCE.sub(lambda _: now, page.read_text(encoding="utf-8"))


# ---- a measurement of this machine ---------------------------------------------------------------


def _level(channels: int) -> nn.Sequential:
    """A level of our U-Net: norms, activations and 3 x 3 convolutions, nothing else."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.GroupNorm(16, channels), nn.SiLU()]
        layers += [nn.Conv2d(channels, channels, 3, padding=1)]
    return nn.Sequential(*layers)


def measure() -> dict[str, float]:
    """Median seconds of an update of convolutions and of a matrix product, in about six seconds.

    Both on the device, and in the precision, that the notebooks use here.
    """
    device = best_device()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    chosen = dtype[best_precision(device)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        levels = nn.ModuleList(_level(channels) for channels, _ in LEVELS).to(device)
        inputs = [torch.randn(BATCH, c, side, side, device=device) for c, side in LEVELS]
        a = torch.randn(MATRIX, MATRIX, device=device, dtype=chosen)
    levels = levels.to(memory_format=torch.channels_last)
    # before 2.14, torch crashes where the first of these norms needs no gradient of its input
    inputs = [x.to(memory_format=torch.channels_last).requires_grad_() for x in inputs]
    optimizer = torch.optim.AdamW(levels.parameters(), lr=1e-3)

    def update() -> None:
        optimizer.zero_grad()
        for level, x in zip(levels, inputs, strict=True):
            with torch.autocast(device, chosen, enabled=chosen != torch.float32):
                y = level(x)
            F.mse_loss(y.float(), x.detach()).backward()
        optimizer.step()

    return {"update": _median(update, device), "matmul": _median(lambda: a @ a, device)}


def _median(work: Callable[[], object], device: str) -> float:
    """Median seconds of `work`, after one that warms up, over `PART_SECONDS`."""
    end = time.perf_counter() + PART_SECONDS
    spent: list[float] = []
    while len(spent) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        synchronize(device)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[1:])


def factor(here: Mapping[str, float], there: Mapping[str, float]) -> float:
    """How many times as long as there this machine takes: the mean, in logarithms, of the parts."""
    ratios = [math.log(here[name] / there[name]) for name in here if name in there]
    return math.exp(sum(ratios) / len(ratios))

"""What a run of the notebooks shows: what comes, where it is, what failed, and where to look."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import threading
import time
from pathlib import Path

from nbclient.exceptions import DeadKernelError

from . import times
from .files import ANSI, read
from .plan import Job

TRACEBACK_LINES = 16
DIED = (
    "A kernel dies most often for want of memory: close other programs, or take a smaller profile "
    "or smaller parameters. The same command then goes on from this notebook."
)
WIDTH = 100


def shown(path: Path) -> str:
    """The path as short as it can be typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def clock(seconds: float) -> str:
    """Minutes and seconds: '3:05'."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def say(text: str) -> None:
    """Print a paragraph at once."""
    print(textwrap.fill(text, WIDTH, subsequent_indent="  "), flush=True)


# ---- before it runs ------------------------------------------------------------------------------


def announce(jobs: list[Job], waiting: list[Job], profile: str) -> None:
    """Say which of the jobs run, which are left as they are, and what this machine is.

    Raises ParameterError, before anything is printed, for a wrong LENSDIFF_PRECISION.
    """
    machine = times.machine()
    numbers = " ".join(job.path.stem[:2] for job in waiting)
    left = " ".join(job.path.stem[:2] for job in jobs if job not in waiting)
    if waiting:
        what = "notebook" if len(waiting) == 1 else "notebooks"
        say(f"{len(waiting)} {what} to run at profile {profile}: {numbers}")
    if left:
        say(f"Unchanged since the last good run: {left} (--force runs them again)")
    say(f"This machine: {machine}")


def estimate(waiting: list[Job], profile: str, path: Path, measure: bool) -> dict[str, float]:
    """Say how long the jobs will take here, and note it in them; returns the measurement.

    Recorded times (in the file `path`) are scaled by a measurement of this machine, which is made
    where more than a minute is to come, or where `measure` asks for it; else it is empty.
    """
    record = times.records(path).get(times.kind(), {}) if profile == "standard" else {}
    jobs = {job.path.stem[:2]: job for job in waiting}
    known = {name: record["seconds"][name] for name in jobs if name in record.get("seconds", {})}
    there = record.get("measurement")
    here: dict[str, float] = {}
    if measure or (there and sum(known.values()) > 60):
        say("Measuring for a few seconds how fast it is ...")
        here = times.measure()
    if not known:
        why = f"none is recorded for {'these' if record else f'such a machine ({times.kind()})'}"
        why = why if profile == "standard" else "only those of profile standard are recorded"
        say(f"How long it takes is not known: {why}.")
        return here
    scale = times.factor(here, there) if here and there else 1.0
    for name, seconds in known.items():
        jobs[name].expected = scale * seconds
    each = ", ".join(f"{name} {times.words(scale * seconds)}" for name, seconds in known.items())
    say(f"Expected: {times.words(scale * sum(known.values()))} in all ({each})")
    scaled = f"times {scale:.2f} here" if here and there else "not scaled to this one"
    say(f"  (recorded {record['date']} on {record['machine']}, {scaled})")
    return here


# ---- while it runs -------------------------------------------------------------------------------


class Line:
    """The line of the notebook that runs: cell, elapsed and expected time.

    On a terminal it is rewritten every second; elsewhere it is printed once.
    """

    def __init__(self, job: Job, wide: int):
        self.name = f"{job.path.stem:{wide}}"
        cells = read(job.path).cells
        self.cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells)
        placed = any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
        self.cells += bool(job.parameters) and not placed
        self.about = f" of about {clock(job.expected)}" if job.expected else ""
        self.number = 0
        self.start = time.monotonic()
        self._over = threading.Event()
        self._ticks = threading.Thread(target=self._tick, daemon=True)
        self._live = sys.stdout.isatty()

    def __enter__(self) -> Line:
        if self._live:
            self._show()
            self._ticks.start()
        else:
            print(f"{self.name}  runs{self.about.replace(' of', ',')} ...", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._live:
            self._ticks.join()
            self._write("")

    def cell(self, cell: object, cell_index: int) -> None:
        """What nbclient calls before it executes a code cell (its hook `on_cell_execute`)."""
        self.number += 1
        if self._live:
            self._show()

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            self._show()

    def _show(self) -> None:
        spent = clock(time.monotonic() - self.start)
        where = f"cell {self.number} of {self.cells}" if self.number else "starts"
        self._write(f"{self.name}  {where}, {spent}{self.about}")

    def _write(self, text: str) -> None:
        """Put the text in place of the line; without one the line is empty."""
        room = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r{text[:room]:<{room}}{'' if text else chr(13)}")
        sys.stdout.flush()


def done(job: Job, page: Path, wide: int) -> None:
    """Say that a notebook is good, what it took, and the address of its page."""
    about = f" of about {clock(job.expected)}" if job.expected else ""
    print(f"{job.path.stem:{wide}}  {clock(job.seconds)}{about}  {page.as_uri()}", flush=True)


# ---- after it ran --------------------------------------------------------------------------------


def report(job: Job, error: Exception, failed: Path) -> str:
    """Print the failing cell's source and the end of its traceback; returns the result's name."""
    source = getattr(error, "source", None)
    number = getattr(error, "exec_count", None)
    lines = [line for frame in getattr(error, "traceback", []) for line in frame.splitlines()]
    # the kernel died, or never started: the cell is the one that was sent and never answered
    if source is None:
        lines = str(error).splitlines()
        lines[:1] = [f"{type(error).__name__}: {lines[0] if lines else ''}"]
        cells = read(failed).cells if failed.exists() else []
        sent = [cell for cell in cells if "execution" in cell.metadata]
        source = next(
            (cell.source for cell in sent if "shell.execute_reply" not in cell.metadata.execution),
            None,
        )
    where = f"failed in cell [{number}]" if number else "failed"
    print(f"\n{job.path.name} {where}:\n")
    if source is not None:
        print("".join(f"    {line}\n" for line in source.splitlines()))
    print(*[ANSI.sub("", line) for line in lines][-TRACEBACK_LINES:], sep="\n")
    if isinstance(error, DeadKernelError):
        say(DIED)
    if failed.exists():
        print(f"\nThe notebook as far as it came: {shown(failed)}")
    return where


def table(jobs: list[Job], folder: Path) -> str:
    """One line for each notebook: how long, how it went, where to look."""
    wide = max(len(job.path.stem) for job in jobs)
    lines = [f"{'notebook':{wide}}  {'time':>6}  {'result':22}  look at"]
    for job in jobs:
        spent = "-" if job.seconds is None else clock(job.seconds)
        ends = {"good": ".html", "unchanged": ".html", "not run": ""}
        written = folder / f"{job.path.stem}{ends.get(job.result, '.failed.ipynb')}"
        page = shown(written) if written.is_file() else ""
        lines.append(f"{job.path.stem:{wide}}  {spent:>6}  {job.result:22}  {page}".rstrip())
    return "\n".join(lines)

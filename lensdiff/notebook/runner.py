"""Execute the notebooks of the series headless and in order, with papermill, each with an HTML.

`python -m lensdiff notebooks --profile smoke` writes runs/smoke/NN_name.ipynb and .html. A notebook
whose sources, package, weights, parameters and predecessors are those of its last good run is left
as it is. The first that fails ends the chain.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import papermill
import torch
from nbconvert import HTMLExporter

from .. import storage
from ..errors import ParameterError, StorageError
from . import screen, student, times
from .files import open_again, publish, read, tidy
from .helpers import PROFILES
from .plan import Job, chosen, due, known_stamps, parse_value, plan

TEMPLATE = Path(str(files(__package__) / "template"))
MATHJAX = "mathjax.js"
KERNEL_LOG = "--IPKernelApp.log_level=ERROR"  # else every kernel warns that it talks over TCP


# ---- executing -----------------------------------------------------------------------------------


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """What the kernels see: these variables, no progress bars, and the kernel of this Python."""
    before = dict(os.environ)
    kernels = os.pathsep.join(
        filter(None, [str(Path(sys.prefix, "share", "jupyter")), before.get("JUPYTER_PATH")])
    )
    os.environ.update(variables, LENSDIFF_QUIET="1", JUPYTER_PATH=kernels)
    os.environ.pop("MPLBACKEND", None)  # else figures don't reach the notebook
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def known_parameters() -> Iterator[None]:
    """No papermill warning of parameters it doesn't know: it reads the first tagged cell alone."""

    def known(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Passed unknown parameter")

    log = logging.getLogger("papermill")
    log.addFilter(known)
    try:
        yield
    finally:
        log.removeFilter(known)


def execute(job: Job, folder: Path, wide: int = 0) -> bool:
    """Run one notebook into `folder` and write its HTML; returns whether it is good.

    On failure the cell and the error are printed, and what there is is kept. `wide` is the width
    of its name on the screen.
    """
    good = folder / f"{job.path.stem}.ipynb"
    part = folder / f"{job.path.stem}.part.ipynb"
    failed = folder / f"{job.path.stem}.failed.ipynb"
    options = {
        "kernel_name": "python3",
        "language": "python",
        "cwd": str(job.path.parent),
        "progress_bar": False,
        "coalesce_streams": True,
        "extra_arguments": [KERNEL_LOG],
    }
    start = time.monotonic()
    try:
        with screen.Line(job, wide) as line, known_parameters():
            papermill.execute_notebook(
                str(job.path), str(part), job.parameters, on_cell_execute=line.cell, **options
            )
    except KeyboardInterrupt:
        part.unlink(missing_ok=True)
        raise
    except Exception as error:  # whatever stops a notebook is reported in one way
        if part.exists():
            part.replace(failed)
        job.result = screen.report(job, error, failed)
        return False
    finally:
        job.seconds = time.monotonic() - start
    part.replace(good)
    failed.unlink(missing_ok=True)
    place = {"metadata": {"name": job.path.stem, "path": str(job.path.parent)}}
    page, _ = exporter(folder.parent).from_notebook_node(tidy(read(good)), place)
    storage.write_text(good.with_suffix(".html"), page)
    job.result = "good"
    return True


def exporter(folder: Path) -> HTMLExporter:
    """What makes HTML of a notebook, for pages one folder below `folder`.

    MathJax is copied there, so that equations are shown without a network.
    """
    place = folder / MATHJAX
    own = storage.sha256_of_file(TEMPLATE / MATHJAX)
    if not place.exists() or storage.sha256_of_file(place) != own:
        folder.mkdir(parents=True, exist_ok=True)
        with storage.atomic(place) as part:
            shutil.copyfile(TEMPLATE / MATHJAX, part)
    return HTMLExporter(
        embed_images=True,
        extra_template_basedirs=[str(TEMPLATE.parent)],
        template_name=TEMPLATE.name,
        mathjax_url=f"../{MATHJAX}",
        require_js_url="",
    )


def run_chain(waiting: list[Job], folder: Path, in_place: bool) -> bool:
    """Run the jobs in order, up to the first failure; returns whether all are good.

    The stamps of good runs stay in `folder`/status.json.
    """
    record = folder / "status.json"
    stamps = known_stamps(record)
    wide = max((len(job.path.stem) for job in waiting), default=0)
    for job in waiting:
        name = job.path.stem
        # later ones used the results replaced now
        stamps = {earlier: stamp for earlier, stamp in stamps.items() if earlier < name}
        storage.write_json(record, stamps)  # before: it may be broken off
        good = execute(job, folder, wide)
        stamps |= {name: job.stamp} if good else {}
        storage.write_json(record, stamps)
        if not good:
            return False
        screen.done(job, folder / f"{name}.html", wide)
        if in_place:
            publish(folder / job.path.name, job.path)
    return True


def unrecordable(args: argparse.Namespace) -> str:
    """Why the run times can't be recorded, as the rest of a sentence; empty where they can."""
    threads = torch.get_num_threads()
    if args.profile != "standard":
        return "only those of profile standard are"
    if args.only or args.parameters:
        return "only those of the whole series, without -p, are"
    if times.kind() not in times.HEADS:
        return f"none is of {times.kind()}: leave LENSDIFF_PRECISION out"
    if times.kind() != "gpu" and threads != times.CORES:
        return f"only those on {times.CORES} CPU cores are, and torch uses {threads} here"
    return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m lensdiff notebooks`."""
    parser.add_argument("--profile", choices=PROFILES, default="standard", help="how large it is")
    parser.add_argument("--force", action="store_true", help="run unchanged notebooks too")
    parser.add_argument("--only", metavar="PREFIX", default="", help="those that start so, e.g. 03")
    in_place = "run all again and replace the committed ones, tidied for GitHub"
    parser.add_argument("--in-place", action="store_true", help=in_place)
    record = "run all again and store their run times, for README and notebooks"
    parser.add_argument("--record", action="store_true", help=record)
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        dest="parameters",
        help="a parameter",
    )
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where results go (default: runs)")
    again = "write badges and the cell for Colab anew, for another address or version; run nothing"
    parser.add_argument("--openings", action="store_true", help=again)
    edition = "write the series without outputs and solutions into runs/student, with work cells"
    parser.add_argument("--student", action="store_true", help=edition)
    checked = "run a filled-in page of it, or a folder of them, and say which answers are right"
    parser.add_argument("--check", type=Path, metavar="PAGE", help=checked)


def students(args: argparse.Namespace, root: Path) -> int:
    """Write the student edition, or check a filled-in page at profile smoke; an exit status."""
    if args.student and args.check:
        raise ParameterError("--student and --check exclude each other: first write, then check.")
    runs = args.runs or root / "runs"
    if args.student:
        folder = runs / student.FOLDER
        written = student.write(folder, root)
        print(f"{len(written)} pages in {screen.shown(folder)}. Check filled-in ones with: --check")
        return 0
    with environment(LENSDIFF_PROFILE="smoke", LENSDIFF_RUNS=str(runs.resolve() / "checked")):
        return student.report(args.check)


def run(args: argparse.Namespace, root: Path | None = None) -> int:
    """Run the series of the repository `root`; returns 0 where every notebook is good, else 1.

    Raises ParameterError for options that exclude each other, or a folder that can't be written.
    """
    root = root or storage.root()
    if args.student or args.check:
        return students(args, root)
    if args.openings:
        changed = open_again(root / "notebooks")
        print(f"{len(changed)} notebooks changed.")
        return 0
    parameters = {name: parse_value(value) for name, value in args.parameters}
    jobs = chosen(plan(root, args.profile, parameters), args.only, parameters)
    if args.in_place and parameters:
        reason = "the committed notebooks have the parameters written in them"
        raise ParameterError(f"--in-place takes no -p: {reason}.")
    folder = (args.runs or root / "runs").resolve() / args.profile
    variables = {"LENSDIFF_PROFILE": args.profile, "LENSDIFF_RUNS": str(folder)}
    if args.in_place:
        variables["LENSDIFF_FIGURES"] = str(root / "figures")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if args.in_place:
            (root / "figures").mkdir(exist_ok=True)
        with environment(**variables):
            good = run_jobs(args, jobs, folder, root / "data" / "studies" / times.NAME)
        if args.in_place or args.record:
            times.refresh(root)
    except StorageError:
        raise
    except OSError as error:
        raise ParameterError(f"The results can't be written: {error}.") from error
    print(f"\n{screen.table(jobs, folder)}")
    return 0 if good else 1


def run_jobs(args: argparse.Namespace, jobs: list[Job], folder: Path, recorded: Path) -> bool:
    """Say what runs and what it will take, run it, and record what it took where that is asked.

    `recorded` is the file of run times. Returns whether every notebook is good.
    """
    waiting = due(jobs, folder, args.force or args.in_place or args.record)
    screen.announce(jobs, waiting, args.profile)
    why_not = unrecordable(args) if args.record else ""
    if why_not:
        screen.say(f"Run times will not be recorded: {why_not}.")
    record = args.record and not why_not
    measured = {}
    if waiting:
        measured = screen.estimate(waiting, args.profile, recorded, record)
    good = run_chain(waiting, folder, args.in_place)
    if good and record:
        times.record({job.path.stem[:2]: job.seconds for job in jobs}, measured, recorded)
        print(f"Run times recorded: {screen.shown(recorded)}")
    return good

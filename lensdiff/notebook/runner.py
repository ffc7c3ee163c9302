"""Execute the notebooks of the series headless and in order, with papermill, each with an HTML.

`python -m lensdiff notebooks --profile smoke` writes runs/smoke/NN_name.ipynb and .html. A notebook
whose sources, package, weights, parameters and predecessors are those of its last good run is left
as it is. The first that fails ends the chain.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import papermill
from nbconvert import HTMLExporter

from .. import storage
from ..errors import ParameterError, StorageError
from .files import ANSI, publish, read, tidy
from .helpers import PROFILES
from .plan import Job, chosen, parse_value, plan

KERNEL_LOG = "--IPKernelApp.log_level=ERROR"  # else every kernel warns that it talks over TCP
TRACEBACK_LINES = 16


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


def execute(job: Job, folder: Path) -> bool:
    """Run one notebook into `folder` and write its HTML; returns whether it is good.

    On failure the cell and the error are printed, and what there is is kept.
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
    }
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            str(job.path), str(part), job.parameters, extra_arguments=[KERNEL_LOG], **options
        )
    except KeyboardInterrupt:
        part.unlink(missing_ok=True)
        raise
    except Exception as error:  # whatever stops a notebook is reported in one way
        if part.exists():
            part.replace(failed)
        job.result = report(job, error, failed)
        return False
    finally:
        job.seconds = time.monotonic() - start
    part.replace(good)
    failed.unlink(missing_ok=True)
    place = {"metadata": {"name": job.path.stem, "path": str(job.path.parent)}}
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(tidy(read(good)), place)
    good.with_suffix(".html").write_text(page, encoding="utf-8")
    job.result = "good"
    return True


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
    if failed.exists():
        print(f"\nThe notebook as far as it came: {shown(failed)}")
    return where


def run_chain(jobs: list[Job], folder: Path, force: bool, in_place: bool) -> bool:
    """Run what changed, in order, up to the first failure; returns whether all are good.

    The stamps of good runs stay in `folder`/status.json.
    """
    record = folder / "status.json"
    stamps = known_stamps(record)
    for job in jobs:
        name = job.path.stem
        written = (folder / f"{job.path.stem}{end}" for end in (".ipynb", ".html"))
        if not force and stamps.get(name) == job.stamp and all(path.exists() for path in written):
            job.result = "unchanged"
            continue
        print(f"{name} ...", flush=True)
        # later ones used the results replaced now
        stamps = {earlier: stamp for earlier, stamp in stamps.items() if earlier < name}
        good = execute(job, folder)
        stamps |= {name: job.stamp} if good else {}
        storage.write_json(record, stamps)
        if not good:
            return False
        if in_place:
            publish(folder / job.path.name, job.path)
    return True


def known_stamps(record: Path) -> dict[str, str]:
    """The stamps of the last good runs; none where the record is missing or damaged."""
    try:
        stamps = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def shown(path: Path) -> str:
    """The path as short as it can be typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def table(jobs: list[Job], folder: Path) -> str:
    """One line for each notebook: how long, how it went, where to look."""
    wide = max(len(job.path.stem) for job in jobs)
    lines = [f"{'notebook':{wide}}  {'time':>6}  {'result':22}  look at"]
    for job in jobs:
        spent = "-"
        if job.seconds is not None:
            spent = f"{int(job.seconds // 60)}:{int(job.seconds % 60):02d}"
        ends = {"good": ".html", "unchanged": ".html", "not run": ""}
        written = folder / f"{job.path.stem}{ends.get(job.result, '.failed.ipynb')}"
        page = shown(written) if written.is_file() else ""
        lines.append(f"{job.path.stem:{wide}}  {spent:>6}  {job.result:22}  {page}".rstrip())
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m lensdiff notebooks`."""
    parser.add_argument("--profile", choices=PROFILES, default="standard", help="how large it is")
    parser.add_argument("--force", action="store_true", help="run unchanged notebooks too")
    parser.add_argument("--only", metavar="PREFIX", default="", help="those that start so, e.g. 03")
    in_place = "run all again and replace the committed ones, tidied for GitHub"
    parser.add_argument("--in-place", action="store_true", help=in_place)
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


def run(args: argparse.Namespace, root: Path | None = None) -> int:
    """Run the series of the repository `root`; returns 0 where every notebook is good, else 1.

    Raises ParameterError for options that exclude each other, or a folder that can't be written.
    """
    root = root or storage.root()
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
            good = run_chain(jobs, folder, args.force or args.in_place, args.in_place)
    except StorageError:
        raise
    except OSError as error:
        raise ParameterError(f"The results can't be written: {error}.") from error
    print(f"\n{table(jobs, folder)}")
    return 0 if good else 1

"""Execute the notebooks of the series headless and in order, with papermill, each with an HTML
beside it.

`python scripts/run_notebooks.py --profile smoke` writes runs/smoke/NN_name.ipynb and .html. A
notebook whose sources, package, weights, parameters and predecessors are those of its last good run
is left as it is. The first that fails ends the chain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import papermill
import yaml
from nbconvert import HTMLExporter
from notebook_files import ANSI, parameter_names, publish, read, save, sources, tidy

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("smoke", "standard", "full")
KERNEL_LOG = "--IPKernelApp.log_level=ERROR"  # else every kernel warns that it talks over TCP
TRACEBACK_LINES = 16


@dataclass
class Job:
    """One notebook of the chain: where it lies, the parameters it takes, the stamp of all that
    made it, and how it went.
    """

    path: Path
    parameters: dict
    stamp: str
    seconds: float | None = None
    result: str = "not run"


# ---- what a notebook is made of ------------------------------------------------------------------


def parse_value(text: str) -> object:
    """A parameter from the command line: a number, a bool, a list or None as YAML has them, 1e-3
    too; else the text itself.
    """
    if re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text):
        return float(text)
    try:
        value = yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text
    return value if value is None or isinstance(value, bool | int | float | list | dict) else text


def surroundings(root: Path) -> str:
    """SHA-256 of what every notebook depends on: the package, the pins, the shipped weights and
    the installed torch.
    """
    digest = hashlib.sha256()
    files = [
        *(root / "lensdiff").rglob("*.py"),
        root / "constraints.txt",
        *(root / "data" / "checkpoints").rglob("*"),
    ]
    for path in sorted(path for path in files if path.is_file()):
        digest.update(
            f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    try:
        digest.update(version("torch").encode())
    except PackageNotFoundError:
        digest.update(b"no torch")
    return digest.hexdigest()


def listings(root: Path, parameters: Mapping[str, object]) -> list[list]:
    """Names, sizes and times of the files below each parameter that names a folder."""
    texts = [value for value in parameters.values() if isinstance(value, str) and value]
    folders = {
        folder
        for text in texts
        for folder in (Path(text), root / "notebooks" / text, root / text)
        if folder.is_dir()
    }
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def plan(root: Path, profile: str, parameters: Mapping[str, object]) -> list[Job]:
    """The whole chain in order.

    A stamp holds the stamps before it: whatever changes a notebook changes all later ones.
    """
    jobs: list[Job] = []
    stamp = surroundings(root)
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = read(path)
        names = parameter_names(notebook)
        own = {name: value for name, value in parameters.items() if name in names}
        made_of = [stamp, profile, path.name, own, listings(root, own), sources(notebook)]
        stamp = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        jobs.append(Job(path, own, stamp))
    return jobs


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
    """Run one notebook into `folder` and write its HTML; on failure print the cell and the
    error, keep what there is, return False.
    """
    good, part, failed = (
        folder / f"{job.path.stem}{end}.ipynb" for end in ("", ".part", ".failed")
    )
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
    """Print the failing cell's source and the end of its traceback; returns the result's short
    name.
    """
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
    """Run what changed, in order, up to the first failure; the stamps of good runs stay in
    `folder`/status.json.
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
        save(record, json.dumps(stamps, indent=1) + "\n")
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


# ---- the command line ----------------------------------------------------------------------------


def shown(path: Path) -> str:
    """The path as short as it can be typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def table(jobs: list[Job], folder: Path) -> str:
    """One line for each notebook: how long, how it went, where to look."""
    wide = max(len(job.path.stem) for job in jobs)
    lines = [f"{'notebook':{wide}}  {'time':>6}  {'result':22}  look at"]
    for job in jobs:
        spent = (
            f"{int(job.seconds // 60)}:{int(job.seconds % 60):02d}"
            if job.seconds is not None
            else "-"
        )
        end = {"good": ".html", "unchanged": ".html", "not run": None}.get(
            job.result, ".failed.ipynb"
        )
        page = (
            shown(folder / f"{job.path.stem}{end}")
            if end and (folder / f"{job.path.stem}{end}").exists()
            else ""
        )
        lines.append(f"{job.path.stem:{wide}}  {spent:>6}  {job.result:22}  {page}".rstrip())
    return "\n".join(lines)


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser, for its error messages, and what it read."""
    parser = argparse.ArgumentParser(
        description="Execute the notebooks in order; what did not change since its last good run is left."
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default="standard",
        help="how large everything is (default: standard)",
    )
    parser.add_argument("--force", action="store_true", help="run unchanged notebooks too")
    parser.add_argument(
        "--only",
        metavar="PREFIX",
        default="",
        help="only the notebooks whose name starts so, e.g. 03",
    )
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="run all again and replace the committed ones, tidied for GitHub",
    )
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        dest="parameters",
        help="a parameter",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="where the results go, in a folder for each profile (default: runs)",
    )
    return parser, parser.parse_args(argv)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the series of the repository `root`; returns the exit status, 0 where every notebook
    is good.
    """
    parser, args = arguments(argv)
    parameters = {name: parse_value(value) for name, value in args.parameters}
    jobs = plan(root, args.profile, parameters)
    chosen = [job for job in jobs if job.path.name.startswith(args.only)]
    if not chosen:
        parser.error(
            f"no notebook in {shown(root / 'notebooks')} starts with {args.only!r}."
            if jobs
            else "there are no notebooks to run."
        )
    if "profile" in parameters:
        parser.error("choose the profile with --profile.")
    if args.in_place and parameters:
        parser.error(
            "--in-place takes no -p: the committed notebooks have the parameters written in them."
        )
    if unknown := sorted(set(parameters) - {name for job in chosen for name in job.parameters}):
        parser.error(f"no chosen notebook has a parameter named {', '.join(unknown)}.")
    folder = (args.runs or root / "runs").resolve() / args.profile
    figures = {"LENSDIFF_FIGURES": str(root / "figures")} if args.in_place else {}
    try:
        for needed in (folder, *map(Path, figures.values())):
            needed.mkdir(parents=True, exist_ok=True)
        with environment(LENSDIFF_PROFILE=args.profile, LENSDIFF_RUNS=str(folder), **figures):
            good = run_chain(chosen, folder, args.force or args.in_place, args.in_place)
    except OSError as error:
        parser.error(f"can't write the results: {error}.")
    except KeyboardInterrupt:
        print("\nInterrupted; what was good so far is kept.")
        return 130
    print(f"\n{table(chosen, folder)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

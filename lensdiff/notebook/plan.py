"""What a run of the series is made of: notebooks, parameters, and the stamp of all behind each."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from ..errors import ParameterError
from ..storage import sha256_of_file
from . import times
from .files import parameter_names, read, series, sources


@dataclass
class Job:
    """One notebook: where it lies, its parameters, the stamp of all behind it, and how it went.

    `expected` are the seconds that it should take here, where that is known.
    """

    path: Path
    parameters: dict
    stamp: str
    expected: float | None = None
    seconds: float | None = None
    result: str = "not run"


def parse_value(text: str) -> object:
    """A parameter from the command line: a number, a bool, a list or None as YAML has them.

    1e-3 is a number too; anything else is the text itself.
    """
    if re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text):
        return float(text)
    try:
        value = yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text
    return value if value is None or isinstance(value, bool | int | float | list | dict) else text


def surroundings(root: Path) -> str:
    """SHA-256 of what every notebook depends on: package, pins, shipped data, installed torch.

    The recorded run times don't count: to store them must not make every notebook run again.
    """
    digest = hashlib.sha256()
    package = (root / "lensdiff").rglob("*")
    files = [path for path in package if "__pycache__" not in path.parts]
    files.append(root / "constraints.txt")
    for name in ("checkpoints", "reference", "studies"):
        files += (root / "data" / name).rglob("*")
    files = [path for path in files if path.name != times.NAME]
    for path in sorted(path for path in files if path.is_file()):
        line = f"{path.relative_to(root).as_posix()} {sha256_of_file(path)}\n"
        digest.update(line.encode())
    try:
        digest.update(version("torch").encode())
    except PackageNotFoundError:
        digest.update(b"no torch")
    return digest.hexdigest()


def listings(root: Path, parameters: Mapping[str, object]) -> list[list]:
    """Names, sizes and times of each parameter's file, or of all below its folder."""
    texts = [value for value in parameters.values() if isinstance(value, str) and value]
    places = [place / text for text in texts for place in (Path(), root / "notebooks", root)]
    found = {place for place in places if os.path.isfile(place)}  # a long text is none
    for place in places:
        if os.path.isdir(place):
            found |= {path for path in place.rglob("*") if path.is_file()}
    files = sorted(found)
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def plan(root: Path, profile: str, parameters: Mapping[str, object]) -> list[Job]:
    """The whole chain in order.

    A stamp holds the stamps before it: whatever changes a notebook changes all later ones.
    """
    jobs: list[Job] = []
    stamp = surroundings(root)
    for path in series(root / "notebooks"):
        notebook = read(path)
        names = parameter_names(notebook)
        own = {name: value for name, value in parameters.items() if name in names}
        made_of = [stamp, profile, path.name, own, listings(root, own), sources(notebook)]
        stamp = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        jobs.append(Job(path, own, stamp))
    return jobs


def due(jobs: list[Job], folder: Path, force: bool) -> list[Job]:
    """The jobs that have to run; the others' result is set to 'unchanged'.

    What did not change since its last good run into `folder` need not run, unless one before it
    does, whose results it uses.
    """
    stamps = known_stamps(folder / "status.json")
    for number, job in enumerate(jobs):
        name = job.path.stem
        written = all((folder / f"{name}{end}").exists() for end in (".ipynb", ".html"))
        if force or stamps.get(name) != job.stamp or not written:
            return jobs[number:]
        job.result = "unchanged"
    return []


def known_stamps(record: Path) -> dict[str, str]:
    """The stamps of the last good runs; none where the record is missing or damaged."""
    try:
        stamps = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def chosen(jobs: list[Job], prefix: str, parameters: Mapping[str, object]) -> list[Job]:
    """The jobs whose name starts with `prefix`.

    Raises ParameterError where there are none, or where no chosen one has one of the parameters.
    """
    found = [job for job in jobs if job.path.name.startswith(prefix)]
    if not jobs:
        raise ParameterError("There are no notebooks to run.")
    if not found:
        raise ParameterError(f"No notebook starts with {prefix!r}.")
    if "profile" in parameters:
        raise ParameterError("Choose the profile with --profile.")
    known = {name for job in found for name in job.parameters}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ParameterError(f"No chosen notebook has a parameter named {', '.join(unknown)}.")
    return found

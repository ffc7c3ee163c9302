"""The shipped models: in the repository, else fetched by hash on first use, into the cache.

`checkpoints.json` names the files that a model needs, with size and SHA-256; a test holds it
against data/checkpoints, `python -m lensdiff study gallery` writes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from http.client import HTTPException
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

from ..errors import CheckpointError
from . import SPEC, WEIGHTS, atomic, is_working_copy, set_aside, sha256_of_file, shipped

MANIFEST = "checkpoints.json"
FIXED = (SPEC, WEIGHTS)  # what a model is; the others may be made anew
NEEDED = (*FIXED, "card.json", "report.json")  # where there is one
SECONDS = 60  # without an answer, until a fetch is given up
MIRROR = "LENSDIFF_MIRROR"  # another address of data/checkpoints: https://... or file://...


def manifest() -> dict[str, dict[str, dict]]:
    """Model to file to `bytes` and `sha256`."""
    return json.loads((files(__package__) / MANIFEST).read_text(encoding="utf-8"))


def known() -> list[str]:
    """The names of the shipped models."""
    if is_working_copy():
        return [path.name for path in _models(shipped(""))]
    return list(manifest())


def _models(folder: Path) -> list[Path]:
    """The models in a folder, without what a killed save left there."""
    found = (path for path in folder.glob("*") if path.suffix not in (".part", ".old"))
    return sorted(path for path in found if path.is_dir())


def described(folder: Path) -> dict[str, dict[str, dict]]:
    """What the manifest has to say of the models in a folder."""
    found = {}
    for place in _models(folder):
        needed = [place / name for name in NEEDED if (place / name).exists()]
        found[place.name] = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
            for path in needed
        }
    return found


def address() -> str:
    """Where data/checkpoints of this version lies: `LENSDIFF_MIRROR`, else at GitHub."""
    if os.environ.get(MIRROR):
        return os.environ[MIRROR].rstrip("/")
    urls = dict(text.split(", ", 1) for text in metadata("lensdiff").get_all("Project-URL") or [])
    raw = urls["Repository"].replace("https://github.com", "https://raw.githubusercontent.com")
    return f"{raw}/v{metadata('lensdiff')['Version']}/data/checkpoints"


def ensure(name: str) -> Path | None:
    """The folder of a shipped model, fetched if need be; None where there is no such model.

    Raises CheckpointError where a file can't be fetched, or is not what the manifest says.
    """
    if is_working_copy():
        return shipped(name) if shipped(name).is_dir() else None
    about = manifest().get(name)
    if about is None:
        return None
    for file, wanted in about.items():
        place = shipped(name) / file
        whole = place.exists() and (file not in FIXED or place.stat().st_size == wanted["bytes"])
        if not whole:
            fetch(f"{address()}/{name}/{file}", place, wanted["sha256"])
    return shipped(name)


def fetch(source: str, place: Path, sha256: str) -> None:
    """Fetch a file; it gets its name when its SHA-256 is right.

    Raises CheckpointError with the cure where it doesn't come, or is another one.
    """
    cure = f"Download {source} and put it at {place}, or set {MIRROR} to another address."
    with contextlib.suppress(OSError):  # `atomic` says why it can't be written
        place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(source, timeout=SECONDS) as answer:
            content = answer.read()
    except (OSError, ValueError, HTTPException) as error:
        reason = f"it comes with no wheel and could not be fetched ({error})"
        raise CheckpointError(f"{place.parent.name}: {reason}. {cure}") from error
    with atomic(place) as part:
        part.write_bytes(content)
        found = sha256_of_file(part)
        if found != sha256:
            raise CheckpointError(f"{source} has the SHA-256 {found}, not {sha256}. {cure}")


def find(name: Path | str) -> Path:
    """The folder of a model: a path as it is given, else the name of a shipped one.

    Raises CheckpointError for a bare name of neither.
    """
    folder = Path(name)
    if folder.exists():
        return folder
    if left := set_aside(folder):  # of a save that was killed while it renamed
        return left[-1]
    if folder.name != str(name):
        return folder
    place = ensure(folder.name)
    if place is None:
        where = f"no shipped model ({', '.join(known())})"
        raise CheckpointError(f"{name}: there is no such folder, and {where}.")
    return place

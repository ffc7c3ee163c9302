"""What every notebook needs around its subject: profile, parameters, versions, results."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from ..errors import ParameterError, StorageError
from ..storage import atomic, checkpoints, root, set_aside
from .pictures import alike, palette

PROFILES = ("smoke", "standard", "full")


def pick(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, if it is one of `allowed`; else a ParameterError."""
    if value not in allowed:
        raise ParameterError(
            f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}."
        )
    return value


def number(name: str, value: float, low: float, high: float, whole: bool = False) -> float | int:
    """The value, if it is a number from `low` to `high`, and a `whole` one; else a
    ParameterError.
    """
    right = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not right or (whole and value != int(value)):
        kind = "whole number" if whole else "number"
        ends = f"from {low:,} to {high:,}" if whole else f"from {low:g} to {high:g}"
        raise ParameterError(f"{name} is {value!r}; it must be a {kind} {ends}.")
    return int(value) if whole else value


def resolve_profile(profile: str = "") -> str:
    """The notebook's parameter, else LENSDIFF_PROFILE, else 'standard'."""
    return pick("profile", profile or os.environ.get("LENSDIFF_PROFILE") or "standard", PROFILES)


def folder(path: str) -> Path:
    """A folder given as a parameter.

    It is absolute, or relative to where the notebook runs or to the working copy.
    """
    if not isinstance(path, str):
        raise ParameterError(f"{path!r} is no folder; give its path as text.")
    here = Path(path)
    return here if here.exists() or here.is_absolute() else root() / here


def model_folder(name: str) -> Path:
    """The folder of a model given as a parameter.

    `name` is that of a shipped model, which is fetched if need be, else a path as `folder` takes
    it: absolute, or relative to where the notebook runs or to the working copy. Where a folder has
    the name of a shipped model, the shipped one is taken. Raises ParameterError where there is
    neither, CheckpointError where a shipped one can't be fetched.
    """
    known = checkpoints.known()
    if name in known:
        return checkpoints.ensure(name)
    place = folder(name)
    if not name or not (place.exists() or set_aside(place)):
        cure = f"Give the name of a shipped one ({', '.join(known)}), or the path of a folder"
        raise ParameterError(f"{name!r} is no model: {place} is not there. {cure}.")
    return place


def results(profile: str, notebook: str) -> Path:
    """Folder for what a notebook makes, which later ones can use: runs/<profile>/<notebook>.

    Where LENSDIFF_RUNS names a folder, <notebook> in that: give each profile its own. Raises
    StorageError where it can't be made.
    """
    base = Path(os.environ.get("LENSDIFF_RUNS") or root() / "runs" / profile)
    try:
        (base / notebook).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cure = "Set LENSDIFF_RUNS to a folder that can be written"
        raise StorageError(f"{base / notebook}: can't be made ({error}). {cure}.") from error
    return base / notebook


def keep(figure: Figure | Path, name: str) -> Figure | Path:
    """Save a figure, or copy a file, where LENSDIFF_FIGURES names a folder; returns it.

    `make notebooks` names one, for the README. A figure that looks as the file there stays out.
    """
    if not os.environ.get("LENSDIFF_FIGURES"):
        return figure
    place = Path(os.environ["LENSDIFF_FIGURES"]) / name
    if isinstance(figure, Path):
        png = figure.read_bytes()
    else:
        whole = io.BytesIO()
        figure.savefig(whole, dpi=110)
        png = palette(whole.getvalue())
        if place.exists() and alike(place.read_bytes(), png):
            return figure
    with atomic(place) as part:
        part.write_bytes(png)
    return figure


def versions() -> str:
    """One line of versions."""
    parts = [
        f"lensdiff {version('lensdiff')}",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__.split('+')[0]}",
    ]
    return ", ".join([*parts, f"numpy {np.__version__}", f"matplotlib {matplotlib.__version__}"])


def say(text: str, **values: object) -> None:
    """Show Markdown with computed numbers: say("The distance is {d:.2f}.", d=card.distance).

    Braces are filled as `str.format` does; those of an equation are doubled.
    """
    display(Markdown(text.format(**values)))


def drawing_model(model: object, latents: bool | None = None, like: str = "lens150") -> object:
    """The model, if it is one of diffusion, which draws images; `latents`: of latents, or not.

    Raises ParameterError for a classifier or an autoencoder, and for a model of the other kind; the
    shipped model `like` is the cure that it names.
    """
    if not hasattr(model, "denoiser"):
        cure = f"Give a diffusion model, as {like} is one"
        raise ParameterError(f"A {type(model).__name__} draws no images. {cure}.")
    if latents is not None and latents != (model.autoencoder is not None):
        kinds = ("pixels", "latents")
        reason = f"{model.folder.name} denoises {kinds[not latents]}"
        raise ParameterError(f"{reason}. Give one of {kinds[latents]}, as {like} is.")
    return model


def table(rows: Iterable[Sequence[object]], columns: Sequence[str]) -> None:
    """Show rows as a Markdown table under the names of its columns.

    Raises ParameterError for a row of another length.
    """
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        if len(row) != len(columns):
            raise ParameterError(f"A row has {len(row)} cells, the table {len(columns)}: {row!r}.")
        lines.append([str(cell).replace("|", "\\|") for cell in row])
    display(Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in lines)))

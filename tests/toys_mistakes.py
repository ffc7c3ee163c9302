"""Mistakes that people make, each made here: title to a function of an empty folder, which returns
what a person reads then. The titles are those of docs/mistakes.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
from IPython.core.inputtransformer2 import TransformerManager
from toys_setup import MAKES_OWN

import lensdiff as ld
from lensdiff import runtime
from lensdiff.__main__ import main
from lensdiff.errors import LensdiffError
from lensdiff.notebook import helpers, opening, parameters, runner

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"
MISTAKES: dict[str, Callable[[Path], str]] = {}


def mistake(title: str) -> Callable:
    """Enter a function under its title."""

    def entered(function: Callable[[Path], str]) -> Callable[[Path], str]:
        MISTAKES[title] = function
        return function

    return entered


# ---- how it is read ------------------------------------------------------------------------------


def said(*words: object) -> str:
    """What a command that fails says: one sentence on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as read:
        with contextlib.redirect_stdout(io.StringIO()):
            status = main([str(word) for word in words])
    assert status == 1, f"it did not fail: {words}"
    return read.getvalue().strip()


def raised(work: Callable[[], object], *kinds: type[Exception]) -> str:
    """What a call that fails says, in a notebook."""
    try:
        work()
    except (LensdiffError, *kinds) as error:
        return str(error)
    raise AssertionError("it did not fail")


def command(title: str, *words: object) -> None:
    """Enter a command; "HERE" in its words is the empty folder."""
    MISTAKES[title] = lambda here: said(*(str(word).replace("HERE", str(here)) for word in words))


def training(here: Path, *more: object, steps: int = 2) -> list[object]:
    """The words of a short training with a state."""
    data = ["--data", SAMPLE, "--batch", 4, "--width", 16, "--steps", steps]
    return ["train", "tiny", here / "model", "--state", here / "state", *data, *more]


def trained(here: Path, *more: object, steps: int = 2) -> str:
    """The words of a short training that succeeds."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([str(word) for word in training(here, *more, steps=steps)]) == 0


def files(here: Path, **arrays: np.ndarray) -> Path:
    """A folder of .npy files; an underscore of a name is a folder."""
    for name, values in arrays.items():
        place = here / f"{name.replace('_', '/')}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, values)
    return here


def lens(*shape: int) -> np.ndarray:
    """Pixels to fill a file with."""
    return np.random.default_rng(0).random(shape or (16, 16))


def folder_of(title: str, **arrays: np.ndarray) -> None:
    """Enter the reading of a folder with these files."""
    MISTAKES[title] = lambda here: raised(lambda: ld.folder(files(here / "lenses", **arrays)))


def little_room(words: list[object], most_bytes: int) -> str:
    """What a command says whose files can't grow beyond `most_bytes`, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    line = [sys.executable, "-m", "lensdiff", *map(str, words)]
    done = subprocess.run(line, preexec_fn=limit, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    return done.stderr.strip()


# ---- installing ----------------------------------------------------------------------------------


@mistake("Another Python than the project's")
def another_python(here: Path) -> str:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import lensdiff"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True
    )
    return done.stderr.strip().splitlines()[-1]


@mistake("A Python that is too old")
def old_python(here: Path) -> str:
    old = here / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, here)
    own = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
    words = ["make", "run", f"PYTHON={old}"]
    return subprocess.run(words, cwd=here, env=own, capture_output=True, text=True).stderr


@mistake("A command of make in another folder")
def another_folder(here: Path) -> str:
    return subprocess.run(["make", "run"], cwd=here, capture_output=True, text=True).stderr


@mistake("`make site` without Node.js")
def no_npm(here: Path) -> str:
    with (
        mock.patch.dict(os.environ, PATH=str(here)),
        mock.patch.object(sys, "path", list(sys.path)),
    ):
        sys.path.insert(0, str(ROOT / "docs"))
        spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        return raised(lambda: build.runtime(here / "npm"))


@mistake("A device that is not there")
def no_device(here: Path) -> str:
    with mock.patch.dict(os.environ, LENSDIFF_DEVICE="tpu"):
        return raised(runtime.best_device)


@mistake("A precision that is not there")
def no_precision(here: Path) -> str:
    with mock.patch.dict(os.environ, LENSDIFF_PRECISION="fp8"):
        return raised(runtime.best_precision)


# ---- notebooks -----------------------------------------------------------------------------------


@mistake("A notebook in another kernel")
def another_kernel(here: Path) -> str:
    cell = TransformerManager().transform_cell(opening.CELL)
    with mock.patch.object(importlib.util, "find_spec", lambda name: None):
        return raised(lambda: exec(cell, {}), ImportError)


@mistake("Restart, and then a cell in the middle")
def middle(here: Path) -> str:
    return raised(lambda: exec("model = ld.load(run.values['checkpoint'])", {}), NameError)


@mistake("The first cells in another order")
def order(here: Path) -> str:
    return raised(lambda: parameters.start("05", {"seed": 0}))


@mistake("A value of another kind")
def kind(here: Path) -> str:
    values = {"profile": "smoke", "samples": 4, "seed": "seven"}
    from lensdiff.notebook.lessons import lesson

    names = lesson("00").PARAMETERS
    return raised(lambda: parameters.start("00", {**dict.fromkeys(names, ""), **values}))


@mistake("A profile that is not there")
def profile(here: Path) -> str:
    with mock.patch.dict(os.environ, LENSDIFF_PROFILE="quick"):
        return raised(helpers.resolve_profile)


@mistake("A kernel that dies for want of memory")
def dead(here: Path) -> str:
    (here / "notebooks").mkdir()
    page = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "3"}}
    )
    page.cells = [nbformat.v4.new_code_cell("import os\nos.kill(os.getpid(), 9)")]
    (here / "notebooks" / "00_page.ipynb").write_text(nbformat.writes(page), encoding="utf-8")
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    with contextlib.redirect_stdout(io.StringIO()) as read:
        assert runner.run(parser.parse_args(["--profile", "smoke"]), here) == 1
    return " ".join(read.getvalue().split())


command("A misspelt parameter", "notebooks", "-p", "sed", 7)
command("A notebook that is not there", "notebooks", "--only", 99)
command("A filled-in page that is none", "notebooks", "--check", "HERE/page.ipynb")
command("05 with a model that 03 has not made yet", "score", "runs/standard/03/no-model")

# ---- your images ---------------------------------------------------------------------------------

MISTAKES["An empty folder"] = lambda here: raised(lambda: ld.folder(here))
folder_of("Images of two sizes", a=lens(16, 16), b=lens(20, 20))
folder_of("NaN in an image", a=np.full((16, 16), np.nan))
folder_of("An image outside the folders of the classes", cdm_a=lens(), stray=lens())
folder_of("Volumes in place of images", a=lens(2, 3, 16, 16))
command("A folder that is not there", "train", "tiny", "HERE/m", "--data", "HERE/lenses")


@mistake("Files with Python objects in them")
def pickled(here: Path) -> str:
    values = np.array([{"lens": 1}], dtype=object)
    np.save(here / "a.npy", values, allow_pickle=True)
    return raised(lambda: ld.folder(here))


@mistake("A file that was not copied to its end")
def cut(here: Path) -> str:
    place = files(here, a=lens()) / "a.npy"
    place.write_bytes(place.read_bytes()[:-100])
    return raised(lambda: ld.folder(here))


@mistake("Common Test I without one of its parts")
def parts(here: Path) -> str:
    files(here, train_no_a=lens())
    return raised(lambda: ld.common_test(here))


@mistake("Classes of unequal sizes")
def unequal(here: Path) -> str:
    rows = {
        f"{kind}_{k}": lens()
        for kind, n in (("no", 9), ("sphere", 3), ("vort", 9))
        for k in range(n)
    }
    files(here / "lenses", **rows)
    return said("train", "classes64", here / "m", "--data", here / "lenses", "--steps", 1)


@mistake("Images that are not square")
def oblong(here: Path) -> str:
    files(here / "lenses", **{str(k): lens(16, 20) + k for k in range(12)})
    return said("train", "tiny", here / "m", "--data", here / "lenses", "--steps", 1)

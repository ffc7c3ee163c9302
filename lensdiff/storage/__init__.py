"""Everything on disk: the root, atomic writes, fingerprints, and hashed folders.

A file or folder is written under a temporary name and renamed when it is whole, so that a killed
run leaves nothing that looks complete. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import CheckpointError, DataError, StorageError

FORMAT = "lensdiff-1"  # of every checkpoint and state
WEIGHTS = "weights.safetensors"  # the files of a checkpoint
SPEC = "spec.json"
UNSEEN = (".DS_Store", "desktop.ini")  # what file managers leave in a folder that looks empty
ROOM = "Give it room and write permission, or take another folder."


def root() -> Path:
    """The working copy, with notebooks/, data/ and figures/; else the package's folder."""
    return Path(__file__).resolve().parents[2]


def is_working_copy() -> bool:
    """Whether the package runs from the repository, and not from where a wheel was installed."""
    return (root() / "pyproject.toml").exists()


def shipped(name: str) -> Path:
    """Folder of a shipped model: in data/checkpoints, or, from a wheel, in the cache."""
    if is_working_copy():
        return root() / "data" / "checkpoints" / name
    return cache_folder() / f"checkpoints-{version('lensdiff')}" / name


def is_shipped(folder: Path) -> bool:
    """Whether a folder, by whatever path, lies among the shipped models."""
    return folder.resolve().parent == shipped("").resolve()


def studies_folder() -> Path:
    """Where the stored results of the studies lie."""
    return root() / "data" / "studies"


def cache_folder() -> Path:
    """`LENSDIFF_CACHE`, else data/cache of the working copy, else ~/.cache/lensdiff."""
    if os.environ.get("LENSDIFF_CACHE"):
        return Path(os.environ["LENSDIFF_CACHE"])
    if is_working_copy():
        return root() / "data" / "cache"
    return Path.home() / ".cache" / "lensdiff"


# ---- atomic writes -------------------------------------------------------------------------------


def own_name() -> str:
    """A name that no other process has, be it on another machine that shares the disk."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its name when the block ends well.

    Raises StorageError where it can't be written.
    """
    part = path.with_name(f"{path.stem}.{own_name()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: can't be written ({error}). {ROOM}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def lock_of(path: Path) -> FileLock:
    """The lock of a file that several processes write, in the cache that they share.

    It stays there, empty, since nobody can take it away while others wait for it.
    """
    return FileLock(cache_folder() / "locks" / fingerprint_of(str(Path(path).resolve()))[:16])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` while the block reads it and writes it anew.

    Another process that wants it waits; the system frees that of a process that was killed. Raises
    StorageError where there can be none.
    """
    lock = lock_of(path)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        cure = "Set LENSDIFF_CACHE to a folder that can be written."
        raise StorageError(f"{path}: no lock for it ({error}). {cure}") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `folder` when the block ends well.

    An old one is replaced. Raises StorageError where it can't be written.
    """
    part = folder.with_name(f"{folder.name}.{own_name()}.part")
    old = folder.with_name(f"{folder.name}.{own_name()}.old")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder}: can't be written ({error}). {ROOM}") from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
    for left in set_aside(folder):
        shutil.rmtree(left, ignore_errors=True)


def set_aside(folder: Path) -> list[Path]:
    """Earlier versions of `folder`; one is left where a save was killed between its two renames.

    Their names end as `own_name` has it, or as in earlier versions in the process alone; folders
    with other names are not ours.
    """
    ours = re.compile(re.escape(folder.name) + r"\.[0-9]+(-[0-9a-f]{8})?\.old")
    beside = folder.parent.glob(f"{glob.escape(folder.name)}.*.old")
    return sorted(path for path in beside if ours.fullmatch(path.name))


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")  # fetched by its hash


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path, cure: str, error: type[Exception] = DataError) -> dict:
    """Read a JSON file. Raises `error`, with the cure, where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"{path}: can't be read ({reason}). {cure}") from reason


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz whole or not at all."""
    with atomic(path) as part:
        np.savez_compressed(part, **arrays)


# ---- fingerprints --------------------------------------------------------------------------------


def fingerprint_of(description: object) -> str:
    """SHA-256 of a JSON-able description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def sha256_of_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- hashed folders ------------------------------------------------------------------------------


def _spec_sha256(spec: dict) -> str:
    """SHA-256 of a description, without the entry that holds it."""
    return fingerprint_of({name: value for name, value in spec.items() if name != "spec_sha256"})


def check_free(folder: Path, spec_name: str) -> None:
    """Raises StorageError where `folder` holds something else than what may be replaced.

    That is a folder with a description `spec_name`, as `write_folder` leaves it, or an empty one;
    but not the working folder, or one that it lies in.
    """
    cure = "Give the name of a new folder, or of one that may be replaced."
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder}: a file of this name is there. {cure}")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise StorageError(f"{folder}: the working folder can't be replaced. {cure}")
    if folder.is_dir() and any(path.name not in UNSEEN for path in folder.iterdir()):
        try:
            ours = json.loads((folder / spec_name).read_text())["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise StorageError(f"{folder}: this folder holds other things. {cure}")


def write_folder(
    folder: Path,
    tensors: dict[str, Tensor],
    file_name: str,
    spec_name: str,
    spec: dict,
    inside: dict[str, Path] | None = None,
) -> None:
    """Tensors and their description, with a SHA-256 of both, in a folder that appears whole.

    `inside` names folders to be copied into it. Raises StorageError where it can't be written, or
    where `folder` holds something else.
    """
    check_free(folder, spec_name)
    spec = json.loads(json.dumps(spec))  # as it will be read: numbers as keys become text
    with atomic_folder(folder.resolve() if folder.is_symlink() else folder) as part:
        for name, other in (inside or {}).items():
            shutil.copytree(other, part / name)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, part / file_name)
        (part / file_name).chmod(0o644)  # safetensors makes it private
        spec = {**spec, "sha256": sha256_of_file(part / file_name)}
        signed = {**spec, "spec_sha256": _spec_sha256(spec)}
        text = json.dumps(signed, indent=1) + "\n"
        (part / spec_name).write_text(text, encoding="utf-8", newline="\n")


def read_folder(
    folder: Path, file_name: str, spec_name: str, cure: str
) -> tuple[dict[str, Tensor], dict]:
    """Tensors and description of a folder that `write_folder` wrote.

    Raises CheckpointError, with the cure, for anything else.
    """
    if not folder.exists():
        folder = (set_aside(folder) or [folder])[-1]
    if not folder.exists():
        missing = f"{folder}: can't be read as a checkpoint: there is no such folder"
        raise CheckpointError(f"{missing}. Check the path, or first run what makes it.")
    try:
        spec = json.loads((folder / spec_name).read_text())
        found = sha256_of_file(folder / file_name)
        if not isinstance(spec, dict) or spec.get("format") != FORMAT:
            reason = f"{spec_name} is not of the format {FORMAT!r}"
            raise CheckpointError(f"{folder}: {reason}. {cure}")
        if found != spec.get("sha256"):
            expected = f"{str(spec.get('sha256'))[:12]}... of {spec_name}"
            reason = f"{file_name} has SHA-256 {found[:12]}..., not the {expected}"
            raise CheckpointError(f"{folder}: {reason}. {cure}")
        if _spec_sha256(spec) != spec.get("spec_sha256"):
            reason = f"{spec_name} was changed since it was written: its SHA-256 differs"
            raise CheckpointError(f"{folder}: {reason}. {cure}")
        return load_file(folder / file_name), spec
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: can't be read as a checkpoint ({error}). {cure}"
        ) from error


def half_precision(folder: Path, module: nn.Module) -> dict[str, Tensor]:
    """The weights of a module as a checkpoint has them: fp16, whole numbers as they are.

    Raises CheckpointError where they hold NaN, infinity, or numbers too large for fp16.
    """
    state = module.state_dict()
    weights = {name: one.half() if one.is_floating_point() else one for name, one in state.items()}
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        reason = "the weights hold NaN, infinity, or numbers too large for fp16"
        raise CheckpointError(f"{folder}: not saved, since {reason}.")
    return weights

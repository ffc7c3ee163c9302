"""The cache of images: made once, and opened memory-mapped whenever the same is asked for."""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..runtime import is_main, progress
from . import cache_folder, fingerprint_of, own_name, sha256_of_file

PATIENCE_S = 4 * 3600  # for another process that fills a cache
PIXELS = "images.npy"


def cached(
    name: str,
    description: dict,
    shape: tuple[int, ...],
    batches: Callable[[], Iterator[np.ndarray]],
    cache: Path | None,
    **arrays: np.ndarray,
) -> tuple[Path, str, np.ndarray]:
    """Open the cache of `description`, or fill it from `batches()` and `arrays`.

    Returns its folder, its fingerprint and its pixels `shape` = (n, channels, H, W), float32,
    memory-mapped. Raises DataError where it can't be written, is damaged, or holds something else.
    """
    fingerprint = fingerprint_of(description)
    folder = Path(cache or cache_folder()) / f"{name}-{fingerprint[:12]}"
    if not folder.exists() and is_main("LOCAL_RANK"):
        spec = {"fingerprint": fingerprint, "description": description, "shape": shape}
        _make(folder, spec, batches(), what=f"{name}: {shape[0]:,} images", **arrays)
    _wait_for(folder)  # of several processes one fills it
    return folder, fingerprint, _open_cache(folder, fingerprint)


def contents(folder: Path) -> str:
    """SHA-256 of the pixels in a cache, whatever they were made from; an older cache is read."""
    spec = json.loads((folder / "spec.json").read_text())
    return spec.get("sha256") or sha256_of_file(folder / PIXELS)


def _wait_for(folder: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while not folder.exists():
        if time.monotonic() > end:
            waited = f"{PATIENCE_S / 3600:g} hours"
            cure = "See what the process that fills it says, and start again."
            raise DataError(f"The cache {folder} did not appear within {waited}. {cure}")
        time.sleep(0.2)


def _make(
    folder: Path, spec: dict, batches: Iterator[np.ndarray], what: str, **arrays: np.ndarray
) -> None:
    """Fill a folder that takes its name when it is whole."""
    part = folder.with_name(f"{folder.name}.{own_name()}.part")
    try:
        part.mkdir(parents=True)
        _fill(part, spec["shape"], batches, what, **arrays)
        spec |= {"sha256": sha256_of_file(part / PIXELS)}
        (part / "spec.json").write_text(json.dumps(spec, indent=1))
        if not folder.exists():
            part.rename(folder)
        _sweep(folder)
    except OSError as error:
        if not folder.exists():  # else another process was faster, and its cache serves as well
            cure = "Give it room and write permission, or set LENSDIFF_CACHE to another folder."
            raise DataError(f"Can't write the cache {folder} ({error}). {cure}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left of the same cache, too long ago to be at work still."""
    for left in folder.parent.glob(f"{glob.escape(folder.name)}.*.part"):
        with contextlib.suppress(OSError):  # another removes it, too
            touched = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - touched > PATIENCE_S:
                shutil.rmtree(left, ignore_errors=True)


def _fill(
    folder: Path,
    shape: tuple[int, ...],
    batches: Iterator[np.ndarray],
    what: str,
    **arrays: np.ndarray,
) -> None:
    """Write images.npy batch by batch: a full disk is an error then, and no page stays in
    memory.
    """
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    count = 0
    with (folder / PIXELS).open("wb") as file, progress(total=shape[0], what=what) as bar:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            if batch.shape[1:] != shape[1:]:
                expected = f"Expected images of shape {shape[1:]} for {folder.name}"
                raise DataError(f"{expected}, got {batch.shape[1:]}.")
            file.write(np.ascontiguousarray(batch, np.float32).data)
            count += len(batch)
            bar.update(len(batch))
    if count != shape[0]:
        raise DataError(f"Expected {shape[0]} images for {folder.name}, got {count}.")
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def _open_cache(folder: Path, fingerprint: str) -> np.ndarray:
    cure = f"Delete the folder {folder}; it is made again on the next run."
    try:
        spec = json.loads((folder / "spec.json").read_text())
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The cache {folder} can't be read ({error}). {cure}") from error
    if spec.get("fingerprint") != fingerprint or list(pixels.shape) != spec.get("shape"):
        differs = "was made from something else (its fingerprint or shape differs)"
        raise DataError(f"The cache {folder} {differs}. {cure}")
    return pixels

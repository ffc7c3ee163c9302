"""Readers of folders: DeepLense's `.npy` files, Common Test I, ordinary pictures; and downloads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..lensing.population import KINDS
from ..lensing.telescope import min_max
from ..runtime import quiet
from ..storage import fingerprint_of, own_name, sha256_of_file
from ..storage.cache import cached, contents
from .images import ImageSet
from .npy import read_image

CLASS_NAMES = {"no": 0, "no_sub": 0, "cdm": 1, "sphere": 1, "axion": 2, "vort": 2}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
READ = 16  # files whose bytes tell a folder from another with the same names, sizes and times


def _below(root: Path) -> Iterator[Path]:
    """All files below `root`, in linked folders too, but for what macOS leaves beside them.

    A linked folder that lies below `root` itself is not read once more; hidden ones are not read.
    """
    top = root.resolve()

    def read(name: str, place: Path) -> bool:
        again = place.is_symlink() and place.resolve().is_relative_to(top)
        return name != "__MACOSX" and not name.startswith(".") and not again

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: can't be read ({error.strerror}). Allow it.")

    for place, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(place).resolve()
        below = [name for name in folders if read(name, here / name)]
        # a link to a folder above would go round for ever
        folders[:] = [name for name in below if not here.is_relative_to((here / name).resolve())]
        yield from (Path(place) / name for name in names if not name.startswith("._"))


def _listing(root: Path, suffixes: set[str]) -> list[Path]:
    """The files below `root` in an order that is always the same, and mixed.

    That of a hash of their names, so that the first n of them are of all classes: a card's
    reference and floor, or a part to look at, are a fair sample of the folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. Check the path.")
    files = [path for path in _below(root) if path.suffix.lower() in suffixes and path.is_file()]
    if not files:
        kinds = " ".join(sorted(suffixes))
        raise DataError(f"{root}: no {kinds} files in it or below it. Check the path.")
    return sorted(files, key=lambda path: fingerprint_of(path.relative_to(root).as_posix()))


def _stamp(files: list[Path], root: Path) -> list[list]:
    """What tells these files from others: names, sizes, times, and the bytes of some of them."""
    some = files[:: -(-len(files) // READ)]
    try:
        seen = [(path.relative_to(root).as_posix(), path.stat()) for path in files]
        known = [[name, one.st_size, one.st_mtime_ns] for name, one in seen]
        return [*known, [sha256_of_file(path) for path in some]]
    except OSError as error:
        cure = "Allow it, or take the file out."
        raise DataError(f"{error.filename}: can't be read ({error.strerror}). {cure}") from error


def _cached(
    name: str,
    root: Path,
    files: list[Path],
    how: dict,
    shape: tuple[int, ...],
    images: Callable[[], Iterator[np.ndarray]],
    cache: Path | str | None,
) -> tuple[Path, str, np.ndarray]:
    """Cache, fingerprint and pixels of files, as `cached` has them; `how` they are read.

    The fingerprint is of names and pixels, not of times: a copy of the folder has the same.
    """
    description = {"files": _stamp(files, root), **how}
    place, _, pixels = cached(name, description, shape, images, cache)
    names = [path.relative_to(root).as_posix() for path in files]
    return place, fingerprint_of([names, contents(place)]), pixels


def _class_of(path: Path, root: Path) -> int:
    """The label that the folders between `root` and a file name; -1 where they name none."""
    folders = path.relative_to(root).parts[:-1]
    known = [CLASS_NAMES[name] for name in folders if name in CLASS_NAMES]
    return known[-1] if known else -1


def folder(root: Path | str, symmetries: int = 1, cache: Path | str | None = None) -> ImageSet:
    """A folder of DeepLense `.npy` files, flat or one folder a class.

    Classes are `no`, `sphere` and `vort`, or `no_sub`, `cdm` and `axion`; they come mixed, in an
    order of the files' names that is always the same. Each image is scaled to span [0, 1].
    `symmetries` is 8 where the population is isotropic (see `ImageSet`). Raises DataError for an
    empty folder, mixed sizes, NaN, wrong shapes or dtypes, truncated files, pickles with anything
    but arrays and numbers, an unwritable cache.
    """
    root = Path(root)
    files = _listing(root, {".npy"})
    labels = np.array([_class_of(path, root) for path in files])
    if (labels >= 0).any() and (labels < 0).any():
        stray = files[int(np.argmin(labels))]
        cure = f"Move it into {sorted(CLASS_NAMES)}."
        raise DataError(f"{stray}: not in a class folder, while others are. {cure}")
    shape = read_image(files[0]).shape

    def images() -> Iterator[np.ndarray]:
        return (_scaled(path, shape) for path in files)

    name = f"folder-{root.resolve().name}"
    size = (len(files), 1, *shape)
    how = {"scale": "min_max"}
    place, fingerprint, pixels = _cached(name, root, files, how, size, images, cache)
    has_classes = bool((labels >= 0).all())
    return ImageSet(
        name=name,
        pixels=pixels,
        fingerprint=fingerprint,
        classes=KINDS if has_classes else (),
        labels=labels if has_classes else None,
        symmetries=symmetries,
        folder=place,
    )


def common_test(
    root: Path | str, symmetries: int = 1, cache: Path | str | None = None
) -> tuple[ImageSet, ImageSet]:
    """(train, test) of Common Test I's folders, each with `no`, `sphere` and `vort`.

    They are called `train` and `val` (or `test`), the classes also `no_sub`, `cdm` and `axion`.
    Raises DataError as `folder`, and where a split or the folder of a class is missing, before
    any file is read.
    """
    root = Path(root)
    found = []
    for names in (("train",), ("val", "test")):
        there = [root / name for name in names if (root / name).is_dir()]
        if not there:
            needs = "It needs train/ and val/, each with no, sphere, vort."
            raise DataError(f"{root}: there is no folder {' or '.join(names)}. {needs}")
        for label, kind in enumerate(KINDS):
            names = [name for name, value in CLASS_NAMES.items() if value == label]
            if not any((there[0] / name).is_dir() for name in names):
                cure = f"Its folder is called {' or '.join(names)}."
                raise DataError(f"{there[0]}: the class {kind} is missing. {cure}")
        found.append(there[0])
    train, test = (folder(split, symmetries, cache) for split in found)
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"{root}: images of {train.pixels.shape[1:]} to train on and of "
            f"{test.pixels.shape[1:]} to test on. Keep one size."
        )
    return train, test


def _read_picture(path: Path, size: int, colour: bool) -> np.ndarray:
    """The central square of a picture at `size`, (1, 3 or 1, size, size), in [0, 1]."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture = ImageOps.exif_transpose(picture)  # as the camera was held
            if picture.mode.startswith("I;16"):  # 16-bit grey, which convert would clip at 255
                picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
            elif picture.mode in "IF":
                raise ValueError("32 bits a channel, of unknown range; save it with 8 or 16")
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB" if colour else "L")
    except Exception as error:  # Pillow raises OSError, SyntaxError, DecompressionBombError, ...
        cure = "Replace it or take it out."
        raise DataError(f"{path}: can't be read as a picture ({error}). {cure}") from error
    side = min(picture.size)
    left = (picture.width - side) // 2
    top = (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    small = square.resize((size, size), Image.Resampling.LANCZOS)
    values = np.asarray(small, np.float32) / 255
    return values.transpose(2, 0, 1)[None] if colour else values[None, None]


def pictures(
    root: Path | str,
    size: int,
    colour: bool = True,
    symmetries: int = 2,
    cache: Path | str | None = None,
) -> ImageSet:
    """A folder of ordinary pictures, in [0, 1], with three channels or one.

    Each is turned as its EXIF says, put on white where it is transparent, cropped to its central
    square and resized to `size`. Raises DataError for an empty folder or a file that can't be read.
    """
    root = Path(root)
    files = _listing(root, PICTURES)
    how = {"size": size, "colour": colour, "turned": "EXIF", "behind": "white"}
    shape = (len(files), 3 if colour else 1, size, size)
    name = f"pictures-{root.resolve().name}-{size}"

    def images() -> Iterator[np.ndarray]:
        return (_read_picture(path, size, colour) for path in files)

    place, fingerprint, pixels = _cached(name, root, files, how, shape, images, cache)
    return ImageSet(name, pixels, fingerprint, symmetries=symmetries, folder=place)


def _scaled(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A file's image, (1, 1, H, W), spanning [0, 1]. Raises DataError, which names the file."""
    image = read_image(path, shape)[None]
    try:
        return min_max(image)[:, None]
    except DataError as error:
        reason = str(error).replace("Image 0", "its image")
        raise DataError(f"{path}: {reason} Leave it out, or scale it down.") from error


def download(drive_id: str, destination: Path | str, sha256: str | None = None) -> Path:
    """Fetch a Google Drive file by its id with gdown; it gets its name when its SHA-256 is right.

    Raises DataError offline, where it can't be written, or for another SHA-256.
    """
    import gdown

    destination = Path(destination)
    part = destination.with_name(f"{destination.name}.{own_name()}.part")
    address = f"https://drive.google.com/uc?id={drive_id}"
    cure = f"Download {address} in a browser and put it at {destination}."
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        fetched = gdown.download(id=drive_id, output=str(part), quiet=quiet())
        if not fetched or not part.exists():
            raise OSError("nothing came")
        found = sha256_of_file(part)
        if sha256 and found != sha256:
            raise DataError(f"{destination}: SHA-256 {found} is not the expected {sha256}. {cure}")
        part.replace(destination)
    except DataError:
        raise
    except Exception as error:  # gdown and requests raise many kinds: the file did not come
        reason = f"could not be downloaded ({type(error).__name__}: {error})"
        raise DataError(f"{destination}: {reason}. Is there a network? {cure}") from error
    finally:
        with contextlib.suppress(OSError):  # there is none below a file
            part.unlink()
    return destination

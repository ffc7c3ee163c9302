"""Readers of files:

DeepLense's `.npy` folders, ordinary pictures, downloads. Nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..lensing.simulate import KINDS
from ..runtime import quiet
from ..storage import cached
from .images import ImageSet, min_max

CLASS_NAMES = {"no": 0, "no_sub": 0, "cdm": 1, "sphere": 1, "axion": 2, "vort": 2}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is no array and no number."""


class _Dtype:
    """A dtype as a pickle describes it: a code such as "f8", then its byte order.

    Whatever else the pickle says of it is ignored.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or np.dtype(code).kind not in "biufcO":
            raise _Refused(f"it asks for the dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array as a pickle describes it, made here from its bytes or its list.

    numpy's own unpickling believes the flags that a pickle gives a dtype, and so can take bytes of
    the file for pointers.
    """

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.dtype.hasobject:
            values = np.empty(len(data), object)
            for i, item in enumerate(data):
                values[i] = item.value if isinstance(item, _Array) else item
        else:
            values = np.frombuffer(data, dtype.dtype).copy()
        self.value = values.reshape(shape, order="F" if fortran else "C")


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.dtype)[0]


class _NumpyOnly(pickle.Unpickler):
    """An unpickler that knows numpy arrays, numpy numbers and plain Python numbers, and refuses
    to call anything else.
    """

    def find_class(self, module: str, name: str) -> object:
        known = {
            "_reconstruct": lambda *_: _Array(),
            "ndarray": None,
            "dtype": _Dtype,
            "scalar": _scalar,
        }
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in known:
            return known[name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return lambda text, encoding: text.encode("latin1")
        raise _Refused(f"it asks for {module}.{name}")


def read_npy(path: Path | str) -> tuple[np.ndarray, float | None]:
    """One DeepLense file: its image (H, W) or (1, H, W), and the axion mass in eV where it stores
    one.

    Model I's axion files are pickled object arrays `[image, mass]`; they are read without running
    anything in them. Raises DataError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            dtype = read_header(file)[2]
            if not dtype.hasobject:
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False), None
            values = getattr(_NumpyOnly(file).load(), "value", None)
    except _Refused as error:
        raise DataError(
            f"{path}: its pickle holds more than arrays and numbers ({error}). Don't trust it; "
            "take it out."
        ) from error
    # a damaged header or pickle fails in many ways: SyntaxError, TokenError, MemoryError,
    # OverflowError, ...
    except Exception as error:
        raise DataError(
            f"{path}: can't be read as .npy ({error}). It may be truncated; copy or download it "
            "again."
        ) from error
    try:
        image, mass = values.ravel()
        return np.asarray(image), float(mass)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: an object array must be [image, mass], as Model I's axion files are. Take "
            "the file out."
        ) from error


def _checked(path: Path, image: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 2 or min(image.shape) < 8:
        raise DataError(
            f"{path}: shape {image.shape} is no image; (H, W) or (1, H, W) is expected. Take "
            "the file out."
        )
    if image.dtype.kind not in "fiu":
        raise DataError(f"{path}: dtype {image.dtype} is no number; save it as float32.")
    if shape is not None and image.shape != shape:
        raise DataError(
            f"{path}: size {image.shape} differs from the first file's {shape}. Keep one size "
            "to a folder."
        )
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    if not np.isfinite(image).all():
        raise DataError(
            f"{path}: it holds NaN or infinity, or numbers beyond float32. Mend the file or "
            "take it out."
        )
    if image.min() == image.max():
        raise DataError(f"{path}: all its pixels are equal. Take the file out.")
    return image


def _listing(root: Path, suffixes: set[str]) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. Check the path.")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        raise DataError(
            f"{root}: no {' '.join(sorted(suffixes))} files in it or below it. Check the path."
        )
    return files


def _stamp(files: list[Path], root: Path) -> list[tuple[str, int, int]]:
    return [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def deeplense(root: Path | str, symmetries: int = 1, cache: Path | str | None = None) -> ImageSet:
    """A folder of DeepLense `.npy` files, flat or one folder a class (`no`, `sphere`, `vort`;

    `no_sub`, `cdm`, `axion`).

    Each image is scaled to span [0, 1]. `symmetries` is 8 where the population is isotropic (see
    `ImageSet`). Raises DataError for an empty folder, mixed sizes, NaN, wrong shapes or dtypes,
    truncated files, pickles with anything but arrays and numbers, an unwritable cache.
    """
    root = Path(root)
    files = _listing(root, {".npy"})
    named = [
        next(
            (
                CLASS_NAMES[part]
                for part in reversed(p.relative_to(root).parts[:-1])
                if part in CLASS_NAMES
            ),
            -1,
        )
        for p in files
    ]
    labels = np.array(named)
    if (labels >= 0).any() and (labels < 0).any():
        raise DataError(
            f"{files[int(np.argmin(labels))]}: not in a class folder, while others are. Move it "
            f"into {sorted(CLASS_NAMES)}."
        )
    shape = _checked(files[0], read_npy(files[0])[0], None).shape
    images = (min_max(_checked(p, read_npy(p)[0], shape)[None])[:, None] for p in files)
    description = {"files": _stamp(files, root), "scale": "min_max"}
    name = f"folder-{root.resolve().name}"
    folder, fingerprint, pixels = cached(
        name, description, (len(files), 1, *shape), lambda: images, cache
    )
    has_classes = bool((labels >= 0).all())
    return ImageSet(
        name,
        pixels,
        fingerprint,
        KINDS if has_classes else (),
        labels if has_classes else None,
        None,
        symmetries,
        folder,
    )


def common_test(
    root: Path | str, symmetries: int = 1, cache: Path | str | None = None
) -> tuple[ImageSet, ImageSet]:
    """(train, test) of Common Test I's folders:

    `train` and `val` (or `test`), each with `no`, `sphere` and `vort` (or `no_sub`, ...).

    Raises DataError as `deeplense`, and where a split or the folder of a class is missing, before
    any file is read.
    """
    root = Path(root)
    found = []
    for names in (("train",), ("val", "test")):
        split = next((root / name for name in names if (root / name).is_dir()), None)
        if split is None:
            raise DataError(
                f"{root}: there is no folder {' or '.join(names)}. It needs train/ and val/, "
                "each with no, sphere, vort."
            )
        for label, kind in enumerate(KINDS):
            names = [name for name, value in CLASS_NAMES.items() if value == label]
            if not any((split / name).is_dir() for name in names):
                raise DataError(
                    f"{split}: the class {kind} is missing. Its folder is called "
                    f"{' or '.join(names)}."
                )
        found.append(split)
    train, test = (deeplense(split, symmetries, cache) for split in found)
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"{root}: images of {train.pixels.shape[1:]} to train on and of "
            f"{test.pixels.shape[1:]} to test on. Keep one size."
        )
    return train, test


def pictures(
    root: Path | str,
    size: int,
    colour: bool = True,
    symmetries: int = 2,
    cache: Path | str | None = None,
) -> ImageSet:
    """A folder of ordinary pictures, cropped to the central square, resized to `size`, in [0,
    1], three channels or one.
    """
    from PIL import Image

    root = Path(root)
    files = _listing(root, PICTURES)

    def one(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as picture:
                if picture.mode.startswith("I;16"):  # 16-bit grey, which convert would clip at 255
                    picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
                elif picture.mode in "IF":
                    raise ValueError("32 bits a channel, of unknown range; save it with 8 or 16")
                picture = picture.convert("RGB" if colour else "L")
        # Pillow raises OSError, SyntaxError, DecompressionBombError and more
        except Exception as error:
            raise DataError(
                f"{path}: can't be read as a picture ({error}). Replace it or take it out."
            ) from error
        side = min(picture.size)
        left = (picture.width - side) // 2
        top = (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        square = picture.crop(box)  # resize(box=...) would let the frame around it in
        values = np.asarray(square.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255
        return values.transpose(2, 0, 1)[None] if colour else values[None, None]

    description = {"files": _stamp(files, root), "size": size, "colour": colour}
    shape = (len(files), 3 if colour else 1, size, size)
    name = f"pictures-{root.resolve().name}-{size}"
    folder, fingerprint, pixels = cached(name, description, shape, lambda: map(one, files), cache)
    return ImageSet(name, pixels, fingerprint, symmetries=symmetries, folder=folder)


def download(drive_id: str, destination: Path | str, sha256: str | None = None) -> Path:
    """Fetch a Google Drive file by its id with gdown, check its SHA-256, and only then give it
    its name. Raises DataError offline.
    """
    import gdown

    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(destination.name + ".part")
    cure = f"Download https://drive.google.com/uc?id={drive_id} in a browser and put it at {destination}."
    try:
        fetched = gdown.download(id=drive_id, output=str(part), quiet=quiet())
        if not fetched or not part.exists():
            raise OSError("nothing came")
        if (
            sha256
            and (found := hashlib.file_digest(part.open("rb"), "sha256").hexdigest()) != sha256
        ):
            raise DataError(f"{destination}: SHA-256 {found} is not the expected {sha256}. {cure}")
        part.replace(destination)
    except DataError:
        raise
    # gdown and requests raise many kinds; all mean that the file did not come
    except Exception as error:
        raise DataError(
            f"{destination}: could not be downloaded ({type(error).__name__}: {error}). Is "
            f"there a network? {cure}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return destination

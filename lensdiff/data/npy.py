"""DeepLense's `.npy` files, read without executing anything in them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from ..errors import DataError


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
    """An unpickler that knows arrays and numbers, and refuses to call anything else."""

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
    """One DeepLense file: its image, (H, W) or (1, H, W), and its axion mass in eV or None.

    Model I's axion files are pickled object arrays `[image, mass]`; they are read without running
    anything in them. Raises DataError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                dtype = np.lib.format.read_array_header_1_0(file)[2]
            else:
                dtype = np.lib.format.read_array_header_2_0(file)[2]
            if not dtype.hasobject:
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False), None
            values = getattr(_NumpyOnly(file).load(), "value", None)
    except _Refused as error:
        reason = f"its pickle holds more than arrays and numbers ({error})"
        raise DataError(f"{path}: {reason}. Don't trust it; take it out.") from error
    except Exception as error:  # SyntaxError, TokenError, MemoryError: damage fails in many ways
        cure = "It may be truncated; copy or download it again."
        raise DataError(f"{path}: can't be read as .npy ({error}). {cure}") from error
    try:
        image, mass = values.ravel()
        return np.asarray(image), float(mass)
    except (AttributeError, TypeError, ValueError) as error:
        needs = "an object array must be [image, mass], as Model I's axion files are"
        raise DataError(f"{path}: {needs}. Take the file out.") from error


def read_image(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The image of one file, (H, W), float32.

    Raises DataError where it is no image, not finite, constant, or of another size than `shape`.
    """
    image, _ = read_npy(path)
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 2 or min(image.shape) < 8:
        needs = f"shape {image.shape} is no image; (H, W) or (1, H, W) is expected"
        raise DataError(f"{path}: {needs}. Take the file out.")
    if image.dtype.kind not in "fiu":
        raise DataError(f"{path}: dtype {image.dtype} is no number; save it as float32.")
    if shape is not None and image.shape != shape:
        differs = f"size {image.shape} differs from the first file's {shape}"
        raise DataError(f"{path}: {differs}. Keep one size to a folder.")
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    if not np.isfinite(image).all():
        reason = "it holds NaN or infinity, or numbers beyond float32"
        raise DataError(f"{path}: {reason}. Mend the file or take it out.")
    if image.min() == image.max():
        raise DataError(f"{path}: all its pixels are equal. Take the file out.")
    return image

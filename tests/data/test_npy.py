"""DeepLense's .npy files: what is read, and that nothing in a hostile one is executed."""

from __future__ import annotations

import builtins
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from toys_files import image, pair, raw_npy, write

from lensdiff.data.folders import folder
from lensdiff.data.npy import read_npy
from lensdiff.errors import DataError

# ---- Model I's axion files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "mass", [3.5e-23, np.float64(3.5e-23), np.array(3.5e-23)], ids=["float", "f8", "0-d"]
)
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f4", "i8"])
def test_axion_files(tmp_path: Path, dtype: str, mass: object) -> None:
    original = (100 * image()).astype(dtype)
    write(tmp_path / "axion" / "0.npy", pair(original, mass))
    read, found = read_npy(tmp_path / "axion" / "0.npy")
    assert found == 3.5e-23 and isinstance(found, float)
    assert read.dtype == original.dtype and (read == original).all()
    images = folder(tmp_path / "axion", cache=tmp_path / "cache")
    low = original.min().astype(float)
    expected = (original - low) / (original.max() - low)
    assert images.pixels[0, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"], ids=["numpy-2", "numpy-1"])
def test_axion_files_of_every_protocol_and_numpy(
    tmp_path: Path, protocol: int, module: bytes
) -> None:
    original = np.asfortranarray(image(1, 10, 12))
    pickled = pickle.dumps(pair(original, np.float64(1e-24)), protocol)
    if protocol < 4:  # a global is a line of text
        pickled = pickled.replace(b"numpy._core", module)
    (tmp_path / "0.npy").write_bytes(raw_npy(pickled))
    read, mass = read_npy(tmp_path / "0.npy")
    assert mass == 1e-24 and read.shape == (1, 10, 12) and (read == original).all()


def test_plain_files_have_no_mass(tmp_path: Path) -> None:
    original = write(tmp_path / "0.npy", image())
    read, mass = read_npy(tmp_path / "0.npy")
    assert mass is None and (read == original).all()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npy: can't be read"):
        read_npy(tmp_path / "gone.npy")


@pytest.mark.parametrize(
    "values",
    [
        pair(image(), "heavy"),
        pair(image(), None),
        pair(image(), {}),
        pair(image(), image()),
        pair(1e-23, image()),
        np.array([None, None, None]),
        np.array([None]),
    ],
    ids=["text", "none", "dict", "two-images", "swapped", "three", "one"],
)
def test_object_arrays_of_other_things_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    write(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=r"x\.npy: an object array must be \[image, mass\]"):
        read_npy(tmp_path / "x.npy")


# ---- hostile files -------------------------------------------------------------------------------

RUN = os.system  # what the hostile pickles want to call, with a command that leaves a marker


class Reduced:
    """Pickles as a call of whatever it is given, then, with a third argument, that call's state."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


def hostile_pickles(command: str, marker: Path) -> dict[str, object]:
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Reduced(RUN, (command,)),
        "eval": Reduced(builtins.eval, (f"__import__('os').system({command!r})",)),
        "exec": Reduced(builtins.exec, (code,)),
        "getattr": Reduced(builtins.getattr, (1, "real")),
        "nested-image": pair(Reduced(RUN, (command,)), 1e-23),
        "nested-mass": pair(image(), Reduced(builtins.eval, (code,))),
        "numpy-function": pair(image(), Reduced(np.save, (str(marker), 1))),
        "numpy-fromfile": Reduced(np.fromfile, ("/etc/passwd",)),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", list(hostile_pickles("", Path())))
def test_hostile_pickles_are_refused_and_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "marker.npy"
    pickled = pickle.dumps(hostile_pickles(f"touch {marker}", marker)[name], protocol)
    write(tmp_path / "Samples" / "0.npy", image())
    (tmp_path / "Samples" / "evil.npy").write_bytes(raw_npy(pickled))
    message = r"evil\.npy: its pickle holds more than arrays and numbers .*take it out"
    with pytest.raises(DataError, match=message):
        read_npy(tmp_path / "Samples" / "evil.npy")
    with pytest.raises(DataError, match=r"evil\.npy"):
        folder(tmp_path / "Samples", cache=tmp_path / "cache")
    assert not marker.exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_hostile_pickles_would_have_run(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    marker = tmp_path / "marker.npy"
    for name in ("system", "eval", "exec", "nested-image", "nested-mass", "numpy-function"):
        pickle.loads(pickle.dumps(hostile_pickles(f"touch {marker}", marker)[name], 2))
        assert marker.exists(), name
        marker.unlink()


RECONSTRUCT = np.zeros(1).__reduce__()[0]
# objects, with a flag for bytes
LYING_DTYPE = Reduced(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))


@pytest.mark.parametrize(
    "hostile",
    [
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (2,), LYING_DTYPE, False, b"\x41" * 16)),
        pair(image(), Reduced(np.float64(0).__reduce__()[0], (LYING_DTYPE, b"\x41" * 8))),
        Reduced(np.ndarray, ((2,), "O")),
        Reduced(
            RECONSTRUCT,
            (np.ndarray, (0,), b"b"),
            (1, (2,), Reduced(np.dtype, ("f4,O",)), False, b"\x41" * 24),
        ),
        Reduced(
            RECONSTRUCT,
            (np.ndarray, (0,), b"b"),
            (1, (2, 10**9), np.dtype("f8"), False, b"\x41" * 16),
        ),
        Reduced(RECONSTRUCT, (np.ndarray, (10**15,), b"b")),
    ],
    ids=["array", "scalar", "ndarray", "fields", "short", "huge"],
)
def test_bytes_of_a_file_are_never_taken_for_pointers(tmp_path: Path, hostile: object) -> None:
    """The first two end numpy's own unpickling in a segmentation fault, whatever `find_class`."""
    (tmp_path / "evil.npy").write_bytes(raw_npy(pickle.dumps(hostile, 2)))
    with pytest.raises(DataError, match=r"evil\.npy: "):
        read_npy(tmp_path / "evil.npy")

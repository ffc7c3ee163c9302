"""Readers of files: what they read, and that each broken or hostile file gets an error that names it and the cure."""
from __future__ import annotations

import builtins
import hashlib
import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import gdown
import numpy as np
import pytest
from PIL import Image

from lensdiff.data import folders
from lensdiff.data.folders import download, folder, pictures
from lensdiff.data.images import ImageSet
from lensdiff.data.npy import read_npy
from lensdiff.errors import DataError

RNG = np.random.default_rng(0)


def scaled(image: np.ndarray) -> np.ndarray:
    image = image.reshape(image.shape[-2:])
    return (image - image.min()) / (image.max() - image.min())


def write(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=array.dtype.hasobject)
    return array


def image(*shape: int) -> np.ndarray:
    return RNG.random(shape or (10, 12))


def pair(first: object, second: object) -> np.ndarray:
    """An object array of two, as Model I's axion files hold."""
    values = np.empty(2, object)
    values[0], values[1] = first, second
    return values


def raw_npy(pickled: bytes, header: str = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }") -> bytes:
    """A .npy file written by hand."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + pickled


class Reduced:
    """Pickles as a call of whatever it is given, then, with a third argument, that call's state."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


# ---- DeepLense folders ------------------------------------------------------------------------------------------------------


def test_flat_folder_of_mixed_shapes(tmp_path: Path) -> None:
    folder = tmp_path / "Samples"
    originals = {
        "a.npy": image(10, 12),
        "b.npy": image(1, 10, 12).astype(np.float32),
        "c.npy": RNG.integers(0, 99, (10, 12)).astype(np.uint16),
        "sub/d.npy": np.asfortranarray(image(10, 12)),
        "e.npy": image(10, 12).astype(">f4"),
    }
    for name, array in originals.items():
        write(folder / name, array)
    (folder / "README.txt").write_text("not an image")
    images = folder(folder, cache=tmp_path / "cache")
    assert isinstance(images.pixels, np.memmap)
    assert images.pixels.shape == (5, 1, 10, 12) and images.pixels.dtype == np.float32
    for pixels, name in zip(images.pixels, sorted(originals, key=lambda name: folder / name), strict=True):
        assert pixels[0] == pytest.approx(scaled(originals[name].astype(float)), abs=1e-6), name
    assert images.labels is None and images.classes == () and images.symmetries == 1 and images.name == "folder-Samples"
    assert folder(folder, symmetries=8, cache=tmp_path / "cache").symmetries == 8


@pytest.mark.parametrize("names", [("no", "sphere", "vort"), ("no_sub", "cdm", "axion")])
def test_folder_by_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    count = dict(zip(names, (2, 3, 1), strict=True))
    for name, n in count.items():
        for i in range(n):
            write(tmp_path / "data" / "train" / name / f"{i}.npy", image())
    images = folder(tmp_path / "data", cache=tmp_path / "cache")
    assert images.classes == ("no_sub", "cdm", "axion")
    assert images.labels.tolist() == [names.index(name) for name in sorted(names) for _ in range(count[name])]


def test_the_innermost_class_folder_counts(tmp_path: Path) -> None:
    write(tmp_path / "data" / "no" / "axion" / "0.npy", image())
    assert folder(tmp_path / "data", cache=tmp_path / "cache").labels.tolist() == [2]


def test_a_changed_folder_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = tmp_path / "Samples", tmp_path / "cache"
    for name in "abc":
        write(folder / f"{name}.npy", image())
    first = folder(folder, cache=cache)
    read = []
    monkeypatch.setattr(files, "read_npy", lambda path: (read.append(path), read_npy(path))[1])
    assert folder(folder, cache=cache).folder == first.folder
    assert len(read) <= 1  # the first alone, for the size
    changed = write(folder / "c.npy", image())
    os.utime(folder / "c.npy", ns=(1, 1))
    second = folder(folder, cache=cache)
    assert second.folder != first.folder
    assert second.pixels[2, 0] == pytest.approx(scaled(changed), abs=1e-6)


# ---- Model I's axion files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mass", [3.5e-23, np.float64(3.5e-23), np.array(3.5e-23)], ids=["float", "f8", "0-d"])
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f4", "i8"])
def test_axion_files(tmp_path: Path, dtype: str, mass: object) -> None:
    original = (100 * image()).astype(dtype)
    write(tmp_path / "axion" / "0.npy", pair(original, mass))
    read, found = read_npy(tmp_path / "axion" / "0.npy")
    assert found == 3.5e-23 and isinstance(found, float)
    assert read.dtype == original.dtype and (read == original).all()
    images = folder(tmp_path / "axion", cache=tmp_path / "cache")
    assert images.pixels[0, 0] == pytest.approx(scaled(original.astype(float)), abs=1e-6)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"], ids=["numpy-2", "numpy-1"])
def test_axion_files_of_every_protocol_and_numpy(tmp_path: Path, protocol: int, module: bytes) -> None:
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


# ---- hostile files ----------------------------------------------------------------------------------------------------------

RUN = os.system  # what the hostile pickles want to call, with a command that leaves a marker


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
    with pytest.raises(DataError, match=r"evil\.npy: its pickle holds more than arrays and numbers .*take it out"):
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
LYING_DTYPE = Reduced(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))  # objects, and a flag that says bytes


@pytest.mark.parametrize(
    "hostile",
    [
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (2,), LYING_DTYPE, False, b"\x41" * 16)),
        pair(image(), Reduced(np.float64(0).__reduce__()[0], (LYING_DTYPE, b"\x41" * 8))),
        Reduced(np.ndarray, ((2,), "O")),
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (2,), Reduced(np.dtype, ("f4,O",)), False, b"\x41" * 24)),
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (2, 10**9), np.dtype("f8"), False, b"\x41" * 16)),
        Reduced(RECONSTRUCT, (np.ndarray, (10**15,), b"b")),
    ],
    ids=["array", "scalar", "ndarray", "fields", "short", "huge"],
)
def test_bytes_of_a_file_are_never_taken_for_pointers(tmp_path: Path, hostile: object) -> None:
    """numpy's own unpickling ends the first two in a segmentation fault, even with a `find_class` that allows numpy's names alone."""
    (tmp_path / "evil.npy").write_bytes(raw_npy(pickle.dumps(hostile, 2)))
    with pytest.raises(DataError, match=r"evil\.npy: "):
        read_npy(tmp_path / "evil.npy")


# ---- broken files -----------------------------------------------------------------------------------------------------------


def whole(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=array.dtype.hasobject)
    return file.getvalue()


def with_value(value: float, dtype: str = "f8") -> np.ndarray:
    array = image().astype(dtype)
    array[3, 4] = value
    return array


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': "
BROKEN = {
    "nan": (whole(with_value(np.nan)), "it holds NaN or infinity"),
    "infinity": (whole(with_value(-np.inf, "f4")), "it holds NaN or infinity"),
    "beyond-float32": (whole(with_value(1e300)), "beyond float32"),
    "nan-in-axion": (whole(pair(with_value(np.nan), 1e-23)), "it holds NaN or infinity"),
    "one-dimension": (whole(image(120)), r"shape \(120,\) is no image"),
    "three-channels": (whole(image(3, 10, 12)), r"shape \(3, 10, 12\) is no image"),
    "four-dimensions": (whole(image(1, 1, 10, 12)), r"shape \(1, 1, 10, 12\) is no image"),
    "tiny": (whole(image(7, 12)), r"shape \(7, 12\) is no image"),
    "no-pixels": (whole(np.zeros((0, 12))), r"shape \(0, 12\) is no image"),
    "text": (whole(np.full((10, 12), "bright")), "dtype <U6 is no number"),
    "complex": (whole(image() + 1j), "dtype complex128 is no number"),
    "logical": (whole(image() > 0.5), "dtype bool is no number"),
    "size": (whole(image(12, 10)), r"size \(12, 10\) differs from the first file's \(10, 12\)"),
    "constant": (whole(np.ones((10, 12))), "all its pixels are equal"),
    "constant-in-float32": (whole(1e9 + image()), "all its pixels are equal"),
    "truncated": (whole(image())[:-8], "can't be read as .npy.*truncated"),
    "truncated-header": (whole(image())[:50], "can't be read as .npy.*truncated"),
    "truncated-pickle": (whole(pair(image(), 1e-23))[:-40], "can't be read as .npy.*truncated"),
    "no-bytes": (b"", "can't be read as .npy"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), "can't be read as .npy"),
    "zip": (b"PK\x03\x04" + bytes(200), "can't be read as .npy"),
    "version": (b"\x93NUMPY\x09\x00" + whole(image())[8:], "can't be read as .npy"),
    "open-bracket": (raw_npy(b"", PLAIN + "(10, 12"), "can't be read as .npy"),
    "huge-shape": (raw_npy(b"", PLAIN + "(1000000000, 1000000000), }"), "can't be read as .npy"),
    "huge-pickle": (raw_npy(b"\x80\x04\x8e" + b"\xff" * 8), "can't be read as .npy"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    for file in "abd":
        write(tmp_path / "Samples" / f"{file}.npy", image())
    path = tmp_path / "Samples" / "c.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: .*{message}") as error:
        folder(tmp_path / "Samples", cache=tmp_path / "cache")
    assert str(error.value).count(". ") >= 1 or ";" in str(error.value)  # what is wrong, then the cure
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-made is left
    path.unlink()
    assert len(folder(tmp_path / "Samples", cache=tmp_path / "cache")) == 3


def test_the_first_file_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path / "Samples" / "a.npy", with_value(np.nan))
    with pytest.raises(DataError, match=r"a\.npy: it holds NaN"):
        folder(tmp_path / "Samples", cache=tmp_path / "cache")


@pytest.mark.parametrize("reader", [folder, lambda root, cache: pictures(root, 16, cache=cache)], ids=["folder", "pictures"])
def test_missing_and_empty_folders(tmp_path: Path, reader: object) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}/nowhere: there is no such folder. Check the path."):
        reader(tmp_path / "nowhere", cache=tmp_path / "cache")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "empty" / "below" / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=rf"{tmp_path}/empty: no \..* files in it or below it. Check the path."):
        reader(tmp_path / "empty", cache=tmp_path / "cache")


def test_a_file_outside_the_class_folders_is_named(tmp_path: Path) -> None:
    for name in ("axion/0.npy", "cdm/0.npy", "stray.npy"):
        write(tmp_path / "data" / name, image())
    with pytest.raises(DataError, match=r"data/stray\.npy: not in a class folder.*Move it into .*'axion'"):
        folder(tmp_path / "data", cache=tmp_path / "cache")


def common_test(root: Path, splits: tuple[str, ...] = ("train", "val"), kinds: tuple[str, ...] = ("no", "sphere", "vort")) -> None:
    """Common Test I's folders, two files each."""
    for split in splits:
        for kind in kinds:
            for i in range(2):
                write(root / split / kind / f"{i}.npy", image())


@pytest.mark.parametrize("names", [("train", "val"), ("train", "test")])
def test_common_test_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    common_test(tmp_path / "set", names)
    train, test = folders.common_test(tmp_path / "set", symmetries=8, cache=tmp_path / "cache")
    assert (train.name, test.name) == ("folder-train", f"folder-{names[1]}") and train.fingerprint != test.fingerprint
    for part in (train, test):
        assert part.labels.tolist() == [0, 0, 1, 1, 2, 2] and part.classes == ("no_sub", "cdm", "axion") and part.symmetries == 8


def test_what_common_test_folders_lack_is_named_before_any_file_is_read(tmp_path: Path) -> None:
    common_test(tmp_path / "one", ("train",))
    with pytest.raises(DataError, match=r"one: there is no folder val or test"):
        folders.common_test(tmp_path / "one")
    common_test(tmp_path / "two", kinds=("no", "sphere"))
    (tmp_path / "two" / "train" / "no" / "0.npy").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train: the class axion is missing\. Its folder is called axion or vort"):
        folders.common_test(tmp_path / "two")
    common_test(tmp_path / "three")
    for path in (tmp_path / "three" / "val").rglob("*.npy"):
        write(path, image(20, 20))
    with pytest.raises(DataError, match=r"\(1, 10, 12\) to train on and of \(1, 20, 20\)"):
        folders.common_test(tmp_path / "three", cache=tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npy: can't be read"):
        read_npy(tmp_path / "gone.npy")


# ---- pictures ---------------------------------------------------------------------------------------------------------------


def save_picture(path: Path, values: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path.read_bytes()


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def test_pictures_are_cropped_to_the_centre(tmp_path: Path) -> None:
    """Of the size asked for, they come out pixel by pixel; the frame around the central square leaves no trace."""
    wide, tall, square = noise(16, 24, 3), noise(30, 16, 3), noise(16, 16, 3)
    for name, values in zip("abc", (wide, tall, square), strict=True):
        save_picture(tmp_path / "pictures" / f"{name}.png", values)
    images = pictures(tmp_path / "pictures", 16, cache=tmp_path / "cache")
    assert images.pixels.shape == (3, 3, 16, 16) and isinstance(images.pixels, np.memmap) and images.symmetries == 2
    for pixels, expected in zip(images.pixels, (wide[:, 4:20], tall[7:23], square), strict=True):
        assert pixels.transpose(1, 2, 0) == pytest.approx(expected / 255, abs=1e-6)
    assert len({images.folder, pictures(tmp_path / "pictures", 8, cache=tmp_path / "cache").folder}) == 2


def test_pictures_are_resized(tmp_path: Path) -> None:
    values = np.zeros((64, 96), np.uint8)
    values[:32, 16:48] = 200  # the upper left quarter of the central square
    values[:, :16] = values[:, 80:] = 255  # the frame
    save_picture(tmp_path / "pictures" / "a.png", values)
    pixels = pictures(tmp_path / "pictures", 8, colour=False, cache=tmp_path / "cache").pixels
    assert pixels.shape == (1, 1, 8, 8)
    assert pixels[0, 0, :3, :3] == pytest.approx(200 / 255, abs=0.05)
    assert pixels[0, 0, 5:, :] == pytest.approx(0, abs=0.05) and pixels[0, 0, :, 5:] == pytest.approx(0, abs=0.05)


def read_one(folder: Path, colour: bool) -> ImageSet:
    return pictures(folder, 16, colour, cache=folder.parent / "cache")


def test_grey_and_colour(tmp_path: Path) -> None:
    grey, colour = noise(16, 16), noise(16, 16, 3)
    save_picture(tmp_path / "grey" / "a.PNG", grey)
    save_picture(tmp_path / "colour" / "a.png", colour)
    assert read_one(tmp_path / "grey", False).pixels[0] == pytest.approx(grey[None] / 255, abs=1e-6)
    assert read_one(tmp_path / "grey", True).pixels[0] == pytest.approx(np.stack([grey / 255] * 3), abs=1e-6)
    luma = colour @ [0.299, 0.587, 0.114] / 255
    assert read_one(tmp_path / "colour", False).pixels[0, 0] == pytest.approx(luma, abs=1.01 / 255)


@pytest.mark.parametrize("colour", [False, True])
def test_16_bit_grey_keeps_its_range(tmp_path: Path, colour: bool) -> None:
    """Pillow's own conversion clips at 255 of 65,535, which makes such pictures white."""
    values = RNG.integers(0, 65536, (16, 16)).astype(np.uint16)
    save_picture(tmp_path / "deep" / "a.png", values)
    save_picture(tmp_path / "deep" / "b.tif", values)
    for pixels in read_one(tmp_path / "deep", colour).pixels:
        assert pixels[0] == pytest.approx(values / 65535, abs=0.51 / 255)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def broken_pictures(path: Path) -> dict[str, bytes]:
    good = save_picture(path, noise(200, 200, 3))
    second = good.index(b"IDAT", good.index(b"IDAT") + 4)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    floats = path.with_suffix(".tif")
    Image.fromarray(image(16, 16).astype(np.float32)).save(floats)
    return {
        "truncated": good[: len(good) // 2],
        "overwritten": good[:2000] + bytes(500) + good[2500:],
        "chunk-name": good[:second] + b"\x00\x01\x02\x03" + good[second + 4 :],
        "empty": b"",
        "text": b"this is no picture",
        "bomb": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0" * 100)) + chunk(b"IEND", b""),
        "floats": floats.read_bytes(),
    }


@pytest.mark.parametrize("name", ["truncated", "overwritten", "chunk-name", "empty", "text", "bomb", "floats"])
def test_broken_pictures_are_named(tmp_path: Path, name: str) -> None:
    save_picture(tmp_path / "pictures" / "a.png", noise(20, 20, 3))
    path = tmp_path / "pictures" / "b.png"
    path.write_bytes(broken_pictures(tmp_path / "whole.png")[name])
    with pytest.raises(DataError, match=f"^{path}: can't be read as a picture .*Replace it or take it out"):
        read_one(tmp_path / "pictures", True)
    assert list((tmp_path / "cache").iterdir()) == []


# ---- downloads --------------------------------------------------------------------------------------------------------------

CONTENT = b"lenses" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Google Drive that holds CONTENT under every id; returns the ids that were asked for."""
    asked = []

    def fetch(*, id: str, output: str, **_: object) -> str:
        asked.append(id)
        assert not Path(output).name.endswith(".zip")  # the real name comes after the check
        Path(output).write_bytes(CONTENT)
        return output

    monkeypatch.setattr(gdown, "download", fetch)
    return asked


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_download(tmp_path: Path, drive: list[str], sha256: str | None) -> None:
    path = download("abc123", tmp_path / "new" / "lenses.zip", sha256)
    assert path == tmp_path / "new" / "lenses.zip" and path.read_bytes() == CONTENT
    assert drive == ["abc123"] and list(path.parent.iterdir()) == [path]


def test_download_of_something_else_leaves_nothing(tmp_path: Path, drive: list[str]) -> None:
    with pytest.raises(DataError, match=rf"lenses\.zip: SHA-256 {SHA256} is not the expected {'0' * 64}.*uc\?id=abc123"):
        download("abc123", tmp_path / "lenses.zip", "0" * 64)
    assert drive == ["abc123"] and list(tmp_path.iterdir()) == []


def test_download_keeps_an_older_file_when_the_new_one_is_wrong(tmp_path: Path, drive: list[str]) -> None:
    (tmp_path / "lenses.zip").write_bytes(b"older")
    with pytest.raises(DataError):
        download("abc123", tmp_path / "lenses.zip", "0" * 64)
    assert (tmp_path / "lenses.zip").read_bytes() == b"older"


@pytest.mark.parametrize("failure", [RuntimeError("quota exceeded"), None], ids=["raises", "returns-nothing"])
def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None) -> None:
    def fetch(*, id: str, output: str, **_: object) -> None:
        Path(output).write_bytes(CONTENT[:10])
        if failure:
            raise failure
        Path(output).unlink()

    monkeypatch.setattr(gdown, "download", fetch)
    what = "RuntimeError: quota exceeded" if failure else "nothing came"
    cure = rf"Is there a network\? Download https://drive\.google\.com/uc\?id=abc123 in a browser and put it at {tmp_path}/lenses\.zip"
    with pytest.raises(DataError, match=rf"lenses\.zip: could not be downloaded .*{what}.*{cure}"):
        download("abc123", tmp_path / "lenses.zip", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_download_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gdown itself, with a proxy that isn't there in place of the network."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match=r"lenses\.zip: could not be downloaded .*Is there a network\?.*uc\?id=abc123"):
        download("abc123", tmp_path / "folder" / "lenses.zip")
    assert list((tmp_path / "folder").iterdir()) == []

"""Folders of .npy files: what is read, and that each broken file is named with its cure."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toys_files import RNG, image, pair, raw_npy, write

from lensdiff.data import folders
from lensdiff.data.folders import common_test, folder, pictures
from lensdiff.data.images import ImageSet
from lensdiff.data.npy import read_image
from lensdiff.errors import DataError


def scaled(image: np.ndarray) -> np.ndarray:
    image = image.reshape(image.shape[-2:])
    return (image - image.min()) / (image.max() - image.min())


# ---- DeepLense folders ---------------------------------------------------------------------------


def test_flat_folder_of_mixed_shapes(tmp_path: Path) -> None:
    root = tmp_path / "Samples"
    originals = {
        "a.npy": image(10, 12),
        "b.npy": image(1, 10, 12).astype(np.float32),
        "c.npy": RNG.integers(0, 99, (10, 12)).astype(np.uint16),
        "sub/d.npy": np.asfortranarray(image(10, 12)),
        "e.npy": image(10, 12).astype(">f4"),
    }
    for name, array in originals.items():
        write(root / name, array)
    (root / "README.txt").write_text("not an image")
    images = folder(root, cache=tmp_path / "cache")
    assert isinstance(images.pixels, np.memmap)
    assert images.pixels.shape == (5, 1, 10, 12) and images.pixels.dtype == np.float32
    expected = np.array(
        [scaled(array.reshape(10, 12).astype(float)) for array in originals.values()]
    )
    order = [int(np.abs(expected - pixels[0]).max((1, 2)).argmin()) for pixels in images.pixels]
    assert sorted(order) == list(range(5))
    assert images.pixels[:, 0] == pytest.approx(expected[order], abs=1e-6)
    assert images.labels is None and images.classes == ()
    assert images.symmetries == 1 and images.name == "folder-Samples"
    assert folder(root, symmetries=8, cache=tmp_path / "cache").symmetries == 8


@pytest.mark.parametrize("names", [("no", "sphere", "vort"), ("no_sub", "cdm", "axion")])
def test_folder_by_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    count = dict(zip(names, (2, 3, 1), strict=True))
    for name, n in count.items():
        for i in range(n):
            write(tmp_path / "data" / "train" / name / f"{i}.npy", image())
    images = folder(tmp_path / "data", cache=tmp_path / "cache")
    assert images.classes == ("no_sub", "cdm", "axion")
    assert np.bincount(images.labels).tolist() == [2, 3, 1]


def test_classes_come_mixed_in_an_order_that_stays(tmp_path: Path) -> None:
    """Sorted by path, the first half of such a folder would hold two classes only."""
    for name in ("no", "sphere", "vort"):
        for i in range(60):
            write(tmp_path / "one" / name / f"{i}.npy", image())
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    images = folder(tmp_path / "one", cache=tmp_path / "cache")
    first, second = (np.bincount(part, minlength=3) for part in np.split(images.labels, 2))
    assert min(*first, *second) > 15
    elsewhere = folder(tmp_path / "other", cache=tmp_path / "cache")
    np.testing.assert_array_equal(images.pixels, elsewhere.pixels)
    write(tmp_path / "one" / "no" / "new.npy", image())
    more = folder(tmp_path / "one", cache=tmp_path / "cache")
    old = {pixels.tobytes() for pixels in images.pixels}
    kept = [pixels for pixels in more.pixels if pixels.tobytes() in old]
    np.testing.assert_array_equal(kept, images.pixels)


def test_the_innermost_class_folder_counts(tmp_path: Path) -> None:
    write(tmp_path / "data" / "no" / "axion" / "0.npy", image())
    assert folder(tmp_path / "data", cache=tmp_path / "cache").labels.tolist() == [2]


def test_a_changed_folder_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "Samples"
    cache = tmp_path / "cache"
    for name in "abc":
        write(root / f"{name}.npy", image())
    first = folder(root, cache=cache)
    read = []

    def counted(path: Path, *shape: tuple[int, int]) -> np.ndarray:
        read.append(path)
        return read_image(path, *shape)

    monkeypatch.setattr(folders, "read_image", counted)
    assert folder(root, cache=cache).folder == first.folder
    assert len(read) <= 1  # the first alone, for the size
    changed = write(root / "c.npy", image())
    os.utime(root / "c.npy", ns=(1, 1))
    second = folder(root, cache=cache)
    assert second.folder != first.folder and len(read) >= 3
    apart = np.abs(second.pixels[:, 0] - scaled(changed)).max((1, 2))
    assert apart.min() < 1e-6 and np.sort(apart)[1] > 0.1


def test_a_file_outside_the_class_folders_is_named(tmp_path: Path) -> None:
    for name in ("axion/0.npy", "cdm/0.npy", "stray.npy"):
        write(tmp_path / "data" / name, image())
    message = r"data[/\\]stray\.npy: not in a class folder.*Move it into .*'axion'"
    with pytest.raises(DataError, match=message):
        folder(tmp_path / "data", cache=tmp_path / "cache")


def small_pictures(root: Path, cache: Path) -> ImageSet:
    return pictures(root, 16, cache=cache)


@pytest.mark.parametrize("reader", [folder, small_pictures])
def test_missing_and_empty_folders(tmp_path: Path, reader: Callable) -> None:
    message = f"{re.escape(str(tmp_path / 'nowhere'))}: there is no such folder. Check the path."
    with pytest.raises(DataError, match=message):
        reader(tmp_path / "nowhere", cache=tmp_path / "cache")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "empty" / "below" / "notes.txt").write_text("nothing here")
    message = (
        rf"{re.escape(str(tmp_path / 'empty'))}: no \..* files in it or below it. Check the path."
    )
    with pytest.raises(DataError, match=message):
        reader(tmp_path / "empty", cache=tmp_path / "cache")


# ---- broken files --------------------------------------------------------------------------------


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
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{message}") as error:
        folder(tmp_path / "Samples", cache=tmp_path / "cache")
    # what is wrong, then the cure
    assert str(error.value).count(". ") >= 1 or ";" in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-made is left
    path.unlink()
    assert len(folder(tmp_path / "Samples", cache=tmp_path / "cache")) == 3


def test_the_first_file_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path / "Samples" / "a.npy", with_value(np.nan))
    with pytest.raises(DataError, match=r"a\.npy: it holds NaN"):
        folder(tmp_path / "Samples", cache=tmp_path / "cache")


# ---- Common Test I -------------------------------------------------------------------------------


def write_common_test(
    root: Path,
    splits: tuple[str, ...] = ("train", "val"),
    kinds: tuple[str, ...] = ("no", "sphere", "vort"),
) -> None:
    """Common Test I's folders, two files each."""
    for split in splits:
        for kind in kinds:
            for i in range(2):
                write(root / split / kind / f"{i}.npy", image())


@pytest.mark.parametrize("names", [("train", "val"), ("train", "test")])
def test_common_test_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    write_common_test(tmp_path / "set", names)
    train, test = common_test(tmp_path / "set", symmetries=8, cache=tmp_path / "cache")
    assert train.name == "folder-train" and test.name == f"folder-{names[1]}"
    assert train.fingerprint != test.fingerprint
    for part in (train, test):
        assert sorted(part.labels.tolist()) == [0, 0, 1, 1, 2, 2]
        assert part.classes == ("no_sub", "cdm", "axion") and part.symmetries == 8


def test_what_common_test_folders_lack_is_named_before_any_file_is_read(tmp_path: Path) -> None:
    write_common_test(tmp_path / "one", ("train",))
    with pytest.raises(DataError, match=r"one: there is no folder val or test"):
        common_test(tmp_path / "one")
    write_common_test(tmp_path / "two", kinds=("no", "sphere"))
    (tmp_path / "two" / "train" / "no" / "0.npy").write_bytes(b"broken")
    message = r"train: the class axion is missing\. Its folder is called axion or vort"
    with pytest.raises(DataError, match=message):
        common_test(tmp_path / "two")
    write_common_test(tmp_path / "three")
    for path in (tmp_path / "three" / "val").rglob("*.npy"):
        write(path, image(20, 20))
    with pytest.raises(DataError, match=r"\(1, 10, 12\) to train on and of \(1, 20, 20\)"):
        common_test(tmp_path / "three", cache=tmp_path / "cache")


# ---- how folders are found -----------------------------------------------------------------------


def test_linked_folders_are_read_and_a_circle_ends(tmp_path: Path) -> None:
    for name in ("no", "sphere"):
        write(tmp_path / "set" / name / "a.npy", image(8, 8))
    write(tmp_path / "elsewhere" / "a.npy", image(8, 8))
    (tmp_path / "set" / "vort").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "no" / "again").symlink_to(tmp_path / "set")
    images = folder(tmp_path / "set", cache=tmp_path / "cache")
    assert np.bincount(images.labels).tolist() == [1, 1, 1]


def test_a_folder_that_a_link_shows_once_more_is_read_once(tmp_path: Path) -> None:
    """Links to files stay: a data set may be made of them, with its files in a hidden folder."""
    write(tmp_path / "set" / "no" / "a.npy", image(8, 8))
    write(tmp_path / "set" / ".objects" / "b.npy", image(8, 8))
    (tmp_path / "set" / "shown").symlink_to(tmp_path / "set" / "no")
    (tmp_path / "set" / "no" / "b.npy").symlink_to(tmp_path / "set" / ".objects" / "b.npy")
    assert len(folder(tmp_path / "set", cache=tmp_path / "cache")) == 2


def test_what_macos_leaves_beside_files_is_no_image(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", image(8, 8))
    (tmp_path / "._a.npy").write_bytes(b"Mac OS X")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "b.npy").write_bytes(b"Mac OS X")
    assert len(folder(tmp_path, cache=tmp_path / "cache")) == 1


def test_folders_of_the_same_names_and_times_are_told_apart(tmp_path: Path) -> None:
    found = []
    for version in ("v1", "v2"):
        place = tmp_path / version / "lenses" / "a.npy"
        write(place, image(8, 8))
        os.utime(place, (1e9, 1e9))
        found.append(folder(place.parent, cache=tmp_path / "cache"))
    assert found[0].fingerprint != found[1].fingerprint
    assert not np.array_equal(found[0].pixels, found[1].pixels)


# ---- what can't be read --------------------------------------------------------------------------


def test_a_folder_that_can_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a class would be missing, and nobody would know."""
    for name in ("no", "cdm"):
        write(tmp_path / "set" / name / "a.npy", image(8, 8))
    scan = os.scandir

    def denied(path: str) -> object:
        if Path(path).name == "cdm":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"cdm: can't be read \(Permission denied\)"):
        folder(tmp_path / "set", cache=tmp_path / "cache")


def test_a_file_that_can_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set" / "a.npy", image(8, 8))

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders, "sha256_of_file", denied)
    with pytest.raises(DataError, match=r"a\.npy: can't be read \(Permission denied\)"):
        folder(tmp_path / "set", cache=tmp_path / "cache")

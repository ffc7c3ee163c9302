"""The cache of images: what is in it is whole and its own, and what fails leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lensdiff import storage
from lensdiff.data.images import simulated
from lensdiff.errors import CheckpointError, DataError
from lensdiff.lensing.survey import diverse
from lensdiff.storage import (
    atomic,
    cache_folder,
    fingerprint_of,
    read_json,
    write_arrays,
    write_json,
    write_text,
)
from lensdiff.storage.cache import cached

SURVEY = diverse(16)


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSDIFF_CACHE", raising=False)
    assert cache_folder() == Path(storage.__file__).parents[2] / "data" / "cache"
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_foreign_cache_is_refused(tmp_path: Path) -> None:
    folder = simulated(SURVEY, 3, 3, cache=tmp_path).folder
    spec = folder / "spec.json"
    whole = json.loads(spec.read_text())
    for change in ({"fingerprint": fingerprint_of("other")}, {"shape": [4, 1, 16, 16]}):
        spec.write_text(json.dumps(whole | change))
        with pytest.raises(
            DataError, match=f"{folder} was made from something else.*Delete the folder {folder}"
        ):
            simulated(SURVEY, 3, 3, cache=tmp_path)
    spec.write_text(json.dumps(whole))
    np.save(folder / "images.npy", np.zeros((2, 1, 16, 16), np.float32))
    with pytest.raises(DataError, match="was made from something else"):
        simulated(SURVEY, 3, 3, cache=tmp_path)


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("images.npy", 500),
        ("images.npy", 40),
        ("images.npy", 0),
        ("images.npy", None),
        ("spec.json", 30),
        ("spec.json", None),
    ],
)
def test_damaged_cache_is_refused(tmp_path: Path, name: str, keep: int | None) -> None:
    folder = simulated(SURVEY, 3, 3, cache=tmp_path).folder
    path = folder / name
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=f"{folder} can't be read.*Delete the folder {folder}; it is made again"
    ):
        simulated(SURVEY, 3, 3, cache=tmp_path)


def test_unwritable_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        DataError, match=f"Can't write the cache {tmp_path}/file/inside.*set LENSDIFF_CACHE"
    ):
        simulated(SURVEY, 3, 3, cache=tmp_path / "file" / "inside")


@pytest.mark.parametrize(
    "error",
    [DataError("bad file"), KeyboardInterrupt(), OSError("disk full")],
    ids=["data", "interrupt", "disk"],
)
def test_failure_midway_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def batches() -> Iterator[np.ndarray]:
        yield np.zeros((2, 1, 8, 8), np.float32)
        # the unfinished cache has a name that nobody reads
        assert len(list(tmp_path.glob("x-*.part"))) == 1
        raise error

    expected = DataError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        cached("x", {"a": 1}, (4, 1, 8, 8), batches, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    place = tmp_path / f"x-{fingerprint_of({'a': 1})[:12]}"
    old = place.with_name(f"{place.name}.7-abc.part")
    working = place.with_name(f"{place.name}.8-abc.part")
    other = tmp_path / "y-0.9-abc.part"
    for folder in (old, working, other):
        folder.mkdir()
        (folder / "images.npy").write_bytes(b"half")
    for path in (old / "images.npy", old, working, other / "images.npy", other):
        os.utime(path, (0, 0))
    cached("x", {"a": 1}, (2, 1, 8, 8), lambda: iter([np.zeros((2, 1, 8, 8))]), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([place, working, other])


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    place = tmp_path / f"x [v2]-{fingerprint_of({'a': 1})[:12]}"
    old = place.with_name(f"{place.name}.7-abc.part")
    old.mkdir()
    os.utime(old, (0, 0))
    cached("x [v2]", {"a": 1}, (2, 1, 8, 8), lambda: iter([np.zeros((2, 1, 8, 8))]), tmp_path)
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("n", [3, 5])
def test_wrong_number_of_images_leaves_nothing(tmp_path: Path, n: int) -> None:
    with pytest.raises(DataError, match=f"Expected 4 images .* got {n}"):
        cached(
            "x",
            {"a": 1},
            (4, 1, 8, 8),
            lambda: iter([np.zeros((n, 1, 8, 8), np.float32)]),
            tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_wrong_shape_of_images_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected images of shape \(1, 8, 8\) .* got \(1, 1, 8\)"):
        cached(
            "x",
            {"a": 1},
            (4, 1, 8, 8),
            lambda: iter([np.zeros((4, 1, 1, 8), np.float32)]),
            tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_cached_pixels_are_those_of_the_batches(tmp_path: Path) -> None:
    """Whatever their type, order and number."""
    pixels = np.random.default_rng(0).random((5, 2, 8, 9))
    batches = [pixels[:1], np.asfortranarray(pixels[1:4]), pixels[4:].astype(">f4")]
    _, _, read = cached("x", {"a": 1}, pixels.shape, lambda: iter(batches), tmp_path)
    assert (read == pixels.astype(np.float32)).all()


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["error", "stop"])
def test_a_write_that_breaks_off_leaves_the_older_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "older")
    with pytest.raises(type(error)), atomic(path) as part:
        assert part.parent == path.parent and part.suffix == ".txt"
        part.write_text("half")
        raise error
    assert path.read_text() == "older" and list(path.parent.iterdir()) == [path]
    write_text(path, "newer")
    assert path.read_text() == "newer"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    content = {"ü": [1, 2.5, None], "nested": {"b": True}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", "No cure.") == content
    assert (tmp_path / "a.json").read_text().endswith("}\n")
    arrays = {"x": np.arange(5), "y": np.ones((2, 3), np.float32)}
    write_arrays(tmp_path / "a.npz", **arrays)
    with np.load(tmp_path / "a.npz") as saved:
        assert sorted(saved) == ["x", "y"]
        for name, values in arrays.items():
            assert saved[name].dtype == values.dtype and (saved[name] == values).all()


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"\xff\xfe"])
def test_json_that_can_not_be_read_is_named_with_its_cure(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    for error in (DataError, CheckpointError):
        with pytest.raises(error, match=rf"{path}: can't be read .*Make it again"):
            read_json(path, "Make it again.", error)


def test_a_fingerprint_is_that_of_the_content_whatever_its_order() -> None:
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    assert fingerprint_of({}) == hashlib.sha256(b"{}").hexdigest()

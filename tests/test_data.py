"""The cache, the simulated sets, the split, the way into the network's units, and the readers' appetite for memory."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lensdiff import runtime
from lensdiff.data import images
from lensdiff.data.images import ImageSet, Stretch, lenses, simulated
from lensdiff.errors import DataError, LensdiffError
from lensdiff.lensing import population, simulate
from lensdiff.lensing.survey import diverse, model_i
from lensdiff.lensing.telescope import min_max
from lensdiff.runtime import progress
from lensdiff.storage import cache_folder, cached, fingerprint_of

SURVEY = diverse(16)


def never(*_: object, **__: object) -> None:
    raise AssertionError("it must not be simulated again")


# ---- simulated sets ---------------------------------------------------------------------------------------------------------


def test_simulated_set_is_scaled_balanced_and_truthful(tmp_path: Path) -> None:
    images = simulated(SURVEY, 60, seed=3, cache=tmp_path)
    assert len(images) == 60 and images.pixels.shape == (60, 1, 16, 16) and images.pixels.dtype == np.float32
    assert isinstance(images.pixels, np.memmap) and not images.pixels.flags.writeable
    assert (images.pixels.min(axis=(1, 2, 3)) == 0).all() and (images.pixels.max(axis=(1, 2, 3)) == 1).all()
    assert images.classes == population.KINDS and np.bincount(images.labels).tolist() == [20, 20, 20]
    assert images.symmetries == 8
    truth = population.sample_params(60, "mixed", 3, SURVEY)
    assert images.truth.tobytes() == truth.tobytes() == np.load(images.folder / "truth.npy").tobytes()
    observed = next(simulate.simulate(truth, SURVEY, 3))
    low, high = observed.min(axis=(1, 2), keepdims=True), observed.max(axis=(1, 2), keepdims=True)
    assert images.pixels[:, 0] == pytest.approx((observed - low) / (high - low), abs=1e-6)


def test_symmetries_and_kind_follow_the_survey(tmp_path: Path) -> None:
    images = simulated(model_i(16), 4, seed=3, kind="axion", cache=tmp_path)
    assert images.symmetries == 1 and images.labels.tolist() == [2] * 4


def test_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = simulated(SURVEY, 12, seed=3, cache=tmp_path)
    monkeypatch.setattr(sim, "simulate", never)
    second = simulated(SURVEY, 12, seed=3, cache=tmp_path)
    assert (second.folder, second.fingerprint) == (first.folder, first.fingerprint)
    assert (second.pixels == first.pixels).all() and (second.labels == first.labels).all()
    assert second.truth.tobytes() == first.truth.tobytes()
    with pytest.raises(AssertionError, match="simulated again"):
        simulated(SURVEY, 12, seed=4, cache=tmp_path)


def test_whatever_makes_the_pixels_makes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [
        simulated(SURVEY, 3, 3, cache=tmp_path),
        simulated(SURVEY, 4, 3, cache=tmp_path),
        simulated(SURVEY, 3, 4, cache=tmp_path),
        simulated(SURVEY, 3, 3, "cdm", cache=tmp_path),
        simulated(diverse(17), 3, 3, cache=tmp_path),
        simulated(diverse(16, subhalo_slope=-1.9), 3, 3, cache=tmp_path),
    ]
    monkeypatch.setattr(sim, "VERSION", simulate.VERSION + 1)
    sets.append(simulated(SURVEY, 3, 3, cache=tmp_path))
    assert len({images.folder for images in sets}) == len({images.fingerprint for images in sets}) == len(sets)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(images.folder.name for images in sets)  # and nothing is left over


def test_lenses_are_the_default_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = lenses("train", 16, 6, cache=tmp_path), lenses("test", 16, 6, cache=tmp_path)
    assert train.truth.tobytes() == population.sample_params(6, "mixed", images.TRAIN_SEED, SURVEY).tobytes()
    assert not set(train.truth["einstein_radius_arcsec"]) & set(test.truth["einstein_radius_arcsec"])
    asked = []
    monkeypatch.setattr(data, "simulated", lambda *a, **_: asked.append(a))
    lenses(), lenses("test", pixels=150)
    assert asked == [(diverse(64), 10_000, 1), (diverse(150), 5_000, 2)]
    with pytest.raises(ValueError, match="split must be 'train' or 'test', not 'val'"):
        lenses("val")


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSDIFF_CACHE", raising=False)
    assert cache_folder() == Path(images.__file__).parents[1] / "data" / "cache"
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert simulated(SURVEY, 3, 3).folder.parent == tmp_path


def test_subset(lenses16: ImageSet) -> None:
    part = lenses16.subset(np.array([5, 2]), "two")
    assert (part.pixels == lenses16.pixels[[5, 2]]).all() and part.labels.tolist() == [2, 2]
    assert part.truth.tobytes() == lenses16.truth[[5, 2]].tobytes()
    assert part.folder is None and part.name == f"{lenses16.name}, two"
    assert len({part.fingerprint, lenses16.subset(np.array([2, 5]), "two").fingerprint, lenses16.fingerprint}) == 3


# ---- the cache --------------------------------------------------------------------------------------------------------------


def test_foreign_cache_is_refused(tmp_path: Path) -> None:
    folder = simulated(SURVEY, 3, 3, cache=tmp_path).folder
    spec = folder / "spec.json"
    whole = json.loads(spec.read_text())
    for change in ({"fingerprint": fingerprint_of("other")}, {"shape": [4, 1, 16, 16]}):
        spec.write_text(json.dumps(whole | change))
        with pytest.raises(DataError, match=f"{folder} was made from something else.*Delete the folder {folder}"):
            simulated(SURVEY, 3, 3, cache=tmp_path)
    spec.write_text(json.dumps(whole))
    np.save(folder / "images.npy", np.zeros((2, 1, 16, 16), np.float32))
    with pytest.raises(DataError, match="was made from something else"):
        simulated(SURVEY, 3, 3, cache=tmp_path)


@pytest.mark.parametrize(
    ("name", "keep"),
    [("images.npy", 500), ("images.npy", 40), ("images.npy", 0), ("images.npy", None), ("spec.json", 30), ("spec.json", None)],
)
def test_damaged_cache_is_refused(tmp_path: Path, name: str, keep: int | None) -> None:
    folder = simulated(SURVEY, 3, 3, cache=tmp_path).folder
    path = folder / name
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{folder} can't be read.*Delete the folder {folder}; it is made again"):
        simulated(SURVEY, 3, 3, cache=tmp_path)


def test_unwritable_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=f"Can't write the cache {tmp_path}/file/inside.*set LENSDIFF_CACHE"):
        simulated(SURVEY, 3, 3, cache=tmp_path / "file" / "inside")


def test_errors_are_one_family() -> None:
    """A notebook shows a LensdiffError as one sentence; a script may catch ValueError."""
    assert issubclass(DataError, LensdiffError) and issubclass(DataError, ValueError)


@pytest.mark.parametrize("error", [DataError("bad file"), KeyboardInterrupt(), OSError("disk full")], ids=["data", "interrupt", "disk"])
def test_failure_midway_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def batches() -> Iterator[np.ndarray]:
        yield np.zeros((2, 1, 8, 8), np.float32)
        assert len(list(tmp_path.glob("x-*.part"))) == 1  # the unfinished cache has a name that nobody reads
        raise error

    expected = DataError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        cached("x", {"a": 1}, (4, 1, 8, 8), batches, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [3, 5])
def test_wrong_number_of_images_leaves_nothing(tmp_path: Path, n: int) -> None:
    with pytest.raises(DataError, match=f"Expected 4 images .* got {n}"):
        cached("x", {"a": 1}, (4, 1, 8, 8), lambda: iter([np.zeros((n, 1, 8, 8), np.float32)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_shape_of_images_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected images of shape \(1, 8, 8\) .* got \(1, 1, 8\)"):
        cached("x", {"a": 1}, (4, 1, 8, 8), lambda: iter([np.zeros((4, 1, 1, 8), np.float32)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cached_pixels_are_those_of_the_batches(tmp_path: Path) -> None:
    """Whatever their type, order and number."""
    pixels = np.random.default_rng(0).random((5, 2, 8, 9))
    batches = [pixels[:1], np.asfortranarray(pixels[1:4]), pixels[4:].astype(">f4")]
    _, _, read = cached("x", {"a": 1}, pixels.shape, lambda: iter(batches), tmp_path)
    assert (read == pixels.astype(np.float32)).all()


# ---- the split --------------------------------------------------------------------------------------------------------------


def test_split_is_ninety_to_ten_disjoint_complete_and_saved(tmp_path: Path) -> None:
    images = simulated(SURVEY, 60, 3, cache=tmp_path)
    train, held = images.split()
    assert len(train) == 54 and len(held) == 6
    assert sorted([*train, *held]) == list(range(60))
    assert (np.diff(train) > 0).all() and (np.diff(held) > 0).all()
    saved = list(images.folder.glob("split*.npz"))
    assert len(saved) == 1
    again = simulated(SURVEY, 60, 3, cache=tmp_path).split()
    assert (again[0] == train).all() and (again[1] == held).all()
    np.savez(saved[0], train=held, held_out=train)  # what is saved is what is used
    assert (images.split()[0] == held).all()


def test_other_splits_are_other_splits(tmp_path: Path) -> None:
    images = simulated(SURVEY, 60, 3, cache=tmp_path)
    train, held = images.split()
    assert (images.split(seed=1)[1] != held).any()
    assert len(images.split(held_out=0.25)[1]) == 15
    assert (images.split()[0] == train).all()
    in_memory = ImageSet("in memory", np.zeros((60, 1, 8, 8), np.float32), "f")
    assert (in_memory.split()[0] == train).all()  # it depends on the number of images alone


@pytest.mark.parametrize(("n", "held_out"), [(4, 0.1), (1, 0.5), (10, 0.0), (10, 1.0)])
def test_split_of_too_few_is_refused(n: int, held_out: float) -> None:
    with pytest.raises(ValueError, match=f"few: {n} images can't be split with held_out={held_out}"):
        ImageSet("few", np.zeros((n, 1, 8, 8), np.float32), "f").split(held_out)


# ---- units ------------------------------------------------------------------------------------------------------------------


def test_stretch_gives_mean_zero_and_std_a_half() -> None:
    pixels = np.random.default_rng(0).gamma(1, 0.1, (300, 1, 8, 8)).astype(np.float32)
    stretch = Stretch.of(pixels)
    x = stretch(pixels.astype(np.float64))
    assert x.mean() == pytest.approx(0, abs=1e-12) and x.std() == pytest.approx(0.5)
    assert stretch.inverse(x) == pytest.approx(pixels.astype(np.float64))
    low, high = stretch.limits
    assert stretch.inverse(low) == pytest.approx(0, abs=1e-12) and stretch.inverse(high) == pytest.approx(1)
    assert low < 0 < high
    some = Stretch.of(pixels, most=100)
    assert some.mean == pytest.approx(pixels[::3].mean(), rel=1e-6)
    assert some != stretch


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_stretch_of_constant_images_is_refused(value: float) -> None:
    """0.1: in float64 the mean of many is not quite 0.1, and their standard deviation not quite 0."""
    with pytest.raises(DataError, match="same value"):
        Stretch.of(np.full((50, 1, 64, 64), value))


def test_min_max_spans_zero_to_one_image_by_image() -> None:
    images = np.random.default_rng(0).normal(5, 3, (4, 8, 9))
    images[1] *= 100
    scaled = min_max(images)
    assert scaled.dtype == np.float32 and scaled.shape == images.shape
    assert (scaled.min(axis=(1, 2)) == 0).all() and (scaled.max(axis=(1, 2)) == 1).all()
    for image, result in zip(images, scaled, strict=True):
        assert np.corrcoef(image.ravel(), result.ravel())[0, 1] == pytest.approx(1)
    images[2] = 7
    with pytest.raises(DataError, match="Image 2 is constant"):
        min_max(images)


# ---- progress ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a user runs it: conftest.py sets LENSDIFF_QUIET."""
    monkeypatch.delenv("LENSDIFF_QUIET")
    runtime.quiet.cache_clear()
    yield
    runtime.quiet.cache_clear()


def test_progress_is_silent_where_asked(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    runtime.quiet.cache_clear()
    assert list(progress(range(3), what="counting")) == [0, 1, 2]
    simulated(SURVEY, 3, 3, cache=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_to_a_user(tmp_path: Path, capfd: pytest.CaptureFixture, loud: None) -> None:
    assert list(progress(range(3), what="counting")) == [0, 1, 2]
    assert "counting" in capfd.readouterr().err
    simulated(SURVEY, 3, 3, cache=tmp_path)
    assert "diverse-16: 3 images" in capfd.readouterr().err


def test_progress_is_silent_under_papermill(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, loud: None) -> None:
    class Process:
        def parent(self) -> Process:
            return self

        def cmdline(self) -> list[str]:
            return ["/usr/bin/python", "/venv/bin/papermill", "in.ipynb", "out.ipynb"]

    monkeypatch.setattr(images.psutil, "Process", Process)
    assert list(progress(range(3), what="counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


# ---- memory -----------------------------------------------------------------------------------------------------------------

READ = """
import json, sys
from lensdiff.files import deeplense

def peak():  # not ru_maxrss: that starts at the parent's
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
images = deeplense(sys.argv[1], cache=sys.argv[2])
print(json.dumps([before, peak(), images.pixels.shape, images.pixels.nbytes]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_reading_10000_images_stays_under_memory(tmp_path: Path) -> None:
    """At 64 pixels, and, as it holds no more than a batch at a time, at every size."""
    folder = tmp_path / "Samples"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(tmp_path / "one.npy", rng.random((64, 64), np.float32))
    header, pixels = (tmp_path / "one.npy").read_bytes()[:128], rng.random((10_000, 64, 64), np.float32)
    for i, image in enumerate(pixels):
        (folder / f"{i:05}.npy").write_bytes(header + image.tobytes())
    run = subprocess.run(
        [sys.executable, "-c", READ, folder, tmp_path / "cache"], capture_output=True, text=True, cwd=Path(images.__file__).parents[1],
        env=os.environ | {"LENSDIFF_QUIET": "1"}, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    before, after, shape, size = json.loads(run.stdout)
    print(f"\n10,000 images of 64 pixels: at most {after / 1e6:.0f} MB; the imports {before / 1e6:.0f} MB, the pixels {size / 1e6:.0f} MB")
    assert shape == [10_000, 1, 64, 64]
    assert after < 1.5e9
    assert after - before < 0.3 * size

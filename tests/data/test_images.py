"""Sets of images: the simulated ones, the split, the order, and the way into network units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lensdiff.data import images as module
from lensdiff.data.colour import colour_lenses
from lensdiff.data.images import ImageSet, Shuffle, Stretch, lenses, simulated, some_of
from lensdiff.data.parts import simulated_parts
from lensdiff.errors import DataError, ParameterError
from lensdiff.lensing.population import KINDS, sample_params
from lensdiff.lensing.simulate import VERSION, simulate
from lensdiff.lensing.survey import diverse, model_i
from lensdiff.storage import cache_folder

SURVEY = diverse(16)


def never(*_: object, **__: object) -> None:
    raise AssertionError("it must not be simulated again")


# ---- simulated sets ------------------------------------------------------------------------------


def test_simulated_set_is_scaled_balanced_and_truthful(tmp_path: Path) -> None:
    images = simulated(SURVEY, 60, seed=3, cache=tmp_path)
    assert (
        len(images) == 60
        and images.pixels.shape == (60, 1, 16, 16)
        and images.pixels.dtype == np.float32
    )
    assert isinstance(images.pixels, np.memmap) and not images.pixels.flags.writeable
    assert (images.pixels.min(axis=(1, 2, 3)) == 0).all() and (
        images.pixels.max(axis=(1, 2, 3)) == 1
    ).all()
    assert images.classes == KINDS and np.bincount(images.labels).tolist() == [
        20,
        20,
        20,
    ]
    assert images.symmetries == 8
    truth = sample_params(60, "mixed", 3, SURVEY)
    assert (
        images.truth.tobytes() == truth.tobytes() == np.load(images.folder / "truth.npy").tobytes()
    )
    observed = next(simulate(truth, SURVEY, 3))
    low = observed.min(axis=(1, 2), keepdims=True)
    high = observed.max(axis=(1, 2), keepdims=True)
    assert images.pixels[:, 0] == pytest.approx((observed - low) / (high - low), abs=1e-6)


def test_symmetries_and_kind_follow_the_survey(tmp_path: Path) -> None:
    images = simulated(model_i(16), 4, seed=3, kind="axion", cache=tmp_path)
    assert images.symmetries == 1 and images.labels.tolist() == [2] * 4


def test_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = simulated(SURVEY, 12, seed=3, cache=tmp_path)
    monkeypatch.setattr(module, "simulate", never)
    second = simulated(SURVEY, 12, seed=3, cache=tmp_path)
    assert (second.folder, second.fingerprint) == (first.folder, first.fingerprint)
    assert (second.pixels == first.pixels).all() and (second.labels == first.labels).all()
    assert second.truth.tobytes() == first.truth.tobytes()
    with pytest.raises(AssertionError, match="simulated again"):
        simulated(SURVEY, 12, seed=4, cache=tmp_path)


def test_whatever_makes_the_pixels_makes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [
        simulated(SURVEY, 3, 3, cache=tmp_path),
        simulated(SURVEY, 4, 3, cache=tmp_path),
        simulated(SURVEY, 3, 4, cache=tmp_path),
        simulated(SURVEY, 3, 3, "cdm", cache=tmp_path),
        simulated(diverse(17), 3, 3, cache=tmp_path),
        simulated(diverse(16, subhalo_slope=-1.9), 3, 3, cache=tmp_path),
    ]
    monkeypatch.setattr(module, "VERSION", VERSION + 1)
    sets.append(simulated(SURVEY, 3, 3, cache=tmp_path))
    assert (
        len({images.folder for images in sets})
        == len({images.fingerprint for images in sets})
        == len(sets)
    )
    # and nothing is left over
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        images.folder.name for images in sets
    )


def test_noiseless_lenses_are_the_noisy_ones_without_noise(tmp_path: Path) -> None:
    survey = diverse(32)
    noisy = simulated(survey, 24, 3, cache=tmp_path)
    light = simulated(survey, 24, 3, cache=tmp_path, noiseless=True)
    assert noisy.fingerprint != light.fingerprint and light.name == "diverse-32-noiseless"
    assert noisy.unobserved is None and light.unobserved == survey
    np.testing.assert_array_equal(noisy.truth, light.truth)
    pairs = zip(noisy.pixels, light.pixels, strict=True)
    assert np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]) > 0.98
    grain = []
    for images in (light, noisy):
        steps = np.abs(np.diff(images.pixels[..., :4, :4], axis=-1))
        grain.append(np.median(np.median(steps, axis=(-1, -2))))
    assert grain[0] < 0.2 * grain[1]


def test_lenses_are_the_default_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = lenses("train", 16, 6, cache=tmp_path)
    test = lenses("test", 16, 6, cache=tmp_path)
    truth = sample_params(6, "mixed", module.TRAIN_SEED, SURVEY)
    assert train.truth.tobytes() == truth.tobytes()
    name = "einstein_radius_arcsec"
    assert not set(train.truth[name]) & set(test.truth[name])
    requested = []
    monkeypatch.setattr(module, "simulated", lambda *a, **_: requested.append(a))
    lenses()
    lenses("test", pixels=150)
    assert requested == [(diverse(64), 10_000, 1), (diverse(150), 5_000, 2)]
    with pytest.raises(ParameterError, match="split must be 'train' or 'test', not 'val'"):
        lenses("val")


@pytest.mark.parametrize("n", [0, -1])
def test_no_lens_is_no_set(n: int, tmp_path: Path) -> None:
    for make in (
        lambda: lenses("train", 16, n, tmp_path),
        lambda: colour_lenses("train", 16, n, tmp_path),
        lambda: simulated(SURVEY, n, 3, cache=tmp_path),
        lambda: simulated_parts(SURVEY, n, 3, cache=tmp_path),
    ):
        with pytest.raises(ParameterError, match=rf"^{n} lenses: simulate one or more\.$"):
            make()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("symmetries", [0, 4, "8", None])
def test_other_symmetries_are_refused(symmetries: object) -> None:
    with pytest.raises(ParameterError, match=r"^some: symmetries is .*, not 1 \(none\), 2 \(a m"):
        ImageSet("some", np.zeros((2, 1, 8, 8), np.float32), "f", symmetries=symmetries)


def test_simulated_sets_lie_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path))
    assert simulated(SURVEY, 3, 3).folder.parent == tmp_path == cache_folder()


def test_subset(lenses16: ImageSet) -> None:
    part = lenses16.subset(np.array([5, 2]), "two")
    assert (part.pixels == lenses16.pixels[[5, 2]]).all() and part.labels.tolist() == [2, 2]
    assert part.truth.tobytes() == lenses16.truth[[5, 2]].tobytes()
    assert part.folder is None and part.name == f"{lenses16.name}, two"
    other = lenses16.subset(np.array([2, 5]), "two")
    assert len({part.fingerprint, other.fingerprint, lenses16.fingerprint}) == 3


def test_what_a_checkpoint_records_of_its_images(lenses16: ImageSet) -> None:
    expected = {"name": "diverse-16", "fingerprint": lenses16.fingerprint, "images": 64}
    assert lenses16.as_dict() == expected


# ---- the split -----------------------------------------------------------------------------------


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


def test_a_cache_that_can_not_be_written_splits_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = simulated(SURVEY, 60, 3, cache=tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    held = images.split()[1]
    assert not list(images.folder.glob("split*"))
    monkeypatch.undo()
    assert (images.split()[1] == held).all()


def test_a_damaged_split_is_named_with_its_cure(tmp_path: Path) -> None:
    images = simulated(SURVEY, 60, 3, cache=tmp_path)
    images.split()
    path = images.folder / "split-0.1-0.npz"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"split-0\.1-0\.npz: can't be read .*Delete it"):
        images.split()


@pytest.mark.parametrize(("n", "held_out"), [(4, 0.1), (1, 0.5), (10, 0.0), (10, 1.0)])
def test_split_of_too_few_is_refused(n: int, held_out: float) -> None:
    message = f"few: {n} images can't be split with held_out={held_out}"
    with pytest.raises(ParameterError, match=message):
        ImageSet("few", np.zeros((n, 1, 8, 8), np.float32), "f").split(held_out)


# ---- order ---------------------------------------------------------------------------------------


def test_every_epoch_has_each_row_once_in_an_order_of_its_own() -> None:
    rows = np.arange(10, 22)
    shuffle = Shuffle(rows, batch=5, seed=3)
    picked = np.concatenate([shuffle(update) for update in range(12)])
    epochs = picked.reshape(5, 12)
    assert (np.sort(epochs, axis=1) == rows).all()
    assert len({epoch.tobytes() for epoch in epochs}) == 5


def test_the_rows_of_an_update_do_not_depend_on_those_before() -> None:
    rows = np.arange(12)
    in_order = Shuffle(rows, batch=5, seed=3)
    for update in range(7):
        expected = in_order(update)
        assert (Shuffle(rows, batch=5, seed=3)(update) == expected).all()
        assert (Shuffle(rows, batch=5, seed=4)(update) != expected).any()
    assert (in_order(1) == Shuffle(rows, batch=5, seed=3)(1)).all()  # and back again


# ---- units ---------------------------------------------------------------------------------------


def test_stretch_gives_mean_zero_and_std_a_half() -> None:
    pixels = np.random.default_rng(0).gamma(1, 0.1, (300, 1, 8, 8)).astype(np.float32)
    stretch = Stretch.of(pixels)
    x = stretch(pixels.astype(np.float64))
    assert x.mean() == pytest.approx(0, abs=1e-12) and x.std() == pytest.approx(0.5)
    assert stretch.inverse(x) == pytest.approx(pixels.astype(np.float64))
    low, high = stretch.limits
    assert stretch.inverse(low) == pytest.approx(0, abs=1e-12)
    assert stretch.inverse(high) == pytest.approx(1)
    assert low < 0 < high
    some = Stretch.of(pixels, most=100)
    assert some.mean == pytest.approx(pixels[::3].mean(), rel=1e-6)
    assert Stretch.of(pixels, most=151) == stretch  # fewer than twice as many: all of them
    assert some != stretch


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_stretch_of_constant_images_is_refused(value: float) -> None:
    """0.1: in float64 the mean of many is not quite 0.1, and their standard deviation not quite
    0.
    """
    with pytest.raises(DataError, match="same value"):
        Stretch.of(np.full((50, 1, 64, 64), value))
    with pytest.raises(DataError, match="There are no images to learn"):
        Stretch.of(np.zeros((0, 1, 64, 64)))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    plain = simulated(diverse(16), 3, 1, cache=tmp_path)
    given = simulated(diverse(16), np.int64(3), np.int64(1), cache=tmp_path)
    assert given.fingerprint == plain.fingerprint and len(given) == 3


def test_some_rows_have_all_classes_where_the_set_lies_class_by_class() -> None:
    mixed = np.arange(40) % 4
    pixels = np.zeros((40, 1, 8, 8), np.float32)
    rows = np.arange(4, 40)
    for labels, known in ((mixed, rows[:8]), (np.sort(mixed), rows[np.arange(8) * 36 // 8])):
        images = ImageSet("x", pixels, "f", classes=tuple("abcd"), labels=labels)
        found = some_of(images, rows, 8)
        assert (found == known).all() and len(set(labels[found])) == 4
    assert (some_of(ImageSet("x", pixels, "f"), rows, 99) == rows).all()

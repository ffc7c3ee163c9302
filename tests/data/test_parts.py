"""Lenses in parts are those of one set; what training holds of a million of them."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from toys_training import config, run, tiny, weights

from lensdiff import __main__ as command
from lensdiff.data import images as image_sets
from lensdiff.data import parts
from lensdiff.data.images import TRAIN_SEED, ImageSet, Stretch, simulated
from lensdiff.data.parts import Joined, simulated_part, simulated_parts
from lensdiff.errors import DataError
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.survey import diverse
from lensdiff.storage import fingerprint_of, read_json
from lensdiff.training import diffusion, recipes, state

SURVEY = diverse(16)
MOST_BYTES = 31  # a lens, as docs/scale.md says


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of ten lenses."""
    monkeypatch.setattr(parts, "PART", 10)


def whole(lengths: tuple[int, ...], shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((n, *shape)) for n in lengths]


@pytest.mark.parametrize(
    "key",
    [
        0,
        6,
        -1,
        slice(None),
        slice(1, 7, 2),
        slice(5, 5),
        slice(None, None, -1),
        [3, 3, 0, 6, -7],
        np.array([[0, 4], [6, 2]]),
        np.array([], int),
        (3, 0),
        (-1, slice(1, 3)),
        (slice(2, 6), slice(None, None, 2)),
        "all",
    ],
    ids=str,
)
def test_joined_arrays_are_indexed_as_one(key: object) -> None:
    arrays = whole((3, 0, 1, 3), (2, 5))
    joined = Joined(arrays)
    one = np.concatenate(arrays)
    assert joined.shape == one.shape and len(joined) == 7
    assert joined.ndim == 3 and joined.dtype == one.dtype
    if isinstance(key, str):
        np.testing.assert_array_equal(np.asarray(joined), one)
        assert np.asarray(joined, np.float32).dtype == np.float32
    else:
        np.testing.assert_array_equal(joined[key], one[key])


@pytest.mark.parametrize("key", [7, -8, [0, 7], np.ones(7, bool), 1.5])
def test_rows_that_are_not_there_are_refused(key: object) -> None:
    joined = Joined(whole((3, 4), (2,)))
    with pytest.raises(IndexError, match=r"[Rr]ow"):
        joined[key]


def test_parts_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="Parts of one set must be alike"):
        Joined([np.zeros((2, 3)), np.zeros((2, 4))])


def test_fields_are_joined() -> None:
    truth = sample_params(7, "mixed", 3, SURVEY)
    joined = Joined([truth[:4], truth[4:]])
    assert (joined["exposure_s"] == truth["exposure_s"]).all()
    assert (joined[np.array([5, 1])] == truth[[5, 1]]).all()


@pytest.mark.parametrize("kind", ["mixed", "cdm"])
def test_the_truth_of_a_lens_depends_on_seed_and_number_alone(kind: str) -> None:
    every = sample_params(40, kind, 5, SURVEY)
    assert (sample_params(13, kind, 5, SURVEY, first=27) == every[27:]).all()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("noiseless", [False, True])
def test_lenses_in_parts_are_those_of_one_set(tmp_path: Path, noiseless: bool) -> None:
    given = {"cache": tmp_path, "noiseless": noiseless}
    one = simulated(SURVEY, 24, 3, **given)
    joined = simulated_parts(SURVEY, 24, 3, **given)
    np.testing.assert_allclose(joined.pixels[:], one.pixels, atol=1e-6)
    np.testing.assert_array_equal(joined.labels, one.labels)
    assert (joined.truth[:] == one.truth).all()
    assert joined.classes == one.classes and joined.symmetries == 8
    assert (joined.unobserved is None) == (not noiseless)
    assert joined.fingerprint != one.fingerprint
    first = simulated_part(SURVEY, range(10), 3, **given)
    assert first.fingerprint == simulated(SURVEY, 10, 3, **given).fingerprint


@pytest.mark.usefixtures("small_parts")
def test_jobs_share_the_parts_and_training_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Three jobs in any order; then nothing is simulated; a lost part alone is made again."""
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    job = ["simulate", "tiny", "-n", "35", "--shard"]
    for number in (3, 1, 2):
        assert command.main([*job, f"{number}/3"]) == 0
    said = capsys.readouterr().out
    places = [line.split(", ")[-1] for line in said.splitlines() if line.startswith("part")]
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("part")] == [
        f"part {number} of 4" for number in (3, 4, 1, 2)
    ]
    made = []
    monkeypatch.setattr(
        image_sets, "simulate", lambda *a, **k: made.append(k["first"]) or real(*a, **k)
    )
    everything = recipes.TINY.images(n=35)
    assert len(everything) == 35 and made == [] and len(everything.pixels.arrays) == 4
    shutil.rmtree(places[3])  # the second part
    again = recipes.TINY.images(n=35)
    assert made == [10] and again.fingerprint == everything.fingerprint
    np.testing.assert_array_equal(again.pixels[:], everything.pixels[:])
    train = ["train", "tiny", str(tmp_path / "m"), "--images", "35", "--steps", "2"]
    assert command.main(train) == 0
    spec = read_json(tmp_path / "m" / "spec.json", "")
    assert spec["data"]["images"] == 35
    assert spec["data"]["fingerprint"] == everything.fingerprint


real = image_sets.simulate


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("simulate lensnet -n 5", "'lensnet' is no recipe that simulates lenses"),
        ("simulate digits-vq -n 5", "'digits-vq' is no recipe that simulates lenses"),
        ("simulate nothing -n 5", "'nothing' is no recipe that simulates lenses"),
        ("simulate tiny -n 0", "give a number of lenses"),
        ("simulate tiny -n 25000 --shard 4/4", "3 parts of at most 10,000 lenses make no 4 parts"),
        ("train tiny {m} --images 0", "0 images can't be had"),
        ("train digits-vq {m} --images 5", "5 images can't be had: only lenses"),
        ("train tiny {m} --images 5 --data data/sample", "leave --images out"),
    ],
)
def test_what_can_not_be_is_a_sentence(
    words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(words.format(m=tmp_path / "m").split()) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_weights_do_not_depend_on_how_lenses_are_stored(tmp_path: Path, small_parts: None) -> None:
    given = (SURVEY, 24, TRAIN_SEED)
    joined = simulated_parts(*given, cache=tmp_path)
    one = joined.subset(np.arange(24), "as one")
    both = [run(tiny(), images, config())[-1].model for images in (joined, one)]
    assert (weights(both[0]) == weights(both[1])).all()


# ---- a million -----------------------------------------------------------------------------------


def sparse(folder: Path, n: int, shape: tuple[int, ...] = (1, 16, 16)) -> ImageSet:
    """`n` images in files that take no room: all of them 0 but the first of each."""
    arrays = []
    for rows in parts.parts_of(n):
        path = folder / f"{n}-{rows.start}.npy"
        made = np.lib.format.open_memmap(path, "w+", np.float32, (len(rows), *shape))
        made[0] = 1
        made.flush()
        arrays.append(np.load(path, mmap_mode="r"))
    labels = np.zeros(n, np.int64)
    return ImageSet("sparse", Joined(arrays), f"{n}", labels=labels, symmetries=8)


def peak_bytes(folder: Path, n: int) -> int:
    """The most that three updates on `n` images hold of them."""
    tracemalloc.start()
    images = sparse(folder, n)
    stretch = Stretch(0.1, 0.3)
    assert len(run(tiny(), images, config(), stretch=stretch)) == 3
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_a_million_lenses_cost_few_bytes_each(tmp_path: Path) -> None:
    peak_bytes(tmp_path, 1_000)  # a first run pays for imports, too
    few = peak_bytes(tmp_path, 100_000)
    many = peak_bytes(tmp_path, 1_000_000)
    each = (many - few) / 900_000
    print(
        f"\n{few / 1e6:.0f} MB for 100,000 and {many / 1e6:.0f} MB for 1,000,000: {each:.1f} each"
    )
    assert 8 < each <= MOST_BYTES
    page = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"at most {MOST_BYTES} bytes a lens" in " ".join(page.split())


def test_the_fingerprint_of_a_run_is_that_of_a_list_of_its_rows(monkeypatch) -> None:
    """States of earlier versions are resumed: they have it of a list."""
    monkeypatch.setattr(state, "ROWS", 3)
    net = tiny()
    images = ImageSet("some", np.zeros((10, 1, 16, 16), np.float32), "abc")
    shapes = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    known = [repr(config()), shapes, net.scaling.name, net.data_std, net.precision, "abc"]
    for n in (1, 3, 7, 9):
        rows = np.arange(n) + 1
        expected = fingerprint_of([*known, rows.tolist()])
        assert diffusion.run_fingerprint(net, images, rows, config()) == expected


@pytest.mark.parametrize("more", [(), ({"kl": 0.1},), ("start", 3)])
def test_an_identity_is_that_of_a_list(monkeypatch, more: tuple) -> None:
    """Of every task, with what comes behind the rows."""
    monkeypatch.setattr(state, "ROWS", 4)
    about = ["config", {"b": 1, "a": [2.5, None]}]
    for many in (0, 1, 4, 9):
        found = state.run_identity(about, np.arange(many), *more)
        assert found == fingerprint_of([*about, list(range(many)), *more])

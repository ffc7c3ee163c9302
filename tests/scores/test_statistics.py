"""Statistics of features: streamed, cached, and held against what would mean nothing."""

from unittest import mock

import numpy as np
import pytest
import torch
from toys_scores import Pooled, exact

from lensdiff.data.images import ImageSet
from lensdiff.errors import MetricError
from lensdiff.scores import statistics
from lensdiff.scores.statistics import Statistics, to_uint8


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return ImageSet("made", rng.random((80, 1, 16, 16), np.float32), "f" * 64)


def test_statistics_stream_to_the_same_as_all_at_once_and_do_not_grow():
    x = np.random.default_rng(0).standard_normal((5000, 12)) * 3 + 100
    found = Statistics(12)
    for part in np.split(x, [1, 7, 500, 2500]):
        found.update(part)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-9)
    assert found.n == 5000
    assert found.rows.shape == (statistics.KEPT, 12)


def test_uint8_clips_and_rounds():
    values = torch.tensor([-0.2, 0.0, 0.00196, 0.00197, 0.5, 1.0, 1.3])
    assert statistics.to_uint8(values).tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_the_order_of_bytes_does_not_matter():
    """FITS files have the other one."""
    pixels = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert torch.equal(to_uint8(pixels.astype(">f4")), to_uint8(pixels))


def test_mirrored_arrays_are_taken():
    images = np.random.default_rng(0).random((3, 1, 4, 4)).astype(np.float32)[..., ::-1]
    assert (to_uint8(images) == to_uint8(images.copy())).all()


def test_statistics_of_real_images_are_cached_and_checked(images, tmp_path):
    net = Pooled()
    first = statistics.reference(net, images, range(40), tmp_path)
    computed_again = AssertionError("computed again")
    with mock.patch.object(statistics, "statistics", side_effect=computed_again):
        again = statistics.reference(net, images, range(40), tmp_path)
    np.testing.assert_array_equal(first.covariance, again.covariance)
    (path,) = (tmp_path / "statistics").glob("*.npz")
    with pytest.raises(MetricError, match=f"{path.name}.*another extractor or of other images"):
        Statistics.load(path, "another key")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MetricError, match=f"{path.name}.*Delete it"):
        statistics.reference(net, images, range(40), tmp_path)


def test_a_cache_that_can_not_be_written_is_a_warning(images, tmp_path):
    (tmp_path / "statistics").write_text("a file where a folder is needed")
    with pytest.warns(UserWarning, match="can't be written.*computed again next time"):
        found = statistics.reference(Pooled(), images, range(40), tmp_path)
    assert found.n == 40


def test_a_killed_write_leaves_nothing(tmp_path):
    found = exact([0.0, 0.0], np.eye(2))
    killed = mock.patch.object(statistics.np, "savez", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        found.save(tmp_path / "a.npz", "key")
    assert list(tmp_path.iterdir()) == []


def test_what_would_mean_nothing_is_refused():
    with pytest.raises(MetricError, match="constant"):
        statistics.statistics(Pooled(), [np.zeros((2, 1, 16, 16), np.float32)])
    with pytest.raises(MetricError, match="NaN"):
        Statistics(3).update(np.array([[1, np.nan, 2]]))
    with pytest.raises(MetricError, match="width 3"):
        Statistics(3).update(np.zeros((2, 4)))
    with pytest.raises(MetricError, match="two images"):
        Statistics(3).covariance  # noqa: B018


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([torch.rand(4, 1, 8, 8) * 2 - 1], r"Pixels from -.*\[0, 1\]"),
        ([torch.rand(4, 1, 8, 8) * 255], r"Pixels from .* to 2\d\d"),
        ([torch.full((4, 1, 8, 8), torch.nan)], "Pixels from nan"),
        ([torch.rand(4, 1, 8, 8), torch.rand(4, 1, 9, 9)], "one size"),
    ],
)
def test_statistics_refuse_pixels_outside_their_range_and_unequal_sizes(batches, message):
    with pytest.raises(MetricError, match=message):
        statistics.statistics(Pooled(), batches)

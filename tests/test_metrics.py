"""Scores against closed forms, pytorch-fid and scikit-learn, and what they refuse."""
import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from torch import nn

from lensdiff.data import images
from lensdiff.data.images import ELEMENTS, symmetry
from lensdiff.errors import MetricError
from lensdiff.scores import card, distances, statistics
from lensdiff.scores.distances import frechet, kid
from lensdiff.scores.features import EfficientNet, Inception, extractor
from lensdiff.scores.memorisation import nearest
from lensdiff.scores.statistics import Statistics


def exact(mean, covariance, n=1000):
    """Statistics with exactly this mean and covariance."""
    found = Statistics(len(mean))
    found.n, found.mean, found.scatter = n, np.array(mean, float), np.array(covariance, float) * (n - 1)
    return found


def covariance(width, seed):
    a = np.random.default_rng(seed).standard_normal((width, width))
    return a @ a.T / width + 0.1 * np.eye(width)


class Pooled(nn.Module):
    """An extractor for tests: means of a 4 x 4 grid of cells."""

    name, width, sha256 = "FD-Pooled", 16, "0" * 64

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).mean(1).flatten(1)


def test_frechet_is_the_closed_form_in_one_dimension_and_for_diagonals():
    assert frechet(exact([0.0], [[1.0]]), exact([3.0], [[4.0]])) == pytest.approx(10)
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 16.0])
    expected = 3 * 0.5**2 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet(exact([0, 0, 0], np.diag(a)), exact([0.5] * 3, np.diag(b))) == pytest.approx(expected)


def test_frechet_agrees_with_pytorch_fid_for_covariances_that_do_not_commute():
    from pytorch_fid.fid_score import calculate_frechet_distance

    one, two = covariance(24, 0), covariance(24, 1)
    means = np.random.default_rng(2).standard_normal((2, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its sqrtm call, gone in SciPy 1.18
        expected = calculate_frechet_distance(means[0], one, means[1], two)
    assert frechet(exact(means[0], one), exact(means[1], two)) == pytest.approx(expected, rel=1e-6)


def test_frechet_is_symmetric_zero_on_itself_and_finite_for_fewer_images_than_features():
    rng = np.random.default_rng(0)
    few = [Statistics(64) for _ in range(2)]
    for found in few:
        found.update(rng.standard_normal((20, 64)))
    assert frechet(few[0], few[0]) == pytest.approx(0, abs=1e-6)
    assert frechet(few[0], few[1]) == pytest.approx(frechet(few[1], few[0]), rel=1e-6)
    assert frechet(few[0], few[1]) > 10


def test_statistics_stream_to_the_same_as_all_at_once_and_do_not_grow():
    x = np.random.default_rng(0).standard_normal((5000, 12)) * 3 + 100
    found = Statistics(12)
    for part in np.split(x, [1, 7, 500, 2500]):
        found.update(part)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-9)
    assert found.n == 5000
    assert found.rows.shape == (statistics.KEPT, 12)


def test_kid_is_the_unbiased_estimate_of_binkowski():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 8)), rng.standard_normal((40, 8)) + 0.5
    a, b = Statistics(8), Statistics(8)
    a.update(x), b.update(y)
    kernels = [polynomial_kernel(p, q, degree=3, gamma=1 / 8, coef0=1) for p, q in ((x, x), (y, y), (x, y))]
    within = sum((k.sum() - np.trace(k)) / (40 * 39) for k in kernels[:2])
    value, spread = kid(a, b, subsets=3, size=40)
    assert value == pytest.approx(1000 * (within - 2 * kernels[2].mean()), rel=1e-4)
    assert spread < 1e-6 * value


def test_kid_of_two_samples_of_one_distribution_scatters_around_zero():
    rng = np.random.default_rng(1)
    a, b = Statistics(8), Statistics(8)
    a.update(rng.standard_normal((2000, 8))), b.update(rng.standard_normal((2000, 8)))
    value, spread = kid(a, b, subsets=50, size=500)
    assert abs(value) < 3 * spread


def test_uint8_clips_and_rounds():
    values = torch.tensor([-0.2, 0.0, 0.00196, 0.00197, 0.5, 1.0, 1.3])
    assert statistics.to_uint8(values).tolist() == [0, 0, 0, 1, 128, 255, 255]


@pytest.fixture(scope="module")
def efficientnet():
    return EfficientNet()


def test_efficientnet_has_its_imagenet_weights(efficientnet):
    skimage = pytest.importorskip("skimage")
    cat = torch.from_numpy(skimage.data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None]
    cup = torch.from_numpy(skimage.data.coffee()[:, 100:500].copy()).permute(2, 0, 1)[None]
    guess = [int(efficientnet.net(efficientnet.prepare(x)).argmax()) for x in (cat, cup)]
    assert guess[0] in (281, 282, 285)  # tabby, tiger and Egyptian cat
    assert guess[1] == 967  # espresso


def test_efficientnet_features_follow_the_protocol(efficientnet):
    images = torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    x = efficientnet.prepare(images)
    assert x.shape == (2, 3, 224, 224)
    assert torch.equal(x[:, 0], x[:, 2])
    grey = nn.functional.interpolate(images.float() / 255, (224, 224), mode="bilinear", antialias=True)
    assert torch.allclose(x[:, :1], (grey - 0.498) / 0.502)
    maps = efficientnet.net.forward_features(x)
    assert maps.shape == (2, 1280, 7, 7)
    assert torch.allclose(efficientnet(images), maps.mean((2, 3)))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A weights file of the right shape: pytorch-fid's own network as it is drawn at random."""
    import torchvision
    from pytorch_fid import inception

    torch.manual_seed(0)
    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(torchvision.models.Inception3, "load_state_dict", lambda *_: None),
    ):
        net = inception.fid_inception_v3()
    path = tmp_path_factory.mktemp("weights") / "made-here.pth"
    torch.save(net.state_dict(), path)
    return path


def test_inception_runs_whole_with_a_weights_file_and_is_pytorch_fids_network(inception_file):
    from pytorch_fid import inception

    net = extractor("inception", path=inception_file)
    assert net.name != "FID"  # another file's distance is not called FID
    weights = torch.load(inception_file, weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        theirs = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    pixels = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs((statistics.to_uint8(pixels).float() / 255).expand(-1, 3, -1, -1))[0].flatten(1)
    found = statistics.statistics(net, [pixels[:2], pixels[2:]])
    np.testing.assert_allclose(found.rows, expected.numpy(), rtol=1e-3, atol=1e-5)
    assert frechet(found, found) == pytest.approx(0, abs=1e-3)


def test_a_missing_inception_file_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MetricError, match=r"pt_inception-2015-12-05-6726825d\.pth: .*not there.*efficientnet"):
        Inception()
    with pytest.raises(MetricError, match="extractor must be"):
        extractor("vgg")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rng = np.random.default_rng(0)
    return images.ImageSet("made", rng.random((80, 1, 16, 16), np.float32), "f" * 64)


def generated(net, n=30, shift=0.0):
    return statistics.statistics(net, [np.random.default_rng(9).random((n, 1, 16, 16), np.float32) * (1 - shift)])


def test_a_card_says_what_it_depends_on_and_warns_of_few_samples(images, tmp_path):
    net = Pooled()
    with pytest.warns(card.SampleSizeWarning, match=r"2,048"):
        card = card.card(net, generated(net, shift=0.5), images, "ddim", 7, seed=3, n=40, cache=tmp_path)
    assert (card.n_generated, card.n_reference, card.n_floor, card.calls, card.seed) == (30, 40, 40, 7, 3)
    assert card.distance > 20 * card.floor  # half as bright is seen at once
    text = card.markdown()
    for part in ("FD-Pooled", "30 / 40 / 40", "16 x 16", "test set", "ffffffffffff", "7 network calls"):
        assert part in text
    assert card.Card(**card.as_dict()) == card
    with pytest.raises(MetricError, match="80 images; 41"):
        card.card(net, generated(net), images, "ddim", 7, 0, n=41, cache=tmp_path)


def test_statistics_of_real_images_are_cached_and_checked(images, tmp_path):
    net = Pooled()
    first = statistics.reference(net, images, range(40), tmp_path)
    with mock.patch.object(metrics, "statistics", side_effect=AssertionError("computed again")):
        again = statistics.reference(net, images, range(40), tmp_path)
    np.testing.assert_array_equal(first.covariance, again.covariance)
    (path,) = (tmp_path / "statistics").glob("*.npz")
    with pytest.raises(MetricError, match=f"{path.name}.*another extractor or of other images"):
        Statistics.load(path, "another key")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MetricError, match=f"{path.name}.*Delete it"):
        statistics.reference(net, images, range(40), tmp_path)


def test_a_killed_write_leaves_nothing(tmp_path):
    found = exact([0.0, 0.0], np.eye(2))
    with mock.patch.object(statistics.np, "savez", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        found.save(tmp_path / "a.npz", "key")
    assert list(tmp_path.iterdir()) == []


def test_what_would_mean_nothing_is_refused():
    net = Pooled()
    with pytest.raises(MetricError, match="constant"):
        statistics.statistics(net, [np.zeros((2, 1, 16, 16), np.float32)])
    with pytest.raises(MetricError, match="NaN"):
        Statistics(3).update(np.array([[1, np.nan, 2]]))
    with pytest.raises(MetricError, match="width 3"):
        Statistics(3).update(np.zeros((2, 4)))
    with pytest.raises(MetricError, match="width 3 and 4"):
        frechet(exact([0] * 3, np.eye(3)), exact([0] * 4, np.eye(4)))
    with pytest.raises(MetricError, match="two images"):
        Statistics(3).covariance  # noqa: B018


def test_the_error_bar_is_the_scatter_of_repeated_samples():
    """In one dimension, where repeating is cheap: jackknife's error against the std over fresh draws of both sides."""
    rng = np.random.default_rng(0)

    def pair():
        return Statistics.of(rng.normal(0, 1, (400, 1))), Statistics.of(rng.normal(1, 2, (400, 1)))

    truth = np.std([frechet(*pair()) for _ in range(400)])
    errors = [distances.frechet_error(*pair(), subsets=60, seed=k) for k in range(20)]
    assert np.mean(errors) == pytest.approx(truth, rel=0.15)
    with pytest.raises(MetricError, match="eight"):
        distances.frechet_error(Statistics.of(np.eye(4)), Statistics.of(np.eye(4)))


def test_a_card_shows_its_error_bar_where_there_is_one(images, tmp_path):
    net = Pooled()
    with pytest.warns(card.SampleSizeWarning):
        card = card.card(net, generated(net), images, "ddim", 7, seed=3, n=40, cache=tmp_path)
    assert card.distance_error is None and f"generated | {card.distance:.3f} |" in card.markdown()
    assert f"generated | {card.distance:.3f} ± 0.12 |" in replace(card, distance_error=0.1234).markdown()


def test_stored_features_give_the_distance_back_and_are_held_against_their_key(tmp_path):
    rng = np.random.default_rng(0)
    found, other = Statistics.of(rng.random((300, 12))), Statistics.of(rng.random((300, 12)) + 0.1)
    card.keep_features(tmp_path, found, ["extractor", "weights", 1])
    again = card.stored_features(tmp_path, ["extractor", "weights", 1])
    assert again.n == 300 and frechet(again, other) == pytest.approx(frechet(found, other), rel=1e-3)
    with pytest.raises(MetricError, match=r"features\.npz.*other weights.*score\.py"):
        card.stored_features(tmp_path, ["extractor", "weights", 2])
    (tmp_path / "features.npz").write_bytes(b"PK")
    with pytest.raises(MetricError, match=r"features\.npz: can't be read"):
        card.stored_features(tmp_path, ["extractor", "weights", 1])
    with mock.patch.object(card.np, "savez_compressed", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        card.keep_features(tmp_path, found, [])
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]


@pytest.mark.parametrize("symmetries", [1, 2, 8])
def test_the_nearest_training_image_is_found_under_the_symmetries(symmetries):
    rng = np.random.default_rng(1)
    training = rng.random((50, 1, 12, 12), np.float32)
    which = torch.tensor(rng.choice(ELEMENTS[symmetries], 20))
    rows = rng.choice(50, 20)
    noise = 0.01 * rng.standard_normal((20, 1, 12, 12)).astype(np.float32)
    images = symmetry(torch.from_numpy(training[rows]), which) + torch.from_numpy(noise)
    distance, index, element = nearest(images, training, symmetries, batch=7)
    np.testing.assert_array_equal(index, rows)
    np.testing.assert_allclose(distance, np.sqrt((noise**2).mean((1, 2, 3))), rtol=1e-3)
    back = symmetry(images, torch.from_numpy(element)).numpy()
    assert np.abs(back - training[rows]).max() < 0.06  # the element turns the image onto its neighbour


def test_nearest_refuses_other_sizes():
    with pytest.raises(MetricError, match="can't be compared"):
        nearest(np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 1, 9, 9), np.float32))


def test_stored_pictures_come_back_and_are_held_against_their_key(tmp_path):
    pictures = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    card.keep_images(tmp_path, pictures, ["weights"])
    torch.testing.assert_close(card.stored_images(tmp_path, ["weights"]), pictures / 255)
    with pytest.raises(MetricError, match=r"drawn\.npz.*other weights"):
        card.stored_images(tmp_path, ["others"])
    assert card.picture_file(images.Path(card.__file__).parents[1] / "data" / "checkpoints" / "one").parent.name == "drawn"


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([torch.rand(4, 1, 8, 8) * 2 - 1], r"Pixels from -.*\[0, 1\]"),
        ([torch.rand(4, 1, 8, 8) * 255], r"Pixels from .* to 2\d\d"),
        ([torch.full((4, 1, 8, 8), torch.nan)], "Pixels from nan"),
        ([torch.rand(4, 1, 8, 8), torch.rand(4, 1, 9, 9)], "one size"),
    ],
)
def test_statistics_refuse_pixels_outside_their_range_and_unequal_sizes(batches, says):
    with pytest.raises(MetricError, match=says):
        statistics.statistics(Pooled(), batches)


def test_sets_of_unequal_sizes_have_no_distance():
    small, large = (statistics.statistics(Pooled(), [torch.rand(20, 1, side, side)]) for side in (8, 16))
    with pytest.raises(MetricError, match=r"\(1, 8, 8\) and of \(1, 16, 16\)"):
        frechet(small, large)

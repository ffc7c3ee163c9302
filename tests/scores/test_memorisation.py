"""Nearest training images, and tests of copying, each with a model that copies and one not."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, mannwhitneyu

from lensdiff.data.images import ELEMENTS, symmetry
from lensdiff.errors import MetricError
from lensdiff.scores import memorisation
from lensdiff.scores.memorisation import (
    copy_rate_limit,
    copying_test,
    nearest,
    same_seed_correlation,
)


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
    # the element turns the image onto its neighbour
    assert np.abs(back - training[rows]).max() < 0.06


def test_mirrored_arrays_are_compared():
    images = np.random.default_rng(0).random((3, 1, 4, 4)).astype(np.float32)[..., ::-1]
    away, index, _ = nearest(images, images)
    assert away == pytest.approx(0, abs=1e-6) and index.tolist() == [0, 1, 2]
    away, _, _ = nearest(images.astype(">f4"), images)
    assert away == pytest.approx(0, abs=1e-6)


def test_nearest_refuses_other_sizes():
    with pytest.raises(MetricError, match="can't be compared"):
        nearest(np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 1, 9, 9), np.float32))


def rows(n, seed, spread=1.0, width=5):
    return spread * np.random.default_rng(seed).standard_normal((n, width))


def test_copies_are_found_and_fresh_samples_are_not():
    training = rows(600, 0)
    fresh = [copying_test(training, rows(300, 2 * k + 1), rows(300, 2 * k + 2)) for k in range(40)]
    p = np.array([one[1] for one in fresh])
    assert 0.3 < p.mean() < 0.7  # uniform without copying
    assert (p < 0.01).mean() < 0.1
    copies = training[:300] + 0.2 * rows(300, 5)
    score, chance = copying_test(training, rows(300, 1), copies)
    assert score < -5
    assert chance < 1e-6
    mixed = np.concatenate([copies[:90], rows(210, 6)])  # three in ten are copies
    assert copying_test(training, rows(300, 1), mixed)[1] < 0.01
    assert copying_test(training, rows(300, 1), rows(300, 6, spread=2.0))[0] > 3  # underfitted


def test_the_score_of_a_cell_is_mann_whitneys():
    one = rows(40, 0)[:, 0]
    other = rows(30, 1)[:, 0] + 0.5
    expected = mannwhitneyu(
        other, one, alternative="less", method="asymptotic", use_continuity=False
    )
    found = memorisation._z_of_ranks(one, other)
    assert memorisation.norm.cdf(found) == pytest.approx(expected.pvalue, rel=1e-9)


def test_cells_without_enough_images_are_refused():
    with pytest.raises(MetricError, match="No cell has 10"):
        copying_test(rows(60, 0), rows(9, 1), rows(60, 2))


def test_the_limit_is_the_rate_at_which_so_few_are_just_too_unlikely():
    assert copy_rate_limit(0, 64) == pytest.approx(1 - 0.05 ** (1 / 64))
    for detected, n in ((0, 64), (3, 200), (63, 64)):
        limit = copy_rate_limit(detected, n)
        assert binom.cdf(detected, n, limit) == pytest.approx(0.05, rel=1e-6)
    assert copy_rate_limit(5, 5) == 1.0
    assert copy_rate_limit(0, 64, power=0.5) == pytest.approx(2 * copy_rate_limit(0, 64))
    with pytest.raises(MetricError, match="no shares"):
        copy_rate_limit(6, 5)


def test_two_models_of_one_distribution_agree_on_a_seed_and_two_that_copy_do_not():
    """The models colour white noise; those that copy show their training image nearest to it."""
    noise = np.random.default_rng(0).standard_normal((30, 1, 12, 12))
    ring = np.zeros((12, 12))
    ring[3:9, 3:9] = 20.0  # what every lens has
    colour = np.exp(-np.arange(12) / 3)

    def learned(strength):
        return strength * noise * colour + ring

    def copied(seed):
        training = np.random.default_rng(seed).standard_normal((20, 1, 12, 12)) * colour
        far = ((learned(1.0)[:, None] - ring - training[None]) ** 2).sum((2, 3, 4))
        return training[far.argmin(1)] + ring

    same, unlike = same_seed_correlation(learned(1.0), learned(0.9))
    assert same.min() > 0.95
    assert abs(unlike.mean()) < 0.1
    same, unlike = same_seed_correlation(copied(1), copied(2))
    assert same.mean() < 0.3
    assert same_seed_correlation(copied(1), copied(1))[0].min() > 0.99
    with pytest.raises(MetricError, match="the same seeds"):
        same_seed_correlation(noise, noise[:9])
    with pytest.raises(MetricError, match="mean of all"):
        same_seed_correlation(np.ones((4, 1, 3, 3)), np.ones((4, 1, 3, 3)))

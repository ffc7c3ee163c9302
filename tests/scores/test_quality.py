"""Precision, recall, the two-sample test and distances by class, against scikit-learn."""

from math import erf

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.neighbors import NearestNeighbors

from lensdiff.errors import MetricError
from lensdiff.scores import distances
from lensdiff.scores.distances import frechet
from lensdiff.scores.statistics import Statistics


def cloud(n, seed, shift=0.0, width=8):
    return np.random.default_rng(seed).normal(shift, 1, (n, width)).astype(np.float32)


def by_sklearn(real, generated, k):
    """Precision and recall with scikit-learn's neighbours."""

    def share(base, tried):
        reach = NearestNeighbors(n_neighbors=k + 1).fit(base).kneighbors(base)[0][:, -1]
        far = np.linalg.norm(tried[:, None].astype(float) - base[None], axis=2)
        return (far <= reach + 1e-6).any(1).mean()

    return share(real, generated), share(generated, real)


@pytest.mark.parametrize(("shift", "k"), [(0.0, 3), (0.5, 3), (0.5, 5), (2.0, 1)])
def test_precision_and_recall_are_those_of_sklearns_neighbours(shift, k):
    real = cloud(200, 0)
    generated = cloud(150, 1, shift)
    expected = by_sklearn(real, generated, k)
    found = distances.precision_recall(real, generated, k)
    assert found == pytest.approx(expected, abs=0.01)


def test_half_the_kinds_cost_recall_and_strangers_cost_precision():
    kinds = np.repeat([[0.0], [50.0]], 100, 0) * np.eye(8)[:1]
    real = cloud(200, 0) + kinds
    generated = cloud(200, 1) + kinds
    whole = distances.precision_recall(real, generated)
    half = distances.precision_recall(real, np.concatenate([generated[:100], cloud(100, 2)]))
    strangers = np.concatenate([generated[:100], cloud(100, 2, 500.0)])
    strange = distances.precision_recall(real, strangers)
    assert min(whole) > 0.75
    assert half[0] > 0.75
    assert half[1] < 0.55
    assert strange[0] < 0.55


def test_copies_of_the_real_set_have_precision_and_recall_one():
    assert distances.precision_recall(cloud(50, 0), cloud(50, 0)) == (1.0, 1.0)


def test_a_classifier_tells_what_is_apart_and_is_at_chance_for_what_is_alike():
    accuracy, error = distances.two_sample(cloud(600, 0), cloud(600, 1))
    assert abs(accuracy - 0.5) < 4 * error
    assert error == pytest.approx(np.sqrt(0.25 / 1200), rel=0.05)
    accuracy, _ = distances.two_sample(cloud(600, 0), cloud(600, 1, 0.5))
    # the best rule for two Gaussians a distance of 0.5 sqrt(8) apart
    bayes = 0.5 * (1 + erf(0.5 * np.sqrt(8) / 2 / np.sqrt(2)))
    assert accuracy == pytest.approx(bayes, abs=0.04)
    accuracy, error = distances.two_sample(cloud(100, 0), cloud(300, 1, 5.0))
    assert accuracy == 1.0
    low, _ = binomtest(200, 200).proportion_ci(2 * norm.cdf(1) - 1, "wilson")
    assert error == pytest.approx(1 - low)


def test_distances_class_by_class_are_those_of_the_classes():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((90, 3))
    generated = rng.standard_normal((60, 3)) + 1
    real_labels = np.arange(90) % 3
    labels = np.arange(60) % 3
    found = distances.by_class(real, real_labels, generated, labels)
    for k in range(3):
        mine = Statistics.of(real[real_labels == k].astype(np.float32))
        theirs = Statistics.of(generated[labels == k].astype(np.float32))
        assert found[k] == pytest.approx(frechet(theirs, mine), rel=1e-5)
    with pytest.raises(MetricError, match="90 and 59 labels for 90 and 60"):
        distances.by_class(real, real_labels, generated, labels[:-1])
    with pytest.raises(MetricError, match=r"Class 2: 30 real and 0 generated"):
        distances.by_class(real, real_labels, generated, labels % 2)


def test_what_can_not_be_compared_is_refused():
    bad = cloud(50, 0)
    bad[3, 2] = np.nan
    for score in (distances.precision_recall, distances.two_sample):
        with pytest.raises(MetricError, match="NaN"):
            score(cloud(50, 0), bad)
        with pytest.raises(MetricError, match="one extractor"):
            score(cloud(50, 0), cloud(50, 0, width=9))
        with pytest.raises(MetricError, match="too few"):
            score(cloud(50, 0), cloud(3, 0))

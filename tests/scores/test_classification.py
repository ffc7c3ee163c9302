"""What a classifier's answers are worth, against closed forms."""

import numpy as np
import pytest
from scipy.special import softmax

from lensdiff.errors import DataError
from lensdiff.scores import classification


def honest(n=20_000, seed=0, spread=1.5):
    """Logits and labels that have just those chances: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (n, 3))
    labels = (rng.random((n, 1)) > softmax(logits, 1).cumsum(1)).sum(1)
    return logits, labels


def test_the_interval_is_wilsons():
    z = 1.959964
    n = 750
    right = 707
    centre = (right + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(right * (n - right) / n + z**2 / 4)
    found = classification.interval(right, n)
    assert found == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert classification.interval(10, 10)[1] == 1
    assert classification.interval(0, 10)[0] == 0
    with pytest.raises(DataError, match="11 right out of 10"):
        classification.interval(11, 10)


def test_the_interval_covers_what_it_should():
    rights = np.random.default_rng(0).binomial(200, 0.94, 2_000)
    intervals = [classification.interval(right, 200) for right in rights]
    inside = [low <= 0.94 <= high for low, high in intervals]
    assert 0.93 < np.mean(inside) < 0.97


def half_width(pair):
    return (pair[1] - pair[0]) / 2


@pytest.mark.parametrize("spread", [0.7, 3.0])
def test_delongs_interval_of_the_macro_auc_is_the_bootstraps(spread):
    logits, labels = honest(400, seed=4, spread=spread)
    found = classification.macro_auc_interval(logits, labels)
    macro = classification.areas(logits, labels).mean()
    assert np.mean(found) == pytest.approx(macro)
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(labels == k) for k in range(3)]
    again = []
    for _ in range(500):
        drawn = np.concatenate([rng.choice(part, len(part)) for part in rows])
        again.append(classification.areas(logits[drawn], labels[drawn]).mean())
    assert half_width(found) == pytest.approx(1.959964 * np.std(again), rel=0.1)
    narrow = classification.macro_auc_interval(logits, labels, level=0.6827)
    assert half_width(narrow) == pytest.approx(np.std(again), rel=0.1)


def test_the_interval_of_two_classes_is_delongs_formula():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [30, 50])
    score = rng.normal(size=80) + labels
    wins = score[labels == 1][:, None] > score[labels == 0][None]
    variance = wins.mean(1).var(ddof=1) / 50 + wins.mean(0).var(ddof=1) / 30
    found = classification.macro_auc_interval(np.stack([-score, score], 1), labels)
    assert np.mean(found) == pytest.approx(wins.mean())
    assert half_width(found) == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


def test_delongs_interval_covers_the_area_of_all_images():
    logits, labels = honest(20_000, seed=5)
    truth = classification.areas(logits, labels).mean()
    inside = []
    for start in range(0, 20_000, 200):
        part = slice(start, start + 200)
        low, high = classification.macro_auc_interval(logits[part], labels[part])
        inside.append(low <= truth <= high)
    assert 0.88 <= np.mean(inside) <= 0.99
    with pytest.raises(DataError, match="two of each"):
        classification.macro_auc_interval(np.eye(3)[[0, 0, 1, 1, 2]], np.array([0, 0, 1, 1, 2]))


def test_an_area_is_the_chance_that_a_member_is_ranked_first():
    logits, labels = honest(300)
    for k, area in enumerate(classification.areas(logits, labels)):
        chance = softmax(logits, 1)[:, k]
        ahead = chance[labels == k][:, None] > chance[labels != k][None]
        assert area == pytest.approx(ahead.mean())
    with pytest.raises(DataError, match=r"Only the classes \[0, 1\]"):
        classification.areas(logits[labels < 2], labels[labels < 2])


def test_calibrated_answers_have_no_calibration_error_and_sharpened_ones_are_mended():
    logits, labels = honest()
    assert classification.calibration_error(logits, labels) < 0.012
    assert classification.temperature(logits, labels) == pytest.approx(1, abs=0.05)
    assert classification.calibration_error(3 * logits, labels) > 0.1
    assert classification.temperature(3 * logits, labels) == pytest.approx(3, abs=0.15)
    found = classification.reliability(logits, labels)
    assert found["count"].sum() == len(labels)
    np.testing.assert_allclose(found["accuracy"], found["confidence"], atol=0.03)


def test_a_report_has_what_happened():
    logits = np.array([[5, 0, 0], [5, 0, 0], [0, 5, 0], [0, 5, 0], [0, 0, 5], [9, 0, 5]], float)
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = classification.report(logits, labels, ("a", "b", "c"))
    assert found["confusion"] == [[2, 0, 0], [0, 2, 0], [1, 0, 1]]
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["n"] == 6
    assert found["auc"]["b"] == 1
    assert classification.confident_mistakes(logits, labels).tolist() == [5]
    wrong = np.array([[0, 2, 0], [0, 0, 9], [5, 0, 0], [4, 0, 0]], float)
    surest = classification.confident_mistakes(wrong, np.array([0, 1, 0, 1]), most=2)
    assert surest.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 3)), np.array([0, 1]), "Logits of shape"),
        (np.zeros((2, 3)), np.array([0, 3]), "Labels from 0 to 3"),
        (np.zeros((2, 3)), np.array([-1, 0]), "Labels from -1"),
        (np.full((2, 3), np.nan), np.array([0, 1]), "NaN"),
    ],
)
def test_answers_that_fit_no_labels_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        classification.report(logits, labels, ("a", "b", "c"))


def test_the_published_tenth_is_fixed_and_has_each_class_in_equal_share():
    labels = np.arange(7_500) % 3
    rows = classification.published_tenth(labels)
    assert len(rows) == 750
    assert np.bincount(labels[rows]).tolist() == [250, 250, 250]
    assert (rows == classification.published_tenth(labels)).all()
    assert (rows != classification.published_tenth(labels, seed=1)).any()
    assert np.bincount(labels[classification.published_tenth(labels[:60])]).tolist() == [2, 2, 2]


@pytest.mark.parametrize("labels", [np.arange(57) % 3, [0] * 50 + [1], [], [0] * 19])
def test_a_small_test_set_has_no_tenth(labels):
    with pytest.raises(DataError, match=r"a tenth of them is too few\. Take 20 images or more"):
        classification.published_tenth(np.asarray(labels))


def test_occlusion_finds_the_one_square_that_counts():
    image = np.zeros((1, 30, 30), np.float32)
    fill = np.zeros((1, 30, 30), np.float32)
    image[0, 12:16, 21:25] = 1
    copies, squares = classification.occluded(image, fill, patch=6, stride=3)
    assert len(copies) == len(squares) == 9 * 9
    change = image.sum() - copies.sum((1, 2, 3))
    found = classification.heat(change, squares, (30, 30))
    y, x = np.unravel_index(np.nanargmax(found), found.shape)
    assert 12 <= y < 16
    assert 21 <= x < 25
    assert not np.isnan(found).any()
    with pytest.raises(DataError, match="patch must fit"):
        classification.occluded(image, fill, patch=31)

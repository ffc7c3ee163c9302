"""What a classifier's answers are worth, against closed forms, and the limit that noise sets."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from lensdiff.errors import DataError
from lensdiff.lensing import population, simulate, substructure
from lensdiff.lensing.survey import diverse, model_i
from lensdiff.scores import classification


def honest(n=20_000, seed=0, spread=1.5):
    """Logits and labels that are drawn from just those chances: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (n, 3))
    labels = (rng.random((n, 1)) > softmax(logits, 1).cumsum(1)).sum(1)
    return logits, labels


def test_the_interval_is_wilsons():
    z, n, right = 1.959964, 750, 707
    centre, half = (right + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(right * (n - right) / n + z**2 / 4)
    assert classification.interval(right, n) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert classification.interval(10, 10)[1] == 1 and classification.interval(0, 10)[0] == 0
    with pytest.raises(DataError, match="11 right out of 10"):
        classification.interval(11, 10)


def test_the_interval_covers_what_it_should():
    rights = np.random.default_rng(0).binomial(200, 0.94, 2_000)
    inside = [low <= 0.94 <= high for low, high in map(lambda right: classification.interval(right, 200), rights)]
    assert 0.93 < np.mean(inside) < 0.97


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


def test_a_report_says_what_happened():
    logits = np.array([[5, 0, 0], [5, 0, 0], [0, 5, 0], [0, 5, 0], [0, 0, 5], [9, 0, 5]], float)
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = classification.report(logits, labels, ("a", "b", "c"))
    assert found["confusion"] == [[2, 0, 0], [0, 2, 0], [1, 0, 1]]
    assert found["accuracy"] == pytest.approx(5 / 6) and found["n"] == 6
    assert found["auc"]["b"] == 1
    assert classification.confident_mistakes(logits, labels).tolist() == [5]


@pytest.mark.parametrize(("logits", "labels", "message"), [
    (np.zeros((3, 3)), np.array([0, 1]), "Logits of shape"),
    (np.zeros((2, 3)), np.array([0, 3]), "Labels from 0 to 3"),
    (np.zeros((2, 3)), np.array([-1, 0]), "Labels from -1"),
    (np.full((2, 3), np.nan), np.array([0, 1]), "NaN"),
])  # fmt: skip
def test_answers_that_fit_no_labels_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        classification.report(logits, labels, ("a", "b", "c"))


def test_the_published_tenth_is_fixed_and_has_each_class_in_equal_share():
    labels = np.arange(7_500) % 3
    rows = classification.published_tenth(labels)
    assert len(rows) == 750 and np.bincount(labels[rows]).tolist() == [250, 250, 250]
    assert (rows == classification.published_tenth(labels)).all() and (rows != classification.published_tenth(labels, seed=1)).any()


def test_occlusion_finds_the_one_square_that_counts():
    image, fill = np.zeros((1, 30, 30), np.float32), np.zeros((1, 30, 30), np.float32)
    image[0, 12:16, 21:25] = 1
    copies, squares = classification.occluded(image, fill, patch=6, stride=3)
    assert len(copies) == len(squares) == 9 * 9
    change = image.sum() - copies.sum((1, 2, 3))
    found = classification.heat(change, squares, (30, 30))
    y, x = np.unravel_index(np.nanargmax(found), found.shape)
    assert 12 <= y < 16 and 21 <= x < 25
    assert not np.isnan(found).any()
    with pytest.raises(DataError, match="patch must fit"):
        classification.occluded(image, fill, patch=31)


# ---- the limit --------------------------------------------------------------------------------------------------------------


def test_a_lens_without_substructure_is_the_one_that_was_drawn_so():
    for kind in ("cdm", "axion"):
        bare = substructure.without_substructure(population.sample_params(5, kind, 1, model_i()))
        assert (bare == population.sample_params(5, "no_sub", 1, model_i())).all()


def test_the_signal_to_noise_ratio_is_the_matched_filters():
    survey = diverse(48)
    params = population.sample_params(6, "mixed", 0, survey)
    found = substructure.signal_to_noise(params, survey)
    assert (found[params["label"] == 0] == 0).all() and (found[params["label"] > 0] > 1).all()
    light, bare = (simulate.render(rows, survey).double() for rows in (params, substructure.without_substructure(params)))
    template, variance = (light - bare)[1], substructure.noise_variance(bare, params, survey)[1].double()
    statistic = [
        float((template * (torch.from_numpy(simulate.observe(bare[1:2], params[1:2], survey, seed)).double()[0] - bare[1]) / variance).sum())
        for seed in range(400)
    ]  # the filter's answer to noise alone: mean 0, standard deviation equal to the ratio
    assert np.std(statistic) == pytest.approx(found[1], rel=0.12)


def test_what_a_fit_explains_is_no_signal():
    survey = diverse(48)
    params = population.sample_params(9, "mixed", 0, survey)
    known, fitted = (substructure.signal_to_noise(params, survey, names) for names in ((), substructure.FITTED))
    assert (fitted <= known + 1e-9).all() and (fitted[params["label"] > 0] > 0).all()
    short = population.sample_params(4, "axion", 0, replace(survey, axion_mass_ev=(1e-22, 1e-22), string_mass_msun=1e9, shear=(0.0, 0.0),
                                                     lens_axis_ratio=(1.0, 1.0)))  # fmt: skip
    known, fitted = (substructure.signal_to_noise(short, survey, names) for names in ((), substructure.FITTED))
    assert (fitted < 0.5 * known).all()  # a point at the centre makes the ring larger, which is nearly all that it does


def test_a_twin_shares_the_noise_where_the_light_is_the_same():
    survey = diverse(32)
    params = population.sample_params(4, "no_sub", 0, survey)
    seen = simulate.observe(simulate.render(params, survey), params, survey, seed=5, first=10)
    np.testing.assert_array_equal(substructure.twin(params, survey, 5, 10), seen)

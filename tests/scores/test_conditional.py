"""Is what a conditional model draws what was requested? By a classifier, and by a fit."""

import numpy as np
import pytest
import torch
from toys_scores import ByBrightness, Pooled, grey, small_model

from lensdiff.data.images import ImageSet
from lensdiff.errors import DataError, MetricError, SamplingError
from lensdiff.lensing import parameters
from lensdiff.lensing.fit import Fit
from lensdiff.lensing.population import KINDS
from lensdiff.model import load
from lensdiff.scores import conditional
from lensdiff.scores.card import FIRST_SEED
from lensdiff.scores.distances import precision_recall
from lensdiff.scores.statistics import statistics, to_uint8
from lensdiff.storage import shipped


def test_the_scorer_knows_right_images_from_wrong_ones():
    real = grey(90, 0)
    other = grey(60, 1)
    net = Pooled(2)
    scorer = conditional.ClassScorer.of(ByBrightness(), [net], real)
    right = scorer.row(other.pixels, other.labels)
    wrong = scorer.row(other.pixels, (other.labels + 1) % 3)
    assert right["accuracy"] == 1
    assert right["macro_auc"] == 1
    assert wrong["accuracy"] == 0
    assert set(right["distance"]) == {net.name}
    near = right["distance"][net.name]
    far = wrong["distance"][net.name]
    assert set(near) == set(KINDS)
    assert all(near[kind] * 100 < far[kind] for kind in KINDS)
    error = right["distance_error"][net.name]
    assert all(0 < error[kind] < near[kind] + 0.01 for kind in KINDS)
    noise = right["kid_std"][net.name]
    for kind in KINDS:
        assert abs(right["kid"][net.name][kind]) < 3 * noise[kind]
        assert wrong["kid"][net.name][kind] > 100 * noise[kind]
    assert 0 <= right["recall"][net.name] <= 1
    assert scorer.row(real.pixels, real.labels)["recall"][net.name] == 1
    assert conditional.nearest([wrong, right], net.name) is right
    as_bytes = torch.from_numpy((other.pixels * 255).round().astype(np.uint8))
    assert scorer.row(as_bytes, other.labels)["accuracy"] == 1


def test_recall_is_not_precision():
    """Images nearer to their class's mean than real ones are precise, and reach fewer of these."""
    real = grey(60, 0)
    net = Pooled(2)
    scorer = conditional.ClassScorer.of(ByBrightness(), [net], real)
    narrow = grey(60, 1)
    means = np.array([0.2, 0.5, 0.8])[narrow.labels][:, None, None, None]
    pixels = (means + 0.2 * (narrow.pixels - means)).astype(np.float32)
    rows = statistics(net, [torch.from_numpy(pixels)]).rows
    precision, recall = precision_recall(scorer.rows[net.name][:60], rows)
    assert precision > recall + 0.1
    assert scorer.row(pixels, narrow.labels)["recall"][net.name] == pytest.approx(recall)


def test_a_scorer_refuses_other_classes_and_more_images_than_features_are_kept_of():
    real = grey(30, 0)
    others = ImageSet("x", real.pixels, "x", ("a", "b", "c"), real.labels)
    with pytest.raises(DataError, match="the classifier knows"):
        conditional.ClassScorer.of(ByBrightness(), [Pooled(2)], others)
    scorer = conditional.ClassScorer.of(ByBrightness(), [Pooled(2)], real)
    many = np.zeros((conditional.KEPT + 1, 1, 8, 8), np.float32)
    with pytest.raises(MetricError, match="2049 images are more than"):
        scorer.row(many, np.zeros(len(many), int))


def test_agreement_is_that_of_a_known_error():
    rng = np.random.default_rng(1)
    wanted = rng.uniform(0.5, 2, (4_000, 7))
    error = 0.02 + 0.05 * rng.standard_normal(wanted.shape)
    rms = np.full(len(wanted), 0.01)
    rms[:100] = 0.5  # fits that failed
    error[:100] = 1e3
    fit = Fit(wanted + error, np.zeros((len(wanted), 3)), rms)
    found = conditional.agreement(wanted, fit)
    assert list(found) == list(parameters.NAMES)
    correlation = 1 / np.sqrt(1 + 0.05**2 / (1.5**2 / 12))
    for row in found.values():
        assert row["bias"] == pytest.approx(0.02, abs=0.004)
        assert row["scatter"] == pytest.approx(0.05, rel=0.06)
        assert row["rms"] == pytest.approx(np.hypot(0.02, 0.05), rel=0.05)
        assert row["correlation"] == pytest.approx(correlation, abs=0.004)
        assert (row["n"], row["unfitted"]) == (3_900, 100)


def test_agreement_refuses_other_shapes_and_too_few_fits():
    wanted = np.random.default_rng(1).uniform(0.5, 2, (4_000, 7))
    few = Fit(wanted, wanted, np.where(np.arange(4_000) < 5, 0.0, 1.0))
    with pytest.raises(MetricError, match="5 of 4000 fits"):
        conditional.agreement(wanted, few)
    nine = Fit(np.zeros((9, 7)), np.zeros((9, 3)), np.zeros(9))
    with pytest.raises(MetricError, match=r"\(2, 7\) values were requested"):
        conditional.agreement(np.zeros((2, 7)), nine)


@pytest.mark.parametrize("network", [{"classes": 3}, {"conditions": 7}])
def test_one_image_is_drawn_for_each_label_whatever_the_batch(tmp_path, network):
    model = small_model(tmp_path / "m", **network)
    wanted = ["axion", "cdm", "no_sub"]
    if "conditions" in network:
        wanted = np.random.default_rng(0).normal(size=(3, 7))
    whole = to_uint8(model.draw(3, 5, wanted))
    assert whole.shape == (3, 1, 16, 16)
    alone = to_uint8(model.draw(1, 6, wanted[1:2]))
    assert (whole[1].int() - alone[0].int()).abs().max() <= 1
    assert (whole != to_uint8(model.draw(3, 5, wanted[::-1]))).any()


def test_a_generated_set_has_the_classes_in_turn_and_is_cached(tmp_path, monkeypatch):
    model = small_model(tmp_path / "m", classes=3)
    kept = conditional.generated_set(model, 5, 2.0, cache=tmp_path)
    again = to_uint8(model.draw(5, FIRST_SEED, kept.labels, 2.0)).numpy() / np.float32(255)
    assert kept.labels.tolist() == [0, 1, 2, 0, 1]
    assert kept.classes == KINDS
    np.testing.assert_allclose(kept.pixels, again, atol=1.01 / 255)
    other = conditional.generated_set(model, 5, 1.0, cache=tmp_path)
    assert other.fingerprint != kept.fingerprint
    monkeypatch.setattr(type(model), "draw", None)  # to draw again would fail
    read = conditional.generated_set(model, 5, 2.0, cache=tmp_path)
    assert read.fingerprint == kept.fingerprint and np.array_equal(read.pixels, kept.pixels)


def test_what_can_not_be_requested_is_refused(tmp_path):
    model = load(shipped("lens64"))
    with pytest.raises(SamplingError, match="lens64 is not conditioned on classes"):
        conditional.generated_set(model, 3, cache=tmp_path)
    with pytest.raises(SamplingError, match="0 images: draw one or more"):
        model.draw(0, label=[])

"""The card: what it depends on, what it refuses, and what is stored for it."""

import os
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from toys_scores import Pooled, small_model

from lensdiff.data.images import ImageSet
from lensdiff.errors import MetricError
from lensdiff.model import Model, Sampling
from lensdiff.scores import card as cards
from lensdiff.scores.card import Card, SampleSizeWarning, card, score
from lensdiff.scores.distances import frechet, kid
from lensdiff.scores.jackknife import excess_errors
from lensdiff.scores.statistics import Statistics, reference, statistics

CARD = {
    "name": "FD-made",
    "distance": 12.5,
    "floor": 3.5,
    "kid": 1.0,
    "kid_std": 0.1,
    "kid_floor": 0.0,
    "n_generated": 2_048,
    "n_reference": 2_048,
    "n_floor": 2_048,
    "reference": "test set",
    "resolution": "64 x 64",
    "value_range": "[0, 1] as uint8",
    "data": "made",
    "extractor_sha256": "0" * 64,
    "sampling": "ddim",
    "calls": 7,
    "seed": 3,
}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return ImageSet("made", rng.random((80, 1, 16, 16), np.float32), "f" * 64)


def generated(net, n=30, shift=0.0):
    pixels = np.random.default_rng(9).random((n, 1, 16, 16), np.float32)
    return statistics(net, [pixels * (1 - shift)])


def test_a_card_has_what_it_depends_on_and_warns_of_few_samples(images, tmp_path):
    net = Pooled()
    far = generated(net, shift=0.5)
    with pytest.warns(SampleSizeWarning, match=r"2,048 .*compare the excess"):
        made = card(net, far, images, "ddim", 7, seed=3, n=40, cache=tmp_path)
    assert (made.n_generated, made.n_reference, made.n_floor) == (30, 40, 40)
    assert (made.calls, made.seed) == (7, 3)
    assert made.distance > 20 * made.floor  # half as bright is seen at once
    text = made.markdown()
    for part in ("FD-Pooled", "30 / 40 / 40", "16 x 16", "test set", "f" * 12, "7 network calls"):
        assert part in text
    assert Card(**made.as_dict()) == made
    with pytest.raises(MetricError, match="80 images; 41"):
        card(net, generated(net), images, "ddim", 7, 0, n=41, cache=tmp_path)


def test_the_warning_points_to_who_asked_for_the_card(images, tmp_path):
    net = Pooled(8)
    with pytest.warns(
        SampleSizeWarning, match=r"30 samples and fewer than the 64 features"
    ) as seen:
        card(net, generated(net), images, "ddim", 7, seed=3, n=40, cache=tmp_path)
    assert os.path.samefile(seen[0].filename, __file__)


def test_a_card_shows_its_error_bar_where_there_is_one(images, tmp_path):
    net = Pooled()
    with pytest.warns(SampleSizeWarning):
        made = card(net, generated(net), images, "ddim", 7, seed=3, n=40, cache=tmp_path)
    assert made.distance_error is None
    assert f"generated | {made.distance:.3f} |" in made.markdown()
    with_error = replace(made, distance_error=0.1234).markdown()
    assert f"generated | {made.distance:.3f} ± 0.12 |" in with_error


def test_an_older_card_without_an_error_of_the_excess_is_read():
    old = Card(**{**CARD, "distance_error": 0.2})
    assert old.excess_error is None
    assert f"excess over the floor | {12.5 - 3.5:.3f} |" in old.markdown()


def test_the_ratio_to_the_floor_is_shown_from_2048_images_a_side_on():
    whole = Card(**CARD)
    assert whole.ratio == pytest.approx(12.5 / 3.5)
    assert "| generated / floor | 3.57 |" in whole.markdown()
    for side in ("n_generated", "n_reference", "n_floor"):
        small = replace(whole, **{side: 2_047})
        assert small.ratio is None
        assert small.excess == whole.excess == 9.0
        assert "generated / floor |" not in small.markdown()
        assert "3.57" not in small.markdown()
    assert whole.rows()[0] == ("FD-made, excess over the floor", "9.000")


def test_at_every_size_the_excess_is_nearer_to_the_truth_than_distance_and_ratio():
    """Gaussians in twenty dimensions, of which one is shifted by 1: d^2 = 1 without a floor."""
    rng = np.random.default_rng(0)

    def mean_of(n):
        found = []
        for _ in range(20):
            mine, real, other = (Statistics.of(rng.standard_normal((n, 20))) for _ in range(3))
            mine.mean[0] += 1
            distances = (frechet(mine, real), frechet(other, real))
            found.append((distances[0] - distances[1], *distances))
        return np.mean(found, 0)

    few, many = (mean_of(n) for n in (60, 2_000))
    assert few[0] == pytest.approx(many[0], abs=0.2)
    assert few[1] > 2 * many[1]
    assert few[1] / few[2] < 0.2 * many[1] / many[2]


# ---- a model's card ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.mark.filterwarnings("ignore::lensdiff.scores.card.SampleSizeWarning")
def test_a_models_score_is_that_of_the_images_it_draws(model, lenses16, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path))
    net = Pooled()
    sampling = Sampling(steps=3, low=0.1)
    made = score(model, lenses16, 16, net, sampling, seed=5, split="held-out lenses")
    mine = statistics(net, [model.draw(16, seed=5, sampling=sampling)])
    real, floor = (reference(net, lenses16, range(k, k + 16)) for k in (0, 16))
    assert made.distance == pytest.approx(frechet(mine, real), rel=1e-6)
    assert made.floor == pytest.approx(frechet(floor, real), rel=1e-6)
    assert made.excess == pytest.approx(made.distance - frechet(floor, real), rel=1e-6)
    assert made.kid == pytest.approx(kid(mine, real)[0])
    assert made.kid_floor == pytest.approx(kid(floor, real)[0])
    errors = excess_errors(mine, real, floor)
    assert made.distance_error == pytest.approx(errors.distance, rel=1e-4)
    assert made.excess_error == pytest.approx(errors.excess, rel=1e-4)
    assert (made.n_generated, made.n_reference, made.n_floor) == (16, 16, 16)
    assert (made.sampling, made.calls, made.seed) == (str(sampling), sampling.calls, 5)
    assert made.name == net.name
    assert made.extractor_sha256 == net.sha256
    assert made.reference == f"held-out lenses of {lenses16.name}, images 0 to 15"
    assert 0 < made.distance_error < made.distance
    assert f"excess over the floor | {made.excess:.3f} ± {made.excess_error:.2g} |" in (
        made.markdown()
    )


@pytest.mark.filterwarnings("ignore::lensdiff.scores.card.SampleSizeWarning")
def test_a_score_takes_half_of_the_images_and_the_models_own_sampling(
    model, lenses16, tmp_path, monkeypatch
):
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path))
    made = score(model, lenses16, net=Pooled())
    assert made.n_generated == made.n_reference == len(lenses16) // 2
    assert made.sampling == str(model.sampling)
    assert made.seed == cards.FIRST_SEED


@pytest.mark.parametrize(("n", "message"), [(33, "64 images; 33"), (7, "needs 8 or more")])
def test_too_few_images_are_refused_before_any_is_drawn(model, lenses16, n, message):
    generates = AssertionError("images were generated")
    with (
        mock.patch.object(Model, "generate", side_effect=generates),
        pytest.raises(MetricError, match=message),
    ):
        score(model, lenses16, n, Pooled())


# ---- what is stored for a card -------------------------------------------------------------------


def test_stored_features_give_the_distance_back_and_are_held_against_their_key(tmp_path):
    rng = np.random.default_rng(0)
    found = Statistics.of(rng.random((300, 12)))
    other = Statistics.of(rng.random((300, 12)) + 0.1)
    cards.keep_features(tmp_path, found, ["extractor", "weights", 1])
    again = cards.stored_features(tmp_path, ["extractor", "weights", 1])
    assert again.n == 300
    assert frechet(again, other) == pytest.approx(frechet(found, other), rel=1e-3)
    with pytest.raises(
        MetricError, match=r"features\.npz.*other weights.*python -m lensdiff score"
    ):
        cards.stored_features(tmp_path, ["extractor", "weights", 2])
    (tmp_path / "features.npz").write_bytes(b"PK")
    with pytest.raises(MetricError, match=r"features\.npz: can't be read"):
        cards.stored_features(tmp_path, ["extractor", "weights", 1])
    killed = mock.patch.object(cards.np, "savez_compressed", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        cards.keep_features(tmp_path, found, [])
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]


def test_stored_images_come_back_and_are_held_against_their_key(tmp_path):
    pixels = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    cards.keep_images(tmp_path, pixels, ["weights"])
    torch.testing.assert_close(cards.stored_images(tmp_path, ["weights"]), pixels / 255)
    with pytest.raises(MetricError, match=r"drawn\.npz.*other weights"):
        cards.stored_images(tmp_path, ["others"])


def test_keys_change_with_weights_sampling_and_extractor(model):
    other = Sampling(steps=model.sampling.steps + 1)
    net = Pooled()
    own = cards.features_key(model, net, model.sampling)
    assert own != cards.features_key(model, Pooled(2), model.sampling)
    assert own != cards.features_key(model, net, other)
    weights = replace(model, spec={**model.spec, "sha256": "0" * 64})
    assert own != cards.features_key(weights, net, model.sampling)
    mine = cards.images_key(model, model.sampling)
    assert mine != cards.images_key(model, other)
    assert mine != cards.images_key(weights, model.sampling)

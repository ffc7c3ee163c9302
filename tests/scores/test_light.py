"""Noiseless images beside the weights: observed as those that the model generates."""

from dataclasses import replace

import numpy as np
import pytest

from lensdiff.errors import MetricError
from lensdiff.model import load
from lensdiff.scores import light
from lensdiff.scores.card import FIRST_SEED
from lensdiff.storage import shipped


def test_the_shipped_light_is_observed_with_the_noise_of_its_seeds():
    model = load(shipped("lens150-long"))
    images = light.observed(model, 3)
    assert images.shape == (3, 1, 150, 150)
    assert float(images.amin()) == 0 and float(images.amax()) == 1
    np.testing.assert_array_equal(images[:2], light.observed(model, 2))
    mine = model.draw(1, FIRST_SEED)
    assert float((mine[0] - images[0]).abs().mean()) < 0.01


def test_light_of_other_weights_is_refused(tmp_path):
    model = load(shipped("lens150"))  # has no light
    with pytest.raises(MetricError, match=r"light.npz.*study physics lens150$"):
        light.observed(model)
    mine = replace(model, folder=tmp_path / "my lens")
    with pytest.raises(MetricError, match=r"study physics '.*/my lens'$"):
        light.observed(mine)


def test_stored_images_come_from_light_or_from_those_of_the_card():
    assert light.stored(load(shipped("lens150-long")), 2).shape == (2, 1, 150, 150)
    first = light.stored(load(shipped("lens150")), 2)
    assert first.shape == (2, 1, 150, 150) and first.max() == 1
    with pytest.raises(MetricError):
        light.stored(load(shipped("lens64")), 2)

"""A model of noiseless lenses carries the telescope that gives them their noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lensdiff.data.images import ImageSet, simulated
from lensdiff.diffusion.process import LogNormal
from lensdiff.errors import DataError
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import Telescope
from lensdiff.model import Sampling
from lensdiff.training import fit as training_fit
from lensdiff.training import recipes
from lensdiff.training.diffusion import TrainConfig
from lensdiff.training.fit import fit

SURVEY = diverse(32)
RECIPE = recipes.Recipe(
    name="small",
    network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 2},
    train=TrainConfig(
        steps=3, batch=4, sigmas=LogNormal(-1.0, 1.0), held_out_every=3, save_every=3
    ),
    sampling=Sampling(steps=3),
    noiseless=True,
)


def test_a_telescope_looks_at_some_of_many_lenses(tmp_path, monkeypatch):
    images = simulated(SURVEY, 40, 3, cache=tmp_path, noiseless=True)
    whole = Telescope.of(images.truth, images.unobserved)
    assert training_fit._telescope(RECIPE, images) == whole
    monkeypatch.setattr(training_fit, "PEAKS", 15)
    some = Telescope.of(images.truth[::3], images.unobserved)
    assert training_fit._telescope(RECIPE, images) == some != whole


def test_a_model_of_noiseless_lenses_draws_observed_ones_and_on_request_the_light(tmp_path):
    images = simulated(SURVEY, 40, 3, cache=tmp_path, noiseless=True)
    model = fit(RECIPE, images, tmp_path / "model")
    assert model.telescope == Telescope.of(images.truth, SURVEY)
    light = torch.cat(list(model.generate(range(5), batch=2, observed=False)))
    seen = torch.cat(list(model.generate(range(5), batch=2)))
    torch.testing.assert_close(seen, model.telescope.observe(light, range(5)))
    torch.testing.assert_close(seen[3:], torch.cat(list(model.generate([3, 4]))), atol=2e-2, rtol=0)
    assert fit(replace(RECIPE, noiseless=False), images, tmp_path / "other").telescope is None


def test_files_can_not_be_learnt_without_their_noise(tmp_path):
    pixels = np.random.default_rng(0).random((40, 1, 16, 16), np.float32)
    made = ImageSet("made", pixels, "a" * 64)
    # simulated, but with its noise: it would get noise twice
    observed = simulated(SURVEY, 24, 3, cache=tmp_path)
    for images in (made, observed):
        with pytest.raises(DataError, match="only a simulation has"):
            fit(RECIPE, images, tmp_path / "model")


def test_older_descriptions_of_a_recipe_stay_true():
    assert "noiseless" not in recipes.LENS64.as_dict()
    assert recipes.LENS150.as_dict()["noiseless"] is True
    assert recipes.LENS150.as_dict()["pixels"] == 150

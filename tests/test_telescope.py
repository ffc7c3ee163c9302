"""The telescope gives noiseless lenses the survey's noise, and a model of noiseless lenses carries it with it."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lensdiff.data import images
from lensdiff.diffusion.process import LogNormal
from lensdiff.errors import DataError
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import observe, render
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import Telescope
from lensdiff.model import Sampling
from lensdiff.training import fit, recipes
from lensdiff.training.diffusion import TrainConfig

SURVEY = diverse(32)


@pytest.fixture(scope="module")
def sky():
    """Truth, noiseless images in counts, and the telescope of 600 lenses."""
    truth = sample_params(600, "mixed", 5, SURVEY)
    return truth, render(truth, SURVEY), Telescope.of(truth, SURVEY)


def corner_noise(images):
    return np.median(np.abs(np.diff(images[..., :4, :4], axis=-1)), axis=(-1, -2)).ravel() / 0.6745 / np.sqrt(2)


def test_its_quantiles_are_those_of_the_peaks(sky):
    _, light, telescope = sky
    peaks = light.amax((1, 2)).numpy()
    assert telescope.peak_cps[0] == pytest.approx(peaks.min(), abs=1e-3)
    assert telescope.peak_cps[-1] == pytest.approx(peaks.max(), abs=1e-3)
    assert telescope.peak_cps[50] == pytest.approx(np.median(peaks), abs=1e-3)


def test_what_it_records_has_the_noise_of_observed_lenses(sky):
    truth, light, telescope = sky
    real = telescope.min_max(observe(light, truth, SURVEY, 5))
    mine = telescope.observe(torch.from_numpy(telescope.min_max(light.numpy()))[:, None], range(600)).numpy()
    assert mine.min() == 0 and mine.max() == 1 and mine.dtype == np.float32
    a, b = np.log(corner_noise(real)), np.log(corner_noise(mine))
    assert a.mean() == pytest.approx(b.mean(), abs=0.08)  # two standard errors of the mean
    assert a.std() == pytest.approx(b.std(), rel=0.12)
    assert np.median(mine[:, 0, :4, :4]) == pytest.approx(np.median(real[:, :4, :4]), rel=0.1)  # the sky's level, too


def test_the_noise_depends_on_the_seed_alone(sky):
    _, light, telescope = sky
    x = torch.from_numpy(telescope.min_max(light[:4].numpy()))[:, None]
    together, apart = telescope.observe(x, [7, 8, 9, 10]), telescope.observe(x[2:3], [9])
    torch.testing.assert_close(together[2:3], apart)
    assert (telescope.observe(x[2:3], [10]) - apart).abs().max() > 0.01


def test_it_is_described_and_made_again(sky):
    _, _, telescope = sky
    assert Telescope.from_dict(json.loads(json.dumps(telescope.as_dict()))) == telescope


def test_noiseless_lenses_are_the_noisy_ones_without_noise(tmp_path):
    noisy, light = (images.simulated(SURVEY, 24, 3, cache=tmp_path, noiseless=noiseless) for noiseless in (False, True))
    assert noisy.fingerprint != light.fingerprint and light.name == "diverse-32-noiseless"
    np.testing.assert_array_equal(noisy.truth, light.truth)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(noisy.pixels, light.pixels, strict=True)]
    assert np.median(correlation) > 0.98
    assert np.median(corner_noise(light.pixels)) < 0.2 * np.median(corner_noise(noisy.pixels))


RECIPE = recipes.Recipe(
    name="small",
    network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 2},
    train=TrainConfig(steps=3, batch=4, sigmas=LogNormal(-1.0, 1.0), held_out_every=3, save_every=3),
    sampling=Sampling(steps=3),
    noiseless=True,
)


def test_a_model_of_noiseless_lenses_draws_observed_ones_and_on_request_the_light(tmp_path):
    images = images.simulated(SURVEY, 40, 3, cache=tmp_path, noiseless=True)
    model = fit.fit(RECIPE, images, tmp_path / "model")
    assert model.telescope == Telescope.of(images.truth, SURVEY)
    light = torch.cat(list(model.generate(range(5), batch=2, observed=False)))
    seen = torch.cat(list(model.generate(range(5), batch=2)))
    torch.testing.assert_close(seen, model.telescope.observe(light, range(5)))
    torch.testing.assert_close(seen[3:], torch.cat(list(model.generate([3, 4]))), atol=2e-2, rtol=0)
    assert fit.fit(replace(RECIPE, noiseless=False), images, tmp_path / "other").telescope is None


def test_files_can_not_be_learnt_without_their_noise(tmp_path):
    made = images.ImageSet("made", np.random.default_rng(0).random((40, 1, 16, 16), np.float32), "a" * 64)
    observed = images.simulated(SURVEY, 24, 3, cache=tmp_path)  # simulated, but with its noise: it would get noise twice
    for images in (made, observed):
        with pytest.raises(DataError, match="only a simulation has"):
            fit.fit(RECIPE, images, tmp_path / "model")


def test_older_descriptions_of_a_recipe_stay_true():
    assert "noiseless" not in recipes.LENS64.as_dict() and recipes.LENS150.as_dict()["noiseless"] is True
    assert recipes.LENS150.as_dict()["pixels"] == 150

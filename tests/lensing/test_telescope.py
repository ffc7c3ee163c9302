"""The telescope gives noiseless lenses the survey's noise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lensdiff.errors import DataError
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import blur, observe, render
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import Telescope, min_max

SURVEY = diverse(32)


@pytest.fixture(scope="module")
def sky():
    """Truth, noiseless images in counts, and the telescope of 600 lenses."""
    truth = sample_params(600, "mixed", 5, SURVEY)
    return truth, render(truth, SURVEY), Telescope.of(truth, SURVEY)


def corner_noise(images):
    """The standard deviation of a corner's pixels, from the differences of neighbours."""
    steps = np.abs(np.diff(images[..., :4, :4], axis=-1))
    return np.median(steps, axis=(-1, -2)).ravel() / 0.6745 / np.sqrt(2)


def test_its_quantiles_are_those_of_the_peaks(sky):
    _, light, telescope = sky
    peaks = light.amax((1, 2)).numpy()
    assert telescope.peak_cps[0] == pytest.approx(peaks.min(), abs=1e-3)
    assert telescope.peak_cps[-1] == pytest.approx(peaks.max(), abs=1e-3)
    assert telescope.peak_cps[50] == pytest.approx(np.median(peaks), abs=1e-3)


def test_what_it_records_has_the_noise_of_observed_lenses(sky):
    truth, light, telescope = sky
    real = min_max(observe(light, truth, SURVEY, 5))
    scaled = torch.from_numpy(min_max(light.numpy()))[:, None]
    mine = telescope.observe(scaled, range(600)).numpy()
    assert mine.min() == 0 and mine.max() == 1 and mine.dtype == np.float32
    a = np.log(corner_noise(real))
    b = np.log(corner_noise(mine))
    assert a.mean() == pytest.approx(b.mean(), abs=0.08)  # two standard errors of the mean
    assert a.std() == pytest.approx(b.std(), rel=0.12)
    # the sky's level, too
    assert np.median(mine[:, 0, :4, :4]) == pytest.approx(np.median(real[:, :4, :4]), rel=0.1)


def test_the_noise_depends_on_the_seed_alone(sky):
    _, light, telescope = sky
    x = torch.from_numpy(min_max(light[:4].numpy()))[:, None]
    together = telescope.observe(x, [7, 8, 9, 10])
    apart = telescope.observe(x[2:3], [9])
    torch.testing.assert_close(together[2:3], apart)
    assert (telescope.observe(x[2:3], [10]) - apart).abs().max() > 0.01


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
def test_an_image_without_light_is_refused_by_its_seed(sky, value):
    x = torch.ones(2, 1, 32, 32)
    x[1] = value
    with pytest.raises(DataError, match=r"^The image of seed 8: .* Take another seed\.$"):
        sky[2].observe(x, [7, 8])


def test_it_is_described_and_made_again(sky):
    _, _, telescope = sky
    assert Telescope.from_dict(json.loads(json.dumps(telescope.as_dict()))) == telescope


def test_min_max_spans_zero_to_one_image_by_image() -> None:
    images = np.random.default_rng(0).normal(5, 3, (4, 8, 9))
    images[1] *= 100
    scaled = min_max(images)
    assert scaled.dtype == np.float32 and scaled.shape == images.shape
    assert (scaled.min(axis=(1, 2)) == 0).all() and (scaled.max(axis=(1, 2)) == 1).all()
    for image, result in zip(images, scaled, strict=True):
        assert np.corrcoef(image.ravel(), result.ravel())[0, 1] == pytest.approx(1)
    images[2] = 7
    with pytest.raises(DataError, match="Image 2 is constant"):
        min_max(images)


def test_no_blur_is_the_mean_of_each_pixel() -> None:
    truth = sample_params(2, "no_sub", 3, SURVEY)
    sharp = diverse(32, psf_fwhm_arcsec=0.0)
    nearly = diverse(32, psf_fwhm_arcsec=1e-4)
    assert torch.equal(render(truth, sharp), render(truth, nearly))
    k = sharp.supersampling
    assert k > 1
    rays = torch.rand(2, 1, 32 * k, 32 * k)
    means = rays.reshape(2, 1, 32, k, 32, k).mean((3, 5))
    torch.testing.assert_close(blur(rays, sharp), means)
    assert float(render(truth, sharp).amax()) > float(render(truth, SURVEY).amax())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_not_scaled(value: float) -> None:
    images = np.arange(18.0).reshape(2, 3, 3)
    images[1, 0, 0] = value
    with pytest.raises(DataError, match="Image 1 is not finite"):
        min_max(images)

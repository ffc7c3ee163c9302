"""The estimators of lens physics against known shapes and against the simulation's truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from lensdiff.errors import MetricError
from lensdiff.lensing import measure
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import observe, render
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import min_max

SCALE = 0.05  # arcsec a pixel
Y, X = np.meshgrid(*[(np.arange(150) - 74.5) * SCALE] * 2, indexing="ij")


def blob(x=0.0, y=0.0, width=0.3, height=None, angle=0.0):
    """A Gaussian of standard deviations `width` and `height` arcsec, turned by `angle`."""
    u = (X - x) * np.cos(angle) + (Y - y) * np.sin(angle)
    v = (Y - y) * np.cos(angle) - (X - x) * np.sin(angle)
    return np.exp(-0.5 * ((u / width) ** 2 + (v / (height or width)) ** 2))


def measured(*images):
    return measure.measure(min_max(np.stack(images))[:, None], SCALE)


@pytest.mark.parametrize("radius", [0.6, 1.0, 1.85])
def test_a_circle_has_its_radius_no_ellipticity_and_one_piece(radius):
    circle = np.exp(-0.5 * ((np.hypot(X, Y) - radius) / 0.1) ** 2)
    found = measured(circle, np.where(X > 0, circle, 0))
    assert found["ring_radius_arcsec"][0] == pytest.approx(radius, abs=0.03)
    assert found["ring_cover"][0] == 1
    assert found["ellipticity"][0] < 1e-3
    assert found["pieces"][0] == 1
    assert np.isnan(found["ring_radius_arcsec"][1])  # half a ring is no ring
    assert found["ring_cover"][1] == pytest.approx(0.5, abs=0.1)


def test_the_ridge_of_a_displaced_circle_averages_to_its_radius():
    found = measured(np.exp(-0.5 * ((np.hypot(X - 0.3, Y + 0.2) - 1.2) / 0.1) ** 2))
    assert found["ring_radius_arcsec"][0] == pytest.approx(1.2, rel=0.05)


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.3, 2.5])
def test_an_elliptic_gaussian_has_the_ellipticity_of_its_axes(angle):
    found = measured(blob(width=0.6, height=0.3, angle=angle))
    smoothed = np.sqrt((0.3**2 + 0.08**2) / (0.6**2 + 0.08**2))
    assert found["ellipticity"][0] == pytest.approx((1 - smoothed) / (1 + smoothed), abs=0.01)


def test_the_flux_of_a_gaussian_is_two_pi_s_squared():
    found = measured(blob(width=0.4), 0.1 * blob(width=0.4))
    np.testing.assert_allclose(found["flux_arcsec2"], 2 * np.pi * (0.4**2 + 0.08**2), rtol=0.01)


def test_blobs_are_counted():
    two = blob(-1) + blob(1)
    four = sum(blob(np.cos(a), np.sin(a), 0.12) for a in np.arange(4) * np.pi / 2)
    found = measured(two, four, two + 0.25 * blob(0, 2, 0.2), blob(-0.1) + blob(0.1))
    assert list(found["bright_images"]) == [2, 4, 2, 1]
    assert list(found["pieces"]) == [2, 4, 3, 1]


def test_noise_alone_changes_no_count():
    rng = np.random.default_rng(0)
    noisy = [blob(-1) + blob(1) + 0.02 * rng.standard_normal(X.shape) for _ in range(20)]
    found = measured(*noisy)
    assert (found["bright_images"] == 2).mean() >= 0.9 and (found["pieces"] == 2).mean() >= 0.9


def test_the_profile_of_a_gaussian_is_the_gaussian():
    radius, profile = measure.radial_profile(min_max(blob(width=0.5)[None])[:, None], SCALE)
    near = radius < 2
    peak = (0.5**2 + 0.08**2) / 0.5**2  # over that of the smoothed Gaussian, which is the unit
    expected = peak * np.exp(-0.5 * (radius[near] / 0.5) ** 2)
    np.testing.assert_allclose(profile[0, near], expected, atol=0.02)


def test_white_noise_has_a_flat_power_of_its_variance():
    noise = 0.5 + 0.1 * np.random.default_rng(0).standard_normal((60, 1, 64, 64))
    frequency, power = measure.power_spectrum(noise, 0.1)
    np.testing.assert_allclose(power.mean(0), 0.01, rtol=0.1)
    assert frequency[0] == pytest.approx(1 / 6.4) and frequency[-1] == pytest.approx(5.0)


def test_a_wave_has_its_power_at_its_frequency():
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * 2 * X)[None, None]  # 2 cycles an arcsec, 15 in the image
    frequency, power = measure.power_spectrum(wave, SCALE)
    assert frequency[power[0].argmax()] == pytest.approx(2.0, abs=0.14)


def test_histograms_are_shares():
    images = np.linspace(0, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
    centres, shares = measure.pixel_histogram(images, 10)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares.mean(0), 0.1, atol=0.002)
    assert centres[0] == pytest.approx(0.05)


def test_measured_on_noisy_lenses_the_numbers_are_those_of_the_simulation():
    survey = diverse(64)
    truth = sample_params(500, "mixed", 77, survey)
    light = render(truth, survey)
    seen = min_max(observe(light, truth, survey, 77))[:, None]
    found = measure.measure(seen, survey.pixel_arcsec)
    clean = measure.measure(min_max(light.numpy())[:, None], survey.pixel_arcsec)
    radius = found["ring_radius_arcsec"]
    rings = np.isfinite(radius)
    assert rings.mean() > 0.3
    true_radius = truth["einstein_radius_arcsec"]
    assert np.corrcoef(radius[rings], true_radius[rings])[0, 1] > 0.98
    for name in ("ellipticity", "flux_arcsec2"):
        assert np.corrcoef(found[name], clean[name])[0, 1] > 0.999, name
    for name in ("bright_images", "pieces"):
        assert (found[name] == clean[name]).mean() > 0.95, name


@pytest.mark.parametrize(
    ("images", "scale", "message"),
    [
        (np.zeros((2, 1, 32, 32)), 0.1, "Image 0 is constant"),
        (np.full((1, 1, 32, 32), np.nan), 0.1, "Image 0 holds NaN"),
        (np.random.default_rng(0).random((2, 3, 32, 32)), 0.1, r"shape \(2, 3, 32, 32\)"),
        (np.random.default_rng(0).random((2, 1, 32, 32)), 0.0, "0.0 arcsec a pixel"),
    ],
)
def test_images_that_hold_no_lens_are_refused(images, scale, message):
    for estimate in (measure.measure, measure.radial_profile, measure.power_spectrum):
        with pytest.raises(MetricError, match=message):
            estimate(images, scale)


def test_the_distance_of_a_shifted_sample_is_its_shift_and_leaves_the_band():
    rng = np.random.default_rng(0)
    real = rng.normal(size=4_000)
    same = rng.normal(size=1_000)
    close = measure.compare(real, same)
    far = measure.compare(real, same + 0.5)
    assert far["w1"] == pytest.approx(0.5, abs=0.1)
    assert far["w1"] > 4 * far["w1_band"] and far["ks_p"] < 1e-6
    assert close["w1"] < 1.3 * close["w1_band"] and close["ks_p"] > 0.01
    with pytest.raises(MetricError, match="eight or more"):
        measure.compare(real, np.full(100, np.nan))


@pytest.mark.parametrize("n", [500, 2_000])
def test_one_sample_in_twenty_leaves_its_band(n: int):
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(size=n), rng.normal(size=500)) for _ in range(400)]
    found = [measure.compare(*pair, repeats=60) for pair in pairs]
    fresh = [wasserstein_distance(rng.normal(size=n), rng.normal(size=500)) for _ in range(2_000)]
    band = np.mean([one["w1_band"] for one in found])
    assert band == pytest.approx(np.quantile(fresh, 0.95), rel=0.15)
    assert 0.02 < np.mean([one["w1"] > one["w1_band"] for one in found]) < 0.12


@pytest.mark.parametrize("many", [5_000, 100])
def test_the_band_of_a_mean_has_the_errors_of_both_sides(many: int):
    curves = np.random.default_rng(0).normal(3.0, 2.0, (many, 3))
    low, high = measure.band(curves, 100, repeats=500)
    error = 2 * (1 / 100 + 1 / many) ** 0.5
    np.testing.assert_allclose((high - low) / 2, 1.96 * error, rtol=0.2)
    np.testing.assert_allclose((high + low) / 2, curves.mean(0), atol=0.1)

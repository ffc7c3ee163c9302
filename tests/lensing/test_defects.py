"""The rules of what no lens does: each fires on a made defect, and seldom on simulated lenses."""

from __future__ import annotations

import numpy as np
import pytest

from lensdiff.errors import MetricError
from lensdiff.lensing import defects, measure
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import render
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import min_max

SCALE = 0.05  # arcsec a pixel
Y, X = np.meshgrid(*[(np.arange(150) - 74.5) * SCALE] * 2, indexing="ij")
RADIUS = np.hypot(X, Y)
ANGLE = np.arctan2(Y, X) % (2 * np.pi)


def blob(x=0.0, y=0.0, width=0.15):
    return np.exp(-0.5 * ((X - x) ** 2 + (Y - y) ** 2) / width**2)


RING = np.exp(-0.5 * ((RADIUS - 1.2) / 0.12) ** 2)
MADE = {
    "one_image": blob(1.2),
    "three_images": blob(1.2) + 0.8 * blob(-1.0) + 0.7 * blob(0, 1.1),
    "no_counter_image": blob(1.2) + 0.03 * blob(-0.8),
    "central_light": RING + 0.6 * blob(width=0.3),
    "broken_ridge": np.exp(-0.5 * ((RADIUS - 0.7 - 0.15 * ANGLE) / 0.12) ** 2),
    "many_pieces": blob(1.2) + 0.6 * blob(-1.2) + 0.5 * blob(0, 1.2),
}


def broken(*images: np.ndarray) -> dict[str, np.ndarray]:
    return defects.defects(min_max(np.stack(images))[:, None], SCALE)


@pytest.mark.parametrize("name", MADE)
def test_each_rule_finds_what_it_is_for(name):
    assert broken(MADE[name])[name][0]


def test_a_ring_and_a_pair_break_none():
    found = broken(RING, blob(1.3) + 0.6 * blob(-0.9))
    assert list(found) == list(defects.WORDS)
    assert not any(flags.any() for name, flags in found.items() if name != "one_image")


def test_simulated_lenses_seldom_break_a_rule():
    survey = diverse(150)
    lenses = render(sample_params(48, "no_sub", 4, survey), survey).numpy()
    found = broken(*lenses)
    assert found["no_counter_image"].mean() <= 0.05
    for name in ("one_image", "central_light", "broken_ridge"):
        assert found[name].mean() < 0.15, name


def test_a_rate_has_clopper_and_pearsons_interval():
    share, low, high = defects.rate(np.arange(100) < 12)
    assert defects.interval(np.arange(100) < 12) == f"12.0% [{low:.1%}, {high:.1%}]"
    assert (share, round(low, 4), round(high, 4)) == (0.12, 0.0636, 0.2002)
    assert defects.rate(np.zeros(64, bool))[2] == pytest.approx(0.056, abs=1e-3)


def test_outer_light_and_saturated_pixels_are_counted():
    images = min_max(np.stack([RING, RING + 0.1 * (RADIUS > 2.5) * (RADIUS < 3)]))[:, None]
    outer = defects.outer_light(images, SCALE)
    assert outer[0] == pytest.approx(0, abs=1e-3) and outer[1] > 0.02
    flat = np.zeros((1, 1, 20, 20))
    flat[0, 0, 5, :8] = 1
    assert defects.saturated(flat)[0] == pytest.approx(0.02)


@pytest.mark.filterwarnings("error")
def test_coarse_pixels_have_a_centre_too():
    """Of pixels of 0.3 arcsec, the innermost have their middle outside 0.15 arcsec."""
    y, x = np.meshgrid(*[(np.arange(24) - 11.5) * 0.3] * 2, indexing="ij")
    ring = np.exp(-0.5 * ((np.hypot(x, y) - 1.8) / 0.3) ** 2)
    filled = ring + np.exp(-0.5 * (x**2 + y**2) / 0.4**2)
    found = defects.defects(min_max(np.stack([ring, filled]))[:, None], 0.3)
    assert found["central_light"].tolist() == [False, True]


def test_a_small_field_has_no_outer_light():
    images = min_max(RING[None, 51:99, 51:99])[:, None]
    with pytest.raises(MetricError, match=r"^48 x 48 pixels of 0.05 arcsec end within 2.5 arcsec"):
        defects.outer_light(images, SCALE)
    assert np.isfinite(defects.outer_light(images, SCALE, beyond_arcsec=1.5))


def test_binned_images_are_means_over_blocks_that_span_0_to_1():
    x = np.random.default_rng(0).random((2, 1, 9, 9))
    found = measure.binned(x, 3)
    assert found.shape == (2, 1, 3, 3)
    means = x[:, 0, :3, 3:6].mean((1, 2))
    every = x.reshape(2, 3, 3, 3, 3).mean((2, 4))
    expected = (means - every.min((1, 2))) / np.ptp(every, (1, 2))
    np.testing.assert_allclose(found[:, 0, 0, 1], expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "factor"), [((9, 8), 3), ((8, 9), 3), ((2, 2), 3), ((9, 9), 0)])
def test_images_that_blocks_do_not_fill_are_refused(shape, factor):
    sides = rf"^Images of {shape[1]} x {shape[0]} pixels have no whole blocks of {factor}\."
    with pytest.raises(MetricError, match=sides):
        measure.binned(np.random.default_rng(0).random((1, 1, *shape)), factor)

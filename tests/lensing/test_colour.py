"""Lenses in colour: the same arcs in three bands, a red lens, and a picture of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from lensdiff.data import colour as data
from lensdiff.data.folders import pictures
from lensdiff.errors import ParameterError
from lensdiff.lensing import colour
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import render
from lensdiff.lensing.survey import diverse
from lensdiff.storage import fingerprint_of, root

SURVEY = diverse(48)
TRUTH = sample_params(12, "mixed", 3, SURVEY)
LIGHTS = colour.sample_lights(TRUTH, 3)


def test_a_rows_lights_depend_on_the_seed_and_the_row_alone():
    again = colour.sample_lights(TRUTH[:5], 3)
    assert np.array_equal(again, LIGHTS[:5])
    assert not np.array_equal(colour.sample_lights(TRUTH, 4), LIGHTS)
    many = colour.sample_lights(sample_params(4_000, "mixed", 1, SURVEY), 1)
    for name, (mean, scatter) in colour.COLOURS_MAG.items():
        assert many[name].mean() == pytest.approx(mean, abs=4 * scatter / 4_000**0.5)
        assert many[name].std() == pytest.approx(scatter, rel=0.05)
    low, high = colour.LENS_AMPLITUDE_CPS
    assert low <= many["lens_amplitude_cps"].min() < 1.05 * low
    assert high / 1.05 < many["lens_amplitude_cps"].max() <= high


def test_a_colour_is_a_ratio_of_fluxes():
    for galaxy in ("lens", "source"):
        g, r, i = colour.fluxes(LIGHTS, galaxy).T
        assert np.allclose(-2.5 * np.log10(g / r), LIGHTS[f"{galaxy}_g_r_mag"])
        assert np.allclose(-2.5 * np.log10(r / i), LIGHTS[f"{galaxy}_r_i_mag"])


def test_the_source_is_the_grey_simulations_and_the_rest_is_the_lens():
    bands = colour.render_bands(TRUTH, SURVEY, LIGHTS, chunk=5)
    arcs = render(TRUTH, SURVEY)
    lens = colour.lens_light(TRUTH, LIGHTS, SURVEY)
    assert bands.shape == (12, 3, 48, 48)
    torch.testing.assert_close(bands[:, 1], arcs + lens)  # in r both have their own flux
    ratio = torch.from_numpy(colour.fluxes(LIGHTS, "lens")[:, 2]).float()[:, None, None]
    source = torch.from_numpy(colour.fluxes(LIGHTS, "source")[:, 2]).float()[:, None, None]
    torch.testing.assert_close(bands[:, 2], source * arcs + ratio * lens)


def test_half_of_a_lenss_light_lies_within_its_half_light_radius():
    survey = diverse(256)
    truth = TRUTH[:4].copy()
    truth["lens_axis_ratio"] = 1.0
    truth["einstein_radius_arcsec"] = 1.0
    lights = colour.sample_lights(truth, 3)
    lights["lens_radius_arcsec"] = 0.4
    light = colour.lens_light(truth, lights, survey).double()
    axis = (torch.arange(256) - 127.5) * survey.pixel_arcsec
    radius = torch.hypot(axis[None], axis[:, None])
    inside = light[:, radius < 0.4].sum(1) / light[:, radius < 3.7].sum(1)
    # light within a radius of a Sersic profile: Graham & Driver 2005, eq. 2
    k = gammaincinv(8, 0.5)
    within = gammainc(8, k * (3.7 / 0.4) ** 0.25)
    assert inside.numpy() == pytest.approx(0.5 / within, abs=0.02)


def test_lenses_are_red_and_arcs_are_blue():
    pictures = np.concatenate(list(colour.simulate_colour(TRUTH, SURVEY, 3, noiseless=True)))
    red, _, blue = pictures[:, :, 22:26, 22:26].mean((2, 3)).T
    assert (red > blue).mean() > 0.9
    arcs = np.stack([colour.picture(one) for one in _arcs_alone()])
    bright = arcs.max(1) > 0.3
    assert (arcs[:, 2][bright] > arcs[:, 0][bright]).mean() > 0.95


def _arcs_alone() -> np.ndarray:
    flux = colour.fluxes(LIGHTS, "source")[:, :, None, None]
    return flux * render(TRUTH, SURVEY).numpy()[:, None]


def test_each_band_has_noise_of_its_own_whatever_the_batch():
    bands = colour.render_bands(TRUTH, SURVEY, LIGHTS)
    seen = colour.observe_bands(bands, TRUTH, SURVEY, 3)
    noise = seen - bands.numpy()
    pairs = np.corrcoef(noise.transpose(1, 0, 2, 3).reshape(3, -1))
    assert np.abs(pairs[np.triu_indices(3, 1)]).max() < 0.02
    assert noise[:, :, :4, :4].std() == pytest.approx(SURVEY.background_rms_cps, rel=0.1)
    whole = np.concatenate(list(colour.simulate_colour(TRUTH, SURVEY, 3)))
    parts = np.concatenate(list(colour.simulate_colour(TRUTH, SURVEY, 3, chunk=5)))
    assert np.array_equal(whole, parts)


def test_colour_lenses_are_a_set_that_is_simulated_once(tmp_path, monkeypatch):
    made = data.colour_lenses("train", 32, 6, tmp_path)
    assert made.pixels.shape == (6, 3, 32, 32)
    assert 0 <= made.pixels.min() and made.pixels.max() <= 1
    assert made.labels.tolist() == [0, 1, 2, 0, 1, 2] and made.symmetries == 8
    other = data.colour_lenses("test", 32, 6, tmp_path)
    assert other.fingerprint != made.fingerprint

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it must come from the cache")

    monkeypatch.setattr(colour, "simulate_colour", never)
    again = data.colour_lenses("train", 32, 6, tmp_path)
    assert np.array_equal(again.pixels, made.pixels)
    with pytest.raises(ParameterError, match="split must be 'train' or 'test'"):
        data.colour_lenses("val", 32, 6, tmp_path)


def test_the_sample_in_the_repository_is_what_the_simulator_gives():
    survey = diverse(128)
    truth = sample_params(8, "mixed", 3, survey)
    made = next(colour.simulate_colour(truth, survey, 3))
    stored = pictures(root() / "data" / "sample" / "colour", 128, symmetries=8)
    assert stored.pixels.shape == made.shape
    names = [f"lens_{k:02d}.png" for k in range(len(made))]  # read in the order of a hash of these
    made = made[sorted(range(len(made)), key=lambda k: fingerprint_of(names[k]))]
    other = np.abs(stored.pixels - made) > 1.5 / 255
    # A Poisson number whose mean differs in its last digit, as it may between processors, can take
    # one more random number, and then the noise of what follows in its band is other noise. The
    # rest is equal to a step: with other noise throughout, more than half of all pixels differ.
    assert np.median(other.mean((1, 2, 3))) < 2e-3
    assert other.mean() < 0.02
    blocks = (stored.pixels - made).reshape(8, 3, 16, 8, 16, 8).mean((3, 5))
    assert np.abs(blocks).max() < 0.1

"""Lens parameters as conditions: the truth, its symmetries, and the lens they describe."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensdiff.data.images import symmetry
from lensdiff.errors import DataError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import render
from lensdiff.lensing.survey import diverse, model_i


@pytest.fixture(scope="module")
def truth():
    return sample_params(12, "no_sub", seed=3, survey=diverse(32))


def test_ellipticity_is_that_of_an_ellipse():
    e1, e2 = parameters.ellipticity(0.5, 0.0)
    assert (e1, e2) == (pytest.approx(1 / 3), 0)
    assert parameters.ellipticity(0.5, np.pi / 4)[1] == pytest.approx(1 / 3)
    # an ellipse turned by half a turn is the same
    assert parameters.ellipticity(0.5, np.pi)[0] == pytest.approx(1 / 3)
    assert np.allclose(parameters.ellipticity(1.0, 1.234), 0)


def test_the_values_describe_the_lens_and_nothing_is_lost(truth):
    again = parameters.lens(parameters.of(truth), truth)
    lens = ("einstein_radius_arcsec", "lens_axis_ratio", "shear_1", "shear_2")
    for name in (*lens, "source_x_arcsec", "exposure_s"):
        np.testing.assert_allclose(again[name], truth[name], rtol=1e-5, atol=1e-6)
    light = render(again, diverse(32))
    torch.testing.assert_close(light, render(truth, diverse(32)), rtol=1e-3, atol=2e-2)
    with pytest.raises(DataError, match=r"ellipticity of 1\.2"):
        parameters.lens(np.array([[1, 1.2, 0, 0, 0, 0, 0]]), truth[:1])


@pytest.mark.parametrize("k", range(8))
def test_a_turned_lens_gives_the_turned_image(truth, k):
    survey = diverse(32)
    which = np.full(len(truth), k)
    turned = parameters.lens(parameters.turned(parameters.of(truth), which), truth)
    angle = truth["source_angle_rad"] - np.pi / 2 * (k % 4)
    turned["source_angle_rad"] = np.pi - angle if k >= 4 else angle
    expected = symmetry(render(truth, survey)[:, None], which)[:, 0]
    torch.testing.assert_close(render(turned, survey), expected, rtol=1e-3, atol=2e-2)


def test_values_reach_the_network_at_order_one_and_nan_stays():
    values = parameters.of(sample_params(3000, "mixed", 0, diverse(64)))
    seen = parameters.encode(values)
    assert np.abs(seen.mean(0)).max() < 0.1
    assert (seen.std(0) > 0.6).all() and (seen.std(0) < 1.4).all()
    assert np.isnan(parameters.encode(np.full((1, 7), np.nan))).all()


def test_what_no_lens_of_the_survey_has_is_named():
    inside = parameters.of(sample_params(300, "mixed", 0, diverse(64)))
    assert parameters.outside(inside, diverse(64)) == []
    found = parameters.outside(np.array([[2.5, 0.4, 0, 2, 0, 0.2, 0]]), diverse(64))
    assert [words.split()[1] for words in found] == ["Einstein", "axis", "source", "shear"]


def test_a_survey_without_radii_has_no_range_of_them(truth):
    values = parameters.of(truth)
    values[:, 0] = 99.0
    found = parameters.outside(values, model_i())
    assert not any("Einstein radius outside" in words for words in found)

"""Surveys that can't be are refused."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from lensdiff.errors import ParameterError
from lensdiff.lensing.survey import diverse, model_i
from lensdiff.storage import root


@pytest.mark.parametrize(
    "change", [{"pixels": 7}, {"pixel_arcsec": 0.0}, {"pixel_arcsec": -0.1}, {"supersampling": 0}]
)
def test_impossible_surveys_are_refused(change: dict) -> None:
    with pytest.raises(ParameterError, match=r"'diverse'.*pixels must be 8 or more"):
        replace(diverse(64), **change)


def test_whole_numbers_of_numpy_are_taken() -> None:
    """They come from arrays of sizes, and must be written as JSON."""
    survey = diverse(np.int64(16), supersampling=np.int32(2))
    assert json.dumps(asdict(survey)) == json.dumps(asdict(diverse(16, supersampling=2)))
    for change in ({"pixels": 64.0}, {"supersampling": "2"}):
        (name,) = change
        with pytest.raises(ParameterError, match=rf"'diverse': {name} is .*; give a whole number"):
            replace(diverse(16), **change)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="seeing"):
        diverse(64, seeing=1.0)


def test_a_negative_blur_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"psf_fwhm_arcsec is -0\.1; give 0"):
        diverse(16, psf_fwhm_arcsec=-0.1)


@pytest.mark.parametrize("number", [-1.0, 100.0])
def test_a_number_of_subhaloes_that_would_be_cut_is_refused(number: float) -> None:
    with pytest.raises(ParameterError, match=r"subhalo_mean_number is .*; give 0 to 34"):
        diverse(16, subhalo_mean_number=number)
    assert diverse(16, subhalo_mean_number=34.0).subhalo_mean_number == 34.0


def test_the_priors_in_words_are_those_of_the_surveys() -> None:
    page = (root() / "data" / "README.md").read_text(encoding="utf-8")
    part = page.split("## What is simulated")[1].split("## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", part, re.M)
    cells = {
        name: [[float(x) for x in re.findall(r"[\d.]+\d|\d", one)] for one in two]
        for name, *two in rows
    }
    first = diverse(64)
    second = model_i()
    assert cells["Einstein radius"][0] == list(first.einstein_radius_arcsec)
    assert cells["axis ratio of the lens"] == [
        list(first.lens_axis_ratio),
        [round(second.lens_axis_ratio[0], 2)],
    ]
    assert cells["external shear"] == [list(first.shear), [second.shear[0]]]
    assert cells["source's place"] == [[first.source_offset[1]], [second.source_offset[1]]]
    for name, key in {"half-light radius": "radius_arcsec", "axis ratio": "axis_ratio"}.items():
        ends, (one, _) = (getattr(survey, f"source_{key}") for survey in (first, second))
        assert cells[f"source's {name}"] == [list(ends), [round(one, 2)]]
    assert cells["source's amplitude, counts/s a pixel"] == [
        list(first.source_amplitude_cps),
        [round(second.source_amplitude_cps[0], 4)],
    ]
    backgrounds = [[survey.background_rms_cps] for survey in (first, second)]
    assert cells["background noise, rms, counts/s a pixel"] == backgrounds
    for survey in (first, second):
        assert f"{survey.exposure_s[0]:,.0f} to {survey.exposure_s[1]:,.0f} s" in part
        assert f"function of {survey.psf_fwhm_arcsec:g} arcsec" in part
        assert f"{survey.subhalo_mean_number:.0f} on average" in part
        assert f"M^{survey.subhalo_slope:g}" in part

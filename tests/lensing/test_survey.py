"""Surveys that can't be are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lensdiff.errors import ParameterError
from lensdiff.lensing.survey import diverse


@pytest.mark.parametrize(
    "change", [{"pixels": 7}, {"pixel_arcsec": 0.0}, {"pixel_arcsec": -0.1}, {"supersampling": 0}]
)
def test_impossible_surveys_are_refused(change: dict) -> None:
    with pytest.raises(ParameterError, match=r"'diverse'.*pixels must be 8 or more"):
        replace(diverse(64), **change)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="seeing"):
        diverse(64, seeing=1.0)


def test_a_negative_blur_is_refused() -> None:
    with pytest.raises(ParameterError, match="psf_fwhm_arcsec is negative"):
        diverse(16, psf_fwhm_arcsec=-0.1)

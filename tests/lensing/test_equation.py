"""How many images a lens makes, where theory says it."""

from __future__ import annotations

import numpy as np
import pytest

from lensdiff.errors import ParameterError
from lensdiff.lensing.equation import count_images
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.survey import diverse


def lens(axis_ratio: float, radius: float, source: tuple[float, float]) -> np.ndarray:
    """A lens without shear, whose axes are those of the field."""
    params = sample_params(1, "no_sub", 0, diverse(150))
    params["shear_1"] = params["shear_2"] = params["lens_angle_rad"] = 0.0
    params["lens_axis_ratio"] = axis_ratio
    params["einstein_radius_arcsec"] = radius
    params["source_x_arcsec"], params["source_y_arcsec"] = source
    return params


@pytest.mark.parametrize("angle", [0.3, 1.7, 4.0])
@pytest.mark.parametrize(("share", "expected"), [(0.2, 2), (0.9, 2), (1.1, 1), (1.8, 1)])
def test_a_round_lens_makes_two_images_within_its_radius(share, expected, angle) -> None:
    source = 1.2 * share * np.cos(angle), 1.2 * share * np.sin(angle)
    assert count_images(lens(0.99999, 1.2, source), diverse(150)) == [expected]


def test_an_elliptical_one_makes_four_within_its_astroid() -> None:
    """Kormann, Schneider & Bartelmann 1994: two more images inside of the tangential caustic."""
    for y in (0.0, 0.013):  # on an axis of the lens, too
        lenses = np.concatenate([lens(0.6, 1.2, (s, y)) for s in (0.02, 0.5, 1.6)])
        assert count_images(lenses, diverse(150)).tolist() == [4, 2, 1]


def test_the_number_does_not_depend_on_the_grid() -> None:
    params = sample_params(40, "no_sub", 3, diverse(64))
    counts = [count_images(params, diverse(64), cells) for cells in (300, 450)]
    assert (counts[0] == counts[1]).mean() > 0.95  # pairs about to merge differ
    assert np.isin(counts[1], (2, 4)).mean() > 0.97 and (counts[1] == 2).sum() > 10


def test_substructure_is_refused() -> None:
    with pytest.raises(ParameterError, match="no_sub"):
        count_images(sample_params(2, "cdm", 0, diverse(150)), diverse(150))

"""Which lenses there are: the priors of both surveys, against astropy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.stats import kstest

from lensdiff.errors import ParameterError
from lensdiff.lensing.population import (
    KINDS,
    MAX_SUBHALOS,
    einstein_radius_arcsec,
    rotated,
    sample_params,
)
from lensdiff.lensing.simulate import point_masses, render, simulate
from lensdiff.lensing.survey import Survey, diverse, model_i


def test_einstein_radius_of_a_mass() -> None:
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    d_l = cosmology.angular_diameter_distance(0.5)
    d_s = cosmology.angular_diameter_distance(1.0)
    d_ls = (cosmology.comoving_distance(1.0) - cosmology.comoving_distance(0.5)) / 2
    l_l = cosmology.luminosity_distance(0.5)
    l_s = cosmology.luminosity_distance(1.0)
    for survey, ratio in ((diverse(), d_ls / (d_l * d_s)), (model_i(), (l_s - l_l) / (l_l * l_s))):
        radius = np.sqrt(4 * constants.G * 1e12 * constants.M_sun / constants.c**2 * ratio)
        angle = radius.to(units.dimensionless_unscaled).value * units.rad
        expected = angle.to(units.arcsec).value
        assert einstein_radius_arcsec(1e12, survey) == pytest.approx(expected, rel=1e-3)
        twice = einstein_radius_arcsec(np.array([4e12]), survey)[0]
        assert twice == pytest.approx(2 * expected, rel=1e-3)
    assert einstein_radius_arcsec(1e12, model_i()) == pytest.approx(1.281, abs=1e-3)
    params = sample_params(2, seed=3, survey=model_i())
    assert params["einstein_radius_arcsec"] == pytest.approx(1.281, abs=1e-3)


def test_model_i_has_deeplensesims_numbers() -> None:
    params = sample_params(600, "mixed", 4, model_i())
    for name, expected in (("lens", (0.1, 0.0)), ("source", (-0.1, 0.1))):
        angle = params[f"{name}_angle_rad"]
        e = np.stack(phi_q2_ellipticity(angle, params[f"{name}_axis_ratio"]), 1)
        assert e == pytest.approx(np.tile(expected, (600, 1)), abs=1e-12)
    constant = {
        "shear_1": 0.05,
        "shear_2": 0,
        "source_radius_arcsec": 0.25,
        "source_amplitude_cps": 0.05,
        "source_sersic_index": 1,
    }
    for name, value in constant.items():
        assert np.allclose(params[name], value), name
    for name in ("source_x_arcsec", "source_y_arcsec"):
        assert kstest(params[name], "uniform", (-0.35, 0.7)).pvalue > 1e-3, name
    assert kstest(np.log10(params["exposure_s"]), "uniform", (3, 0.5)).pvalue > 1e-3
    assert (params["n_subhalos"] == np.where(params["label"] == 1, 25, 0)).all()


def test_diverse_priors() -> None:
    params = sample_params(3000, "mixed", 7)
    assert (np.bincount(params["label"]) == 1000).all()
    distance = np.hypot(params["source_x_arcsec"], params["source_y_arcsec"])
    shear = np.hypot(params["shear_1"], params["shear_2"])
    axion = params[params["label"] == 2]
    uniform = {
        "einstein radius": (params["einstein_radius_arcsec"], 0.5, 2),
        "lens axis ratio": (params["lens_axis_ratio"], 0.5, 1),
        "shear": (shear, 0, 0.1),
        "offset": (distance / params["einstein_radius_arcsec"], 0, 0.7),
        "source radius": (params["source_radius_arcsec"], 0.1, 0.4),
        "source axis ratio": (params["source_axis_ratio"], 0.4, 1),
        "amplitude": (np.log(params["source_amplitude_cps"]), np.log(5), np.log(40)),
        "exposure": (np.log10(params["exposure_s"]), 3, 3.5),
        "axion mass": (np.log10(axion["axion_mass_ev"]), -24, -22),
    }
    for name, (values, low, high) in uniform.items():
        assert kstest(values, "uniform", (low, high - low)).pvalue > 1e-3, name


def test_diverse_is_isotropic() -> None:
    params = sample_params(3000, "mixed", 8)
    turns = {
        "lens": params["lens_angle_rad"] / np.pi,
        "source": params["source_angle_rad"] / np.pi,
        "shear": np.arctan2(params["shear_2"], params["shear_1"]) / (2 * np.pi),
        "offset": np.arctan2(params["source_y_arcsec"], params["source_x_arcsec"]) / (2 * np.pi),
        "string": params["string_angle_rad"][params["label"] == 2] / (2 * np.pi),
    }
    for name, turn in turns.items():
        assert kstest(turn % 1, "uniform").pvalue > 1e-3, name
    names = list(turns)[:4]
    for i, one in enumerate(names):  # and no orientation tells of another
        for other in names[:i]:
            mean = np.exp(2j * np.pi * (turns[one] - turns[other])).mean()
            assert np.abs(mean) < 4 / np.sqrt(3000), (one, other)


def test_subhalo_numbers_are_poisson() -> None:
    number = sample_params(3000, "cdm", 9)["n_subhalos"]
    assert abs(number.mean() - 25) < 4 * 5 / np.sqrt(3000)
    assert abs(number.var() - 25) < 4 * 25 * np.sqrt(2 / 3000)
    other = sample_params(30, "mixed", 9)
    assert (other["n_subhalos"][other["label"] != 1] == 0).all()


@pytest.mark.parametrize("slope", [-0.9, -1.0, -1.9])
def test_subhalo_masses_follow_the_slope(slope: float) -> None:
    params = sample_params(3000, "cdm", 10, diverse(subhalo_slope=slope))
    there = np.arange(MAX_SUBHALOS) < params["n_subhalos"][:, None]
    assert (params["subhalo_mass_msun"][~there] == 0).all()
    masses = params["subhalo_mass_msun"][there]
    assert masses.min() >= 1e6 and masses.max() <= 1e10
    counts, edges = np.histogram(np.log10(masses), np.linspace(6, 10, 9))
    fitted = np.polyfit((edges[1:] + edges[:-1]) / 2, np.log10(counts), 1, w=np.sqrt(counts))[0]
    assert fitted == pytest.approx(slope + 1, abs=0.02)  # dN/dlogM = M dN/dM


@pytest.mark.parametrize("survey", [diverse(), model_i()], ids=["diverse", "model_i"])
def test_subhaloes_fill_the_annulus(survey: Survey) -> None:
    params = sample_params(1000, "cdm", 14, survey)
    there = np.arange(MAX_SUBHALOS) < params["n_subhalos"][:, None]
    place = (params["subhalo_x_arcsec"] + 1j * params["subhalo_y_arcsec"])[there]
    assert kstest(np.abs(place), "uniform", (0.25, 1.75)).pvalue > 1e-3
    assert kstest(np.angle(place) % (2 * np.pi), "uniform", (0, 2 * np.pi)).pvalue > 1e-3


def test_rows_of_other_classes_have_no_axions() -> None:
    params = sample_params(30)
    string = (f"string_{name}" for name in ("angle_rad", "half_length_arcsec", "mass_msun"))
    for name in ("axion_mass_ev", *string):
        assert (params[name][params["label"] != 2] == 0).all(), name
    assert all(values.shape == (10, 0) for values in point_masses(params[params["label"] == 0]))


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
@pytest.mark.parametrize("survey", [diverse(), model_i()], ids=["diverse", "model_i"])
def test_a_truth_does_not_depend_on_how_many_there_are(survey: Survey, kind: str) -> None:
    few = sample_params(5, kind, 17, survey)
    many = sample_params(50, kind, 17, survey)
    assert few.tobytes() == many[:5].tobytes()
    assert few.tobytes() != sample_params(5, kind, 18, survey).tobytes()
    if kind != "mixed":
        assert (many["label"] == KINDS.index(kind)).all()


def test_unknown_kinds_and_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"kind must be one of .*'cdm'.*not 'wdm'"):
        sample_params(3, "wdm")
    with pytest.raises(ParameterError, match="negative, got -1"):
        sample_params(-1)
    assert len(sample_params(0)) == 0
    assert render(sample_params(0), diverse(16)).shape == (0, 16, 16)


def test_a_rotated_lens_is_the_rotated_image_of_it() -> None:
    """By a quarter turn pixels go to pixels: from x (columns) towards y (rows)."""
    survey = diverse(32)
    truth = sample_params(6, "mixed", 5, survey)
    light = np.concatenate(list(simulate(truth, survey, noiseless=True)))
    turned = rotated(truth, np.full(6, np.pi / 2))
    again = np.concatenate(list(simulate(turned, survey, noiseless=True)))
    error = np.abs(again - np.rot90(light, -1, (1, 2))).max((1, 2)) / light.max((1, 2))
    assert (error < 1e-3).all(), error
    assert (np.abs(again - light).max((1, 2)) > 0.1 * light.max((1, 2))).all()


def test_rotations_add_up_and_leave_what_has_no_direction() -> None:
    truth = sample_params(9, "mixed", 6, diverse())
    angles = np.linspace(0, 6, 9)
    there = rotated(truth, angles)
    back = rotated(there, -angles)
    whole = rotated(rotated(truth, angles), 2 * np.pi - angles)
    for name in truth.dtype.names:
        assert back[name] == pytest.approx(truth[name], abs=1e-9), name
        if not name.endswith("angle_rad"):
            assert whole[name] == pytest.approx(truth[name], abs=1e-9), name
    still = ("einstein_radius_arcsec", "lens_axis_ratio", "n_subhalos", "exposure_s", "label")
    for name in still:
        assert (there[name] == truth[name]).all(), name
    assert (there["string_angle_rad"][truth["label"] != 2] == 0).all()
    for x, y in (("source_x_arcsec", "source_y_arcsec"), ("shear_1", "shear_2")):
        assert np.hypot(there[x], there[y]) == pytest.approx(np.hypot(truth[x], truth[y]))

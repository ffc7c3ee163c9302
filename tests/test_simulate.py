"""The simulator against lenstronomy, against astropy, and against its own promises: populations, symmetries, seeds and noise."""
from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.util import make_grid_with_coordtransform
from scipy.special import gammaincinv
from scipy.stats import kstest

from lensdiff.lensing import population, simulate
from lensdiff.lensing.population import KINDS, einstein_radius_arcsec, sample_params
from lensdiff.lensing.simulate import observe, point_masses, render, simulate
from lensdiff.lensing.survey import Survey, diverse, model_i


def ellipticity(ratio: float, angle: float) -> tuple[float, float]:
    """lenstronomy's (e1, e2) of an axis ratio and an orientation."""
    return (1 - ratio) / (1 + ratio) * np.cos(2 * angle), (1 - ratio) / (1 + ratio) * np.sin(2 * angle)


class Lenstronomy:
    """The noiseless image of one row of the truth, counts per second and pixel, as lenstronomy computes it."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        grid = make_grid_with_coordtransform(survey.pixels, survey.pixel_arcsec, center_ra=0, center_dec=0, subgrid_res=1, inverse=False)
        self.data = ImageData(
            np.zeros((survey.pixels, survey.pixels)), ra_at_xy_0=grid[2], dec_at_xy_0=grid[3], transform_pix2angle=grid[6]
        )
        self.psf = PSF("GAUSSIAN", fwhm=survey.psf_fwhm_arcsec, pixel_size=survey.pixel_arcsec, truncation=survey.psf_truncation_sigma)
        rays = survey.supersampling
        self.numerics = {"supersampling_factor": rays, "supersampling_convolution": rays > 1}

    def __call__(self, row: np.ndarray) -> np.ndarray:
        e1, e2 = ellipticity(row["lens_axis_ratio"], row["lens_angle_rad"])
        names = ["SIE", "SHEAR"]
        lens = [
            {"theta_E": row["einstein_radius_arcsec"], "e1": e1, "e2": e2, "center_x": 0, "center_y": 0},
            {"gamma1": row["shear_1"], "gamma2": row["shear_2"]},
        ]
        for x, y, mass in np.stack([values[0] for values in point_masses(row[None])], axis=1):
            names.append("POINT_MASS")
            lens.append({"theta_E": float(einstein_radius_arcsec(mass, self.survey)), "center_x": x, "center_y": y})
        e1, e2 = ellipticity(row["source_axis_ratio"], row["source_angle_rad"])
        source = {
            "amp": row["source_amplitude_cps"] / self.survey.pixel_arcsec**2,  # lenstronomy's is per arcsec^2
            "R_sersic": row["source_radius_arcsec"],
            "n_sersic": row["source_sersic_index"],
            "e1": e1,
            "e2": e2,
            "center_x": row["source_x_arcsec"],
            "center_y": row["source_y_arcsec"],
        }
        model = ImageModel(
            self.data,
            self.psf,
            lens_model_class=LensModel(names),
            source_model_class=LightModel(["SERSIC_ELLIPSE"]),
            kwargs_numerics=self.numerics,
        )
        return model.image(lens, [source])


# ---- the oracle -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("survey", "seed"),
    [(model_i(150), 11), (diverse(150, use_lenstronomy_k=True), 12), (diverse(64, use_lenstronomy_k=True), 13)],
    ids=["model_i-150", "diverse-150", "diverse-64"],
)
def test_image_equals_lenstronomys(survey: Survey, seed: int, kind: str) -> None:
    params = sample_params(3, kind, seed, survey)
    images, oracle = render(params, survey).numpy(), Lenstronomy(survey)
    for row, image in zip(params, images, strict=True):
        expected = oracle(row)
        assert expected.max() > row["source_amplitude_cps"]  # brighter than at the half-light radius: the lens is in the picture
        assert np.abs(image - expected).max() < 1e-3 * expected.max()


@pytest.mark.parametrize(("lenstronomys", "k"), [(False, gammaincinv(2, 0.5)), (True, 1.9992 - 0.3271)], ids=["exact", "lenstronomys"])
def test_k_of_the_sersic_law(lenstronomys: bool, k: float) -> None:
    """The exact k puts half of the light within the half-light radius; lenstronomy's approximation is 0.4 % smaller."""
    survey = diverse(128, psf_fwhm_arcsec=0.001, use_lenstronomy_k=lenstronomys)
    params = sample_params(1, "no_sub", 0, survey)
    for name in ("einstein_radius_arcsec", "shear_1", "shear_2", "source_x_arcsec", "source_y_arcsec"):
        params[name] = 1e-12  # no lens
    params["source_axis_ratio"], params["source_radius_arcsec"] = 1, 0.4
    near, far = render(params, survey)[0, 64, [64, 84]].tolist()
    radius = np.hypot(0.5, [0.5, 20.5]) * 7.5 / 128
    assert np.log(near / far) * 0.4 / (radius[1] - radius[0]) == pytest.approx(k, rel=1e-4)


@pytest.mark.slow
def test_speed_beside_lenstronomy() -> None:
    """150 pixels with PSF: twice as fast as lenstronomy's own loop, and 10,000 observed images in three minutes."""
    survey = diverse(150, use_lenstronomy_k=True)
    oracle, few, many = Lenstronomy(survey), sample_params(12, "mixed", 5, survey), sample_params(96, "mixed", 5, survey)
    for row in few[:3]:
        oracle(row)
    render(many[:12], survey)

    def best_of_three(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, number=1, repeat=3))  # the others were disturbed

    theirs = best_of_three(lambda: [oracle(row) for row in few]) / len(few)
    ours = best_of_three(lambda: render(many, survey)) / len(many)
    more = sample_params(96, "mixed", 6, survey)
    observed = best_of_three(lambda: list(simulate(more, survey, 6))) / len(more)
    print(f"\n150 x 150, an image: lenstronomy {1e3 * theirs:.1f} ms, lensdiff {1e3 * ours:.1f} ms ({theirs / ours:.1f} times as fast)")
    print(f"10,000 observed images: {1e4 * observed:.0f} s")
    assert theirs > 2 * ours
    assert 1e4 * observed < 180


# ---- the physics ------------------------------------------------------------------------------------------------------------


def test_einstein_radius_of_a_mass() -> None:
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    d_l, d_s = cosmology.angular_diameter_distance(0.5), cosmology.angular_diameter_distance(1.0)
    d_ls = (cosmology.comoving_distance(1.0) - cosmology.comoving_distance(0.5)) / 2
    l_l, l_s = cosmology.luminosity_distance(0.5), cosmology.luminosity_distance(1.0)
    for survey, ratio in ((diverse(), d_ls / (d_l * d_s)), (model_i(), (l_s - l_l) / (l_l * l_s))):
        radius = np.sqrt(4 * constants.G * 1e12 * constants.M_sun / constants.c**2 * ratio)
        expected = (radius.to(units.dimensionless_unscaled).value * units.rad).to(units.arcsec).value
        assert einstein_radius_arcsec(1e12, survey) == pytest.approx(expected, rel=1e-3)
        assert einstein_radius_arcsec(np.array([4e12]), survey)[0] == pytest.approx(2 * expected, rel=1e-3)
    assert einstein_radius_arcsec(1e12, model_i()) == pytest.approx(1.281, abs=1e-3)
    assert sample_params(2, seed=3, survey=model_i())["einstein_radius_arcsec"] == pytest.approx(1.281, abs=1e-3)


def test_model_i_has_deeplensesims_numbers() -> None:
    params = sample_params(600, "mixed", 4, model_i())
    e = np.array([ellipticity(row["lens_axis_ratio"], row["lens_angle_rad"]) for row in params[:3]])
    assert e == pytest.approx(np.tile([0.1, 0.0], (3, 1)), abs=1e-12)
    e = np.array([ellipticity(row["source_axis_ratio"], row["source_angle_rad"]) for row in params[:3]])
    assert e == pytest.approx(np.tile([-0.1, 0.1], (3, 1)), abs=1e-12)
    constant = {"shear_1": 0.05, "shear_2": 0, "source_radius_arcsec": 0.25, "source_amplitude_cps": 0.05, "source_sersic_index": 1}
    for name, value in constant.items():
        assert np.allclose(params[name], value), name
    for name in ("source_x_arcsec", "source_y_arcsec"):
        assert kstest(params[name], "uniform", (-0.35, 0.7)).pvalue > 1e-3, name
    assert kstest(np.log10(params["exposure_s"]), "uniform", (3, 0.5)).pvalue > 1e-3
    assert (params["n_subhalos"] == np.where(params["label"] == 1, 25, 0)).all()


def test_diverse_priors() -> None:
    params = sample_params(3000, "mixed", 7)
    assert (np.bincount(params["label"]) == 1000).all()
    offset = np.hypot(params["source_x_arcsec"], params["source_y_arcsec"]) / params["einstein_radius_arcsec"]
    shear = np.hypot(params["shear_1"], params["shear_2"])
    axion = params[params["label"] == 2]
    uniform = {
        "einstein radius": (params["einstein_radius_arcsec"], 0.5, 2),
        "lens axis ratio": (params["lens_axis_ratio"], 0.5, 1),
        "shear": (shear, 0, 0.1),
        "offset": (offset, 0, 0.7),
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
            assert np.abs(np.exp(2j * np.pi * (turns[one] - turns[other])).mean()) < 4 / np.sqrt(3000), (one, other)


def test_subhalo_numbers_are_poisson() -> None:
    number = sample_params(3000, "cdm", 9)["n_subhalos"]
    assert abs(number.mean() - 25) < 4 * 5 / np.sqrt(3000)
    assert abs(number.var() - 25) < 4 * 25 * np.sqrt(2 / 3000)
    other = sample_params(30, "mixed", 9)
    assert (other["n_subhalos"][other["label"] != 1] == 0).all()


@pytest.mark.parametrize("slope", [-0.9, -1.0, -1.9])
def test_subhalo_masses_follow_the_slope(slope: float) -> None:
    params = sample_params(3000, "cdm", 10, diverse(subhalo_slope=slope))
    there = np.arange(population.MAX_SUBHALOS) < params["n_subhalos"][:, None]
    assert (params["subhalo_mass_msun"][~there] == 0).all()
    masses = params["subhalo_mass_msun"][there]
    assert masses.min() >= 1e6 and masses.max() <= 1e10
    counts, edges = np.histogram(np.log10(masses), np.linspace(6, 10, 9))
    fitted = np.polyfit((edges[1:] + edges[:-1]) / 2, np.log10(counts), 1, w=np.sqrt(counts))[0]
    assert fitted == pytest.approx(slope + 1, abs=0.02)  # dN/dlogM = M dN/dM


@pytest.mark.parametrize("survey", [diverse(), model_i()], ids=["diverse", "model_i"])
def test_subhaloes_fill_the_annulus(survey: Survey) -> None:
    params = sample_params(1000, "cdm", 14, survey)
    there = np.arange(population.MAX_SUBHALOS) < params["n_subhalos"][:, None]
    place = (params["subhalo_x_arcsec"] + 1j * params["subhalo_y_arcsec"])[there]
    assert kstest(np.abs(place), "uniform", (0.25, 1.75)).pvalue > 1e-3
    assert kstest(np.angle(place) % (2 * np.pi), "uniform", (0, 2 * np.pi)).pvalue > 1e-3


def test_axion_string() -> None:
    params = sample_params(50, "axion", 15)
    half = 0.03 * 1e-22 / params["axion_mass_ev"]
    assert params["string_half_length_arcsec"] == pytest.approx(half)
    assert half.min() >= 0.03 and half.max() <= 3
    x, y, mass = point_masses(params)
    assert x.shape == y.shape == mass.shape == (50, 100)
    assert mass.sum(axis=1) == pytest.approx(np.full(50, 3e10))
    assert (mass == mass[:, :1]).all()
    assert x.mean(axis=1) == pytest.approx(np.zeros(50), abs=1e-12) and y.mean(axis=1) == pytest.approx(np.zeros(50), abs=1e-12)
    end = half * np.exp(1j * params["string_angle_rad"])
    assert x + 1j * y == pytest.approx(np.linspace(-1, 1, 100) * end[:, None])


def test_rows_of_other_classes_have_no_axions() -> None:
    params = sample_params(30)
    for name in ("axion_mass_ev", "string_angle_rad", "string_half_length_arcsec", "string_mass_msun"):
        assert (params[name][params["label"] != 2] == 0).all(), name
    assert all(values.shape == (10, 0) for values in point_masses(params[params["label"] == 0]))


# ---- the eight symmetries ---------------------------------------------------------------------------------------------------

POINTS = (("source_x_arcsec", "source_y_arcsec"), ("subhalo_x_arcsec", "subhalo_y_arcsec"))
ANGLES = ("lens_angle_rad", "source_angle_rad", "string_angle_rad")


def turned(params: np.ndarray) -> np.ndarray:
    """The truth of np.rot90(image): the column takes the place of the row, (x, y) goes to (y, -x)."""
    new = params.copy()
    for x, y in POINTS:
        new[x], new[y] = params[y], -params[x]
    for name in ANGLES:
        new[name] = params[name] - np.pi / 2
    new["shear_1"], new["shear_2"] = -params["shear_1"], -params["shear_2"]
    return new


def mirrored(params: np.ndarray) -> np.ndarray:
    """The truth of np.fliplr(image): x goes to -x."""
    new = params.copy()
    for x, _ in POINTS:
        new[x] = -params[x]
    for name in ANGLES:
        new[name] = np.pi - params[name]
    new["shear_2"] = -params["shear_2"]
    return new


@pytest.mark.parametrize("survey", [diverse(64), diverse(65, supersampling=1)], ids=["64", "65"])
def test_a_turned_or_mirrored_truth_gives_the_turned_or_mirrored_image(survey: Survey) -> None:
    params = sample_params(6, "mixed", 16, survey)
    images = render(params, survey).numpy()
    peak = images.max(axis=(1, 2))
    for flip in (False, True):
        for turns in range(4):
            truth, expected = (mirrored(params), images[:, :, ::-1]) if flip else (params, images)
            for _ in range(turns):
                truth = turned(truth)
            difference = np.abs(render(truth, survey).numpy() - np.rot90(expected, turns, axes=(1, 2)))
            assert (difference.max(axis=(1, 2)) < 1e-3 * peak).all(), (flip, turns)
            assert (difference.mean(axis=(1, 2)) < 1e-6 * peak).all(), (flip, turns)


# ---- seeds ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
@pytest.mark.parametrize("survey", [diverse(), model_i()], ids=["diverse", "model_i"])
def test_a_truth_does_not_depend_on_how_many_are_drawn(survey: Survey, kind: str) -> None:
    few, many = sample_params(5, kind, 17, survey), sample_params(50, kind, 17, survey)
    assert few.tobytes() == many[:5].tobytes()
    assert few.tobytes() != sample_params(5, kind, 18, survey).tobytes()
    if kind != "mixed":
        assert (many["label"] == KINDS.index(kind)).all()


@pytest.mark.parametrize("survey", [diverse(16), model_i(16)], ids=["diverse", "model_i"])
def test_the_noise_of_an_image_does_not_depend_on_its_batch(survey: Survey) -> None:
    params = sample_params(6, "mixed", 19, survey)
    clean = render(params, survey)
    noisy = observe(clean, params, survey, seed=19)
    assert noisy.dtype == np.float32
    assert (observe(clean[2:4], params[2:4], survey, seed=19, first=2) == noisy[2:4]).all()
    assert (observe(clean[2:4], params[2:4], survey, seed=19, first=3) != noisy[2:4]).any(axis=(1, 2)).all()
    assert (observe(clean, params, survey, seed=20) != noisy).any(axis=(1, 2)).all()


def test_chunks_give_the_same_pixels() -> None:
    """Up to rounding: a batch of one takes another path through torch, and the last bit of the light decides a count in 10^5."""
    survey = diverse(32)
    params = sample_params(14, "mixed", 21, survey)
    clean = render(params, survey)
    for chunk in (1, 5):
        assert (render(params, survey, chunk=chunk) - clean).abs().max() < 1e-6 * clean.max()
    whole = np.concatenate(list(simulate(params, survey, 21)))
    for chunk in (4, 9):
        parts = list(simulate(params, survey, 21, chunk=chunk))
        assert [len(part) for part in parts] == [min(chunk, 14 - start) for start in range(0, 14, chunk)]
        assert (np.concatenate(parts) != whole).mean() < 1e-3
    assert (np.concatenate(list(simulate(params, survey, 22))) != whole).mean() > 0.99


# ---- noise ------------------------------------------------------------------------------------------------------------------


def flat(level: float, survey: Survey, n: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    """Images of one brightness, and the truth that holds their exposure times."""
    return torch.full((n, 32, 32), level), sample_params(n, "no_sub", 23, survey)


@pytest.mark.parametrize(("double", "light_weight"), [(False, 1), (True, 2)], ids=["textbook", "double"])
@pytest.mark.parametrize("level", [2.0, 60.0])
def test_noise_has_the_right_mean_and_variance(level: float, double: bool, light_weight: int) -> None:
    """background^2 + light / exposure; the double Poisson draw counts the light's noise twice, and the background's Poisson noise is 0."""
    survey = diverse(32, double_poisson=double, background_rms_cps=0.05)
    clean, params = flat(level, survey)
    sigma = np.sqrt(0.05**2 + light_weight * level / params["exposure_s"])[:, None, None]
    residual = (observe(clean, params, survey, seed=24) - level) / sigma
    assert abs(residual.mean()) < 4 / np.sqrt(residual.size)
    assert abs(residual.var() - 1) < 4 * np.sqrt(2 / residual.size)
    by_image = residual.mean(axis=(1, 2)) * 32  # each image has its own exposure time
    assert kstest(by_image, "norm").pvalue > 1e-3
    assert abs((residual[:, :, 1:] * residual[:, :, :-1]).mean()) < 4 / np.sqrt(residual.size)


def test_dark_sky_is_background_alone() -> None:
    survey = diverse(32)
    clean, params = flat(0.0, survey)
    noisy = observe(clean, params, survey, seed=25)
    assert kstest(noisy.ravel() / 0.25, "norm").pvalue > 1e-3


def test_double_poisson_gives_counts() -> None:
    survey = replace(model_i(32), background_rms_cps=0.25)
    for level in (0.0, 3.0):
        clean, params = flat(level, survey, n=5)
        noisy = observe(clean, params, survey, seed=26)
        counts = noisy * params["exposure_s"][:, None, None]
        assert noisy.min() >= 0
        assert np.abs(counts - counts.round()).max() < 0.01
        assert counts.max() > 100
    assert (observe(*flat(0.0, survey, n=5), survey, seed=26) == 0).mean() == pytest.approx(0.5, abs=0.03)  # clipped below zero


# ---- what the caches and the shipped model are built on ---------------------------------------------------------------------

PINNED = {
    "einstein_radius_arcsec": [1.267732, 1.942486, 0.7218831],
    "source_angle_rad": [0.08657951, 2.440022, 2.705802],
    "n_subhalos": [0, 27, 0],
    "subhalo_mass": 4.15149567e+10,
    "clean mean": [1.822559, 0.1930032, 0.3018437],
    "clean std": [6.893015, 1.95166, 2.861677],
    "noisy mean": [1.824139, 0.1948608, 0.2965971],
    "noisy std": [6.897471, 1.965714, 2.870157],
    "clean pixels": [
        4.716654e-06, 3.255589, 7.111294, 8.444603e-09, 3.104988e-09, 1.34464e-08,
        1.117433e-05, 1.235044e-12, 4.504186e-19, 0.001597884, 4.214334, 1.242848e-14,
    ],
    "noisy pixels": [0.3160278, -0.1513282, -0.1793161],
}



def test_pinned() -> None:
    """If this changes, raise simulate.VERSION, and train the shipped model anew: it has learnt these pixels."""
    survey = diverse(64)
    params = sample_params(3, "mixed", 1, survey)
    clean = render(params, survey).numpy()
    noisy = observe(torch.from_numpy(clean), params, survey, seed=1)
    assert simulate.VERSION == 1
    assert params["einstein_radius_arcsec"] == pytest.approx(PINNED["einstein_radius_arcsec"], rel=1e-6)
    assert params["source_angle_rad"] == pytest.approx(PINNED["source_angle_rad"], rel=1e-6)
    assert params["n_subhalos"].tolist() == PINNED["n_subhalos"]
    assert params["subhalo_mass_msun"].sum() == pytest.approx(PINNED["subhalo_mass"], rel=1e-6)
    for name, images in (("clean", clean), ("noisy", noisy)):
        assert images.mean(axis=(1, 2)) == pytest.approx(PINNED[f"{name} mean"], rel=1e-4), name
        assert images.std(axis=(1, 2)) == pytest.approx(PINNED[f"{name} std"], rel=1e-4), name
    assert clean[:, ::21, 31].ravel() == pytest.approx(PINNED["clean pixels"], rel=1e-3, abs=1e-6)
    assert noisy[:, 5, 7] == pytest.approx(PINNED["noisy pixels"], rel=1e-3, abs=1e-3)


# ---- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"pixels": 7}, {"pixel_arcsec": 0.0}, {"pixel_arcsec": -0.1}, {"supersampling": 0}])
def test_impossible_surveys_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"'diverse'.*pixels must be 8 or more"):
        replace(diverse(64), **change)


def test_unknown_fields_kinds_and_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="seeing"):
        diverse(64, seeing=1.0)
    with pytest.raises(ValueError, match=r"kind must be one of .*'cdm'.*not 'wdm'"):
        sample_params(3, "wdm")
    with pytest.raises(ValueError, match="negative, got -1"):
        sample_params(-1)
    assert len(sample_params(0)) == 0 and render(sample_params(0), diverse(16)).shape == (0, 16, 16)

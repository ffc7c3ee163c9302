"""The simulator against its own promises: strings, symmetries, seeds and noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import VERSION, observe, point_masses, render, simulate
from lensdiff.lensing.survey import Survey, diverse, model_i


def test_axion_string() -> None:
    params = sample_params(50, "axion", 15)
    half = 0.03 * 1e-22 / params["axion_mass_ev"]
    assert params["string_half_length_arcsec"] == pytest.approx(half)
    assert half.min() >= 0.03 and half.max() <= 3
    x, y, mass = point_masses(params)
    assert x.shape == y.shape == mass.shape == (50, 100)
    assert mass.sum(axis=1) == pytest.approx(np.full(50, 3e10))
    assert (mass == mass[:, :1]).all()
    for values in (x, y):
        assert values.mean(axis=1) == pytest.approx(np.zeros(50), abs=1e-12)
    end = half * np.exp(1j * params["string_angle_rad"])
    assert x + 1j * y == pytest.approx(np.linspace(-1, 1, 100) * end[:, None])


# ---- the eight symmetries ------------------------------------------------------------------------

POINTS = (("source_x_arcsec", "source_y_arcsec"), ("subhalo_x_arcsec", "subhalo_y_arcsec"))
ANGLES = ("lens_angle_rad", "source_angle_rad", "string_angle_rad")


def turned(params: np.ndarray) -> np.ndarray:
    """The truth of np.rot90(image): the column becomes the row, (x, y) goes to (y, -x)."""
    new = params.copy()
    for x, y in POINTS:
        new[x] = params[y]
        new[y] = -params[x]
    for name in ANGLES:
        new[name] = params[name] - np.pi / 2
    new["shear_1"] = -params["shear_1"]
    new["shear_2"] = -params["shear_2"]
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
            expected = np.rot90(expected, turns, axes=(1, 2))
            difference = np.abs(render(truth, survey).numpy() - expected)
            assert (difference.max(axis=(1, 2)) < 1e-3 * peak).all(), (flip, turns)
            assert (difference.mean(axis=(1, 2)) < 1e-6 * peak).all(), (flip, turns)


# ---- seeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("survey", [diverse(16), model_i(16)], ids=["diverse", "model_i"])
def test_the_noise_of_an_image_does_not_depend_on_its_batch(survey: Survey) -> None:
    params = sample_params(6, "mixed", 19, survey)
    clean = render(params, survey)
    noisy = observe(clean, params, survey, seed=19)
    assert noisy.dtype == np.float32
    assert (observe(clean[2:4], params[2:4], survey, seed=19, first=2) == noisy[2:4]).all()
    elsewhere = observe(clean[2:4], params[2:4], survey, seed=19, first=3)
    assert (elsewhere != noisy[2:4]).any(axis=(1, 2)).all()
    assert (observe(clean, params, survey, seed=20) != noisy).any(axis=(1, 2)).all()


def test_chunks_give_the_same_pixels() -> None:
    """Up to rounding, of which the last bit decides one count in 10^5."""
    survey = diverse(32)
    params = sample_params(14, "mixed", 21, survey)
    clean = render(params, survey)
    for chunk in (1, 5):
        assert (render(params, survey, chunk=chunk) - clean).abs().max() < 1e-6 * clean.max()
    whole = np.concatenate(list(simulate(params, survey, 21)))
    for chunk in (4, 9):
        parts = list(simulate(params, survey, 21, chunk=chunk))
        expected = [min(chunk, 14 - start) for start in range(0, 14, chunk)]
        assert [len(part) for part in parts] == expected
        assert (np.concatenate(parts) != whole).mean() < 1e-3
    assert (np.concatenate(list(simulate(params, survey, 22))) != whole).mean() > 0.99


# ---- noise ---------------------------------------------------------------------------------------


def flat(level: float, survey: Survey, n: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    """Images of one brightness, and the truth that holds their exposure times."""
    return torch.full((n, 32, 32), level), sample_params(n, "no_sub", 23, survey)


@pytest.mark.parametrize(
    ("double", "light_weight"), [(False, 1), (True, 2)], ids=["textbook", "double"]
)
@pytest.mark.parametrize("level", [2.0, 60.0])
def test_noise_has_the_right_mean_and_variance(
    level: float, double: bool, light_weight: int
) -> None:
    """The variance is background^2 + light / exposure; DeepLenseSim counts the light's twice."""
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
    dark, params = flat(0.0, survey, n=5)
    zero = observe(dark, params, survey, seed=26) == 0
    assert zero.mean() == pytest.approx(0.5, abs=0.03)  # clipped below zero


# ---- what the caches and the shipped model are built on ------------------------------------------

PINNED = {
    "einstein_radius_arcsec": [1.267732, 1.942486, 0.7218831],
    "source_angle_rad": [0.08657951, 2.440022, 2.705802],
    "n_subhalos": [0, 27, 0],
    "subhalo_mass": 4.15149567e10,
    "clean mean": [1.822559, 0.1930032, 0.3018437],
    "clean std": [6.893015, 1.95166, 2.861677],
    "noisy mean": [1.824139, 0.1948608, 0.2965971],
    "noisy std": [6.897471, 1.965714, 2.870157],
    "clean pixels": [
        4.716654e-06,
        3.255589,
        7.111294,
        8.444603e-09,
        3.104988e-09,
        1.34464e-08,
        1.117433e-05,
        1.235044e-12,
        4.504186e-19,
        0.001597884,
        4.214334,
        1.242848e-14,
    ],
    "noisy pixels": [0.3160278, -0.1513282, -0.1793161],
}


def test_pinned() -> None:
    """If this changes, raise simulate.VERSION and train the shipped models on the new pixels."""
    survey = diverse(64)
    params = sample_params(3, "mixed", 1, survey)
    clean = render(params, survey).numpy()
    noisy = observe(torch.from_numpy(clean), params, survey, seed=1)
    assert VERSION == 1
    for name in ("einstein_radius_arcsec", "source_angle_rad"):
        assert params[name] == pytest.approx(PINNED[name], rel=1e-6), name
    assert params["n_subhalos"].tolist() == PINNED["n_subhalos"]
    assert params["subhalo_mass_msun"].sum() == pytest.approx(PINNED["subhalo_mass"], rel=1e-6)
    for name, images in (("clean", clean), ("noisy", noisy)):
        assert images.mean(axis=(1, 2)) == pytest.approx(PINNED[f"{name} mean"], rel=1e-4), name
        assert images.std(axis=(1, 2)) == pytest.approx(PINNED[f"{name} std"], rel=1e-4), name
    assert clean[:, ::21, 31].ravel() == pytest.approx(PINNED["clean pixels"], rel=1e-3, abs=1e-6)
    assert noisy[:, 5, 7] == pytest.approx(PINNED["noisy pixels"], rel=1e-3, abs=1e-3)

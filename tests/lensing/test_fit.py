"""Lens modelling: known lenses are found again from their images, and what is no lens is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from lensdiff.errors import MetricError
from lensdiff.lensing import fit, parameters, population, simulate
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import min_max

SURVEY = diverse(48)
STEP = 1e-6  # of the slopes that scipy gets


def true_parameters(truth: np.ndarray) -> np.ndarray:
    """The parameters (n, 10) that a fit of the lenses `truth` (n,), dtype PARAMS, should find."""
    e1, e2 = parameters.ellipticity(truth["source_axis_ratio"], truth["source_angle_rad"])
    ln_size = np.log(truth["source_radius_arcsec"])
    return np.column_stack([parameters.of(truth), ln_size, e1, e2])


@pytest.fixture(scope="module")
def bare():
    truth = population.sample_params(12, "no_sub", seed=5, survey=SURVEY)
    light = simulate.render(truth, SURVEY)
    return truth, light


def test_the_light_of_the_model_is_the_simulations(bare):
    truth, light = bare
    wanted = light.flatten(1).numpy()
    shape = fit.light_of(true_parameters(truth), SURVEY)
    model = truth["source_amplitude_cps"][:, None] * shape
    assert (np.abs(model - wanted).max(1) < 1e-3 * wanted.max(1)).all()
    both, left = fit.scaled(model, 3 * model + 0.5)
    np.testing.assert_allclose(both, np.tile([3, 0.5], (len(truth), 1)), rtol=1e-6)
    np.testing.assert_allclose(left, 0, atol=1e-6 * wanted.max())


def test_parameters_within_their_limits_come_back_and_others_are_brought_within(bare):
    p = torch.as_tensor(true_parameters(bare[0]))
    torch.testing.assert_close(fit.bounded(fit.freed(p, SURVEY), SURVEY), p)
    free = 100 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).double()
    for beyond in (fit.bounded(free, SURVEY), fit.bounded(fit.freed(free, SURVEY), SURVEY)):
        assert (beyond[:, 0] > 0.1).all() and (beyond[:, 0] < 3.75).all()
        assert (beyond[:, [3, 4]].abs() < 3.75).all()
        assert (beyond[:, 7] > np.log(0.02)).all() and (beyond[:, 7] < np.log(1.875)).all()
        for first, most in ((1, 0.45), (5, 0.25), (8, 0.6)):
            assert (beyond[:, first : first + 2].norm(dim=1) < most).all()


def test_a_lens_without_noise_is_found_exactly(bare):
    truth, light = bare
    found = fit.fit(min_max(light.numpy())[:, None], SURVEY)
    good = found.rms < 1e-3
    assert good.sum() >= 11  # one may end in another minimum, and its rms shows it
    wanted = true_parameters(truth)
    np.testing.assert_allclose(found.values[good], wanted[good, :7], atol=4e-3)
    np.testing.assert_allclose(found.source[good, 0], wanted[good, 7], atol=0.02)


def test_a_noisy_lens_is_found_within_its_noise(bare):
    truth, light = bare
    found = fit.fit(min_max(simulate.observe(light, truth, SURVEY, seed=1))[:, None], SURVEY)
    error = np.abs(found.values - parameters.of(truth))
    assert np.median(error[:, 0]) < 0.005
    assert np.median(error[:, 3:5]) < 0.02
    assert np.median(found.rms) < 0.02


def test_the_fit_does_not_move_from_the_truth(bare):
    truth, light = bare
    start = true_parameters(truth)
    found = fit.fit(min_max(light.numpy())[:, None], SURVEY, rounds=2, start=start)
    np.testing.assert_allclose(found.values, start[:, :7], atol=2e-3)
    assert found.rms.max() < 1e-3


def test_brightness_and_sky_do_not_matter(bare):
    light = bare[1]
    image = min_max(light.numpy()[:4])[:, None]
    one, other = (fit.fit(x, SURVEY, rounds=6) for x in (image, 0.1 + 0.5 * image))
    np.testing.assert_allclose(one.values, other.values, atol=2e-3)
    np.testing.assert_allclose(one.rms / 2, other.rms, atol=1e-3)


def test_a_mass_inside_the_lens_makes_the_measured_ring_larger():
    short = diverse(48, axion_mass_ev=(1e-22, 1e-22))
    truth = population.sample_params(8, "axion", seed=2, survey=short)
    found = fit.fit(min_max(simulate.render(truth, SURVEY).numpy())[:, None], SURVEY)
    string = float(population.einstein_radius_arcsec(SURVEY.string_mass_msun, SURVEY))
    lens = truth["einstein_radius_arcsec"]
    # where theta = lens + string^2 / theta: isothermal, and a point inside
    expected = (lens + np.sqrt(lens**2 + 4 * string**2)) / 2
    assert np.median(expected - lens) > 0.03
    error = np.abs(found.values[:, 0] - expected)
    assert np.median(error) < 0.5 * np.median(np.abs(found.values[:, 0] - lens))


def test_what_is_no_lens_is_left_over():
    squares = np.zeros((2, 1, 48, 48), np.float32)
    squares[0, 0, 4:12, 4:44] = 1.0
    squares[1, 0, 30:40, 6:10] = 1.0
    assert (fit.fit(squares, SURVEY, rounds=8).rms > 0.05).all()


def test_the_first_guess_reads_ring_and_source_off_the_ridge():
    truth = population.sample_params(40, "no_sub", seed=7, survey=SURVEY)
    guess = fit.first_guess(min_max(simulate.render(truth, SURVEY).numpy())[:, None], SURVEY)
    wanted = parameters.of(truth)
    for column, least in ((0, 0.95), (3, 0.85), (4, 0.85)):
        assert np.corrcoef(guess[:, column], wanted[:, column])[0, 1] > least


def test_images_that_no_survey_took_are_refused():
    for wrong in (torch.rand(2, 1, 32, 32).numpy(), np.zeros((0, 1, 48, 48))):
        with pytest.raises(MetricError, match=r"needs those of the survey, \(n, 1, 48, 48\)"):
            fit.fit(wrong, SURVEY)
    bytes_ = np.random.default_rng(0).integers(0, 255, (1, 1, 48, 48), np.uint8)
    for wrong in (np.full((1, 1, 48, 48), np.nan), bytes_):
        with pytest.raises(MetricError, match=r"a fit needs \[0, 1\]"):
            fit.fit(wrong, SURVEY)
    for start in (None, np.ones((1, 10))):
        with pytest.raises(MetricError, match="Image 0 is constant"):
            fit.fit(np.full((1, 1, 48, 48), 0.5), SURVEY, start=start)


def test_scipy_ends_where_the_fit_does():
    # no lens of the model: what is left has its smallest sum somewhere else
    truth = population.sample_params(6, "cdm", seed=4, survey=SURVEY)
    seen = simulate.observe(simulate.render(truth, SURVEY), truth, SURVEY, seed=2)
    images = min_max(seen)[:, None]
    found = fit.fit(images, SURVEY)
    starts = fit.freed(torch.as_tensor(fit.first_guess(images, SURVEY)), SURVEY).numpy()
    agreed = 0
    for k, (image, start) in enumerate(zip(images, starts, strict=True)):
        target = image.reshape(1, -1).astype(float)

        def left(free, target=target):
            lens = fit.bounded(torch.as_tensor(free), SURVEY).numpy()
            return fit.scaled(fit.light_of(lens, SURVEY), np.repeat(target, len(free), 0))[1]

        def residual(free, left=left):
            return left(free[None])[0]

        def slopes(free, left=left):
            return (left(free + STEP * np.eye(10)) - left(free[None])).T / STEP

        theirs = least_squares(residual, start, slopes, method="lm", x_scale="jac", max_nfev=100)
        rms = np.sqrt(2 * theirs.cost / target.size)
        assert found.rms[k] < rms + 1e-4
        if abs(found.rms[k] - rms) < 1e-6:
            wanted = fit.bounded(torch.as_tensor(theirs.x), SURVEY).numpy()
            np.testing.assert_allclose(found.values[k, :5], wanted[:5], atol=1e-3)
            agreed += 1
    assert agreed >= 5  # one may end in another minimum


def test_what_is_left_is_that_of_the_parameters_found(bare):
    images = min_max(bare[1][:5].numpy())[:, None]
    found = fit.fit(images, SURVEY, rounds=2, chunk=2)  # the last part holds one image
    light = fit.light_of(np.hstack([found.values, found.source]), SURVEY)
    _, left = fit.scaled(light, images.reshape(5, -1).astype(float))
    np.testing.assert_allclose(found.rms, np.sqrt((left**2).mean(1)), rtol=1e-6)

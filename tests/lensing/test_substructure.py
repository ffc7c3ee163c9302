"""The limit that noise sets to what an image shows of its lens's substructure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import observe, render
from lensdiff.lensing.substructure import (
    FITTED,
    best_without,
    noise_variance,
    signal_to_noise,
    twin,
    without_substructure,
)
from lensdiff.lensing.survey import diverse, model_i


def test_a_lens_without_substructure_is_the_one_of_that_kind():
    for kind in ("cdm", "axion"):
        bare = without_substructure(sample_params(5, kind, 1, model_i()))
        assert (bare == sample_params(5, "no_sub", 1, model_i())).all()


@pytest.mark.parametrize("double", [False, True])
def test_the_variance_is_that_of_observed_images(double):
    survey = diverse(32, double_poisson=double, background_rms_cps=0.05)
    params = sample_params(40, "no_sub", 23, survey)
    light = torch.full((40, 32, 32), 2.0)
    seen = observe(light, params, survey, seed=24)
    ratio = (seen - 2.0) ** 2 / noise_variance(light, params, survey).numpy()
    assert ratio.mean() == pytest.approx(1, abs=4 * (2 / ratio.size) ** 0.5)


def test_the_signal_to_noise_ratio_is_the_matched_filters():
    survey = diverse(48)
    params = sample_params(6, "mixed", 0, survey)
    found = signal_to_noise(params, survey)
    assert (found[params["label"] == 0] == 0).all() and (found[params["label"] > 0] > 1).all()
    bare = render(without_substructure(params), survey)
    template = (render(params, survey).double() - bare.double())[1].numpy()
    variance = noise_variance(bare.double(), params, survey)[1].numpy()
    mean = bare[1].double().numpy()
    answers = []  # of the filter to noise alone: mean 0, standard deviation equal to the ratio
    for seed in range(400):
        noise = observe(bare[1:2], params[1:2], survey, seed)[0] - mean
        answers.append((template * noise / variance).sum())
    assert np.std(answers) == pytest.approx(found[1], rel=0.12)


def test_what_a_fit_explains_is_no_signal():
    survey = diverse(48)
    params = sample_params(9, "mixed", 0, survey)
    known = signal_to_noise(params, survey)
    fitted = signal_to_noise(params, survey, FITTED)
    assert (fitted <= known + 1e-9).all() and (fitted[params["label"] > 0] > 0).all()
    round_lenses = {"shear": (0.0, 0.0), "lens_axis_ratio": (1.0, 1.0)}
    string = {"axion_mass_ev": (1e-22, 1e-22), "string_mass_msun": 1e9}
    short = sample_params(4, "axion", 0, replace(survey, **string, **round_lenses))
    known = signal_to_noise(short, survey)
    fitted = signal_to_noise(short, survey, FITTED)
    # a point at the centre makes the ring larger, which is nearly all that it does
    assert (fitted < 0.5 * known).all()


def test_the_best_lens_without_substructure_is_nearer_than_the_bare_one():
    survey = diverse(48)
    params = sample_params(6, "cdm", 0, survey)
    best = best_without(params, survey)
    assert (best["label"] == 0).all()
    light = render(params, survey)

    def misfit(other: np.ndarray) -> np.ndarray:
        near = render(other, survey)
        sigma = noise_variance(near, params, survey).sqrt()
        return ((light - near) / sigma).flatten(1).norm(dim=1).numpy()

    bare = misfit(without_substructure(params))
    assert (misfit(best) <= bare).all() and np.median(misfit(best) / bare) < 0.7
    none = sample_params(4, "no_sub", 1, survey)
    assert (best_without(none, survey) == none).all()


def test_the_ratio_does_not_depend_on_the_chunks():
    survey = diverse(32)
    params = sample_params(9, "mixed", 0, survey)
    whole = signal_to_noise(params, survey, FITTED)
    np.testing.assert_allclose(signal_to_noise(params, survey, FITTED, chunk=2), whole, rtol=1e-4)


def test_a_twin_shares_the_noise_where_the_light_is_the_same():
    survey = diverse(32)
    params = sample_params(4, "no_sub", 0, survey)
    seen = observe(render(params, survey), params, survey, seed=5, first=10)
    np.testing.assert_array_equal(twin(params, survey, 5, 10), seen)
    full = sample_params(4, "cdm", 0, survey)
    bare = without_substructure(full)
    alone = observe(render(bare, survey), bare, survey, seed=5, first=10)
    np.testing.assert_array_equal(twin(full, survey, 5, 10), alone)
    whole = observe(render(full, survey), full, survey, seed=5, first=10)
    assert not np.array_equal(whole, alone)

"""Lens fits of simulated and generated lenses: what is stored, and that a fit explains a lens."""

import json

import numpy as np
import pytest

from lensdiff.lensing.population import sample_params
from lensdiff.lensing.simulate import render
from lensdiff.lensing.survey import diverse
from lensdiff.lensing.telescope import min_max
from lensdiff.model import load
from lensdiff.storage import shipped, studies_folder
from lensdiff.studies import physics


def test_a_lens_is_explained_and_noise_in_its_place_is_not():
    survey = diverse(150)
    lens = min_max(render(sample_params(1, "no_sub", 0, survey), survey).numpy())[:, None]
    blobs = np.random.default_rng(0).random((1, 1, 10, 10)).repeat(15, 2).repeat(15, 3)
    found = physics.fitted(np.concatenate([lens, min_max(blobs)]))
    assert found.rms[0] < 0.02 < 0.1 < found.rms[1]


@pytest.mark.parametrize(("side", "kept", "rays"), [(150, 50, 3), (64, 32, 4), (35, 35, 2)])
def test_whole_blocks_are_averaged_before_a_fit(side, kept, rays):
    small, survey = physics.binned(np.random.default_rng(0).random((2, 1, side, side)))
    assert small.shape == (2, 1, kept, kept)
    assert survey == diverse(kept, supersampling=rays)


@pytest.mark.parametrize("side", [150, 64])
def test_the_fit_of_a_lens_without_noise_leaves_nothing(side):
    """It has the rays of the image that was binned: a coarser grid of them leaves 0.001 peaks."""
    survey = diverse(side)
    truth = sample_params(8, "no_sub", 1, survey)
    light = min_max(render(truth, survey).numpy())[:, None]
    assert np.median(physics.fitted(light, rounds=25).rms) < 1e-5


def test_the_stored_fits_are_of_the_shipped_weights_and_rank_the_models():
    table = json.loads((studies_folder() / physics.FILE).read_text())
    rows = {row["name"]: row for row in table["rows"]}
    for name in ("lens150", "lens150-long"):
        assert rows[name]["model_sha256"] == load(shipped(name)).spec["sha256"]
        assert len(rows[name]["rms"]) == table["images"]
    medians = [np.median(rows[name]["rms"]) for name in (physics.TEST, "lens150-long", "lens150")]
    assert medians == sorted(medians)

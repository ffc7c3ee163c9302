"""Recipes: their budgets and widths, how they are written to disk, and the networks they name."""

from __future__ import annotations

import json

import pytest
import torch

from lensdiff.errors import ParameterError
from lensdiff.networks.unet import UNet
from lensdiff.training import recipes


def test_budgets_replace_each_other():
    assert recipes.LENS64.scaled(minutes=3).train.steps is None
    assert recipes.TINY.scaled(steps=5).train.minutes is None
    assert recipes.TINY.scaled(lr=1e-3).train.minutes == recipes.TINY.train.minutes
    with pytest.raises(ParameterError, match="must be positive"):
        recipes.TINY.scaled(steps=0)


def test_a_classifiers_recipe_is_scaled_and_names_its_images():
    shorter = recipes.LENSNET.scaled(steps=7, frozen_steps=0)
    assert (shorter.train.steps, shorter.train.frozen_steps) == (7, 0)
    assert shorter.train.lr == recipes.LENSNET.train.lr
    assert shorter.survey == recipes.LENSNET.survey
    with pytest.raises(ParameterError, match="steps must be 1 or more"):
        recipes.LENSNET.scaled(steps=0)


def test_a_recipe_is_widened_in_proportion():
    assert recipes.LENS150.widened(96).network["channels"] == (96, 192, 288)
    assert recipes.LENS150.widened(16).network["channels"] == (16, 32, 48)
    assert recipes.LENS150.widened(128).train == recipes.LENS150.train
    with pytest.raises(ValueError, match="16 or more"):
        recipes.LENS150.widened(8)


def test_the_training_seed_alone_decides_the_first_weights():
    torch.manual_seed(5)
    first = recipes.TINY.denoiser().net.state_dict()
    again = recipes.TINY.denoiser().net.state_dict()
    other = recipes.TINY.scaled(seed=1).denoiser().net.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert not torch.equal(other["stem.weight"], first["stem.weight"])


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_as_json_leaves_standard_fields_out(name):
    recipe = recipes.RECIPES[name]
    written = json.loads(json.dumps(recipe.as_dict()))
    assert written["name"] == name
    assert written.get("pixels", 64) == recipe.pixels
    assert written.get("noiseless", False) == recipe.noiseless
    assert ("pixels" in written) == (recipe.pixels != 64)
    assert ("noiseless" in written) == recipe.noiseless


@pytest.mark.parametrize("name", recipes.NETWORKS)
def test_published_networks_answer_at_the_size_of_their_images(name):
    with torch.device("meta"):
        net = UNet(**recipes.NETWORKS[name])
        shape = (2, 1, 128, 128) if name == "five_levels" else (2, 1, 64, 64)
        assert net(torch.empty(shape), torch.empty(2)).shape == shape
    assert net.multiple == (16 if name == "five_levels" else 8)

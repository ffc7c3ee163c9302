"""Recipes: their budgets and widths, how they are written to disk, and the networks they name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lensdiff.errors import DataError, ParameterError
from lensdiff.networks.classifier import LensClassifier
from lensdiff.networks.unet import UNet
from lensdiff.training import recipes
from lensdiff.training.recipe import NOISE_LEVEL, images_of


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


def test_a_recipe_of_noiseless_light_learns_files_down_to_their_noise():
    found = recipes.LENS150.as_observed()
    assert found.sampling.low == NOISE_LEVEL == recipes.LENS64.sampling.low
    assert not found.noiseless and found.train == recipes.LENS150.train
    assert recipes.LENS64.as_observed() == recipes.LENS64
    latent = recipes.every()["latent150"]
    assert latent.noiseless and latent.as_observed().sampling == latent.sampling
    assert not latent.as_observed().noiseless


def test_a_recipe_is_widened_in_proportion():
    assert recipes.LENS150.widened(96).network["channels"] == (96, 192, 288)
    assert recipes.LENS150.widened(16).network["channels"] == (16, 32, 48)
    assert recipes.LENS150.widened(128).train == recipes.LENS150.train
    with pytest.raises(ValueError, match="16 or more"):
        recipes.LENS150.widened(8)
    with pytest.raises(ParameterError, match="width must be a multiple of 16, got 40"):
        recipes.LENS150.widened(40)
    transformer = replace(recipes.TINY, name="dit", kind="DiT", network={"width": 64})
    with pytest.raises(ParameterError, match="dit names no channels to be widened"):
        transformer.widened(32)


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


def test_later_fields_are_written_where_they_say_something():
    later = {"data", "autoencoder", "elements"}
    assert not later & set(recipes.LENS64.as_dict())
    assert "learns" not in recipes.LENS64.as_dict()["train"]
    assert "stem" in recipes.LENS64_LONG.as_dict()["train"]["learns"]
    assert later & set(recipes.LATENT_DIGITS.as_dict()) == {"data", "autoencoder"}
    assert later & set(recipes.LATENT150.as_dict()) == {"autoencoder", "elements"}


@pytest.mark.parametrize("name", recipes.AUTOENCODERS)
def test_an_autoencoders_recipe_decides_its_network_and_budget(name):
    recipe = recipes.AUTOENCODERS[name]
    first = recipe.net().state_dict()
    again = recipe.net().state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert recipe.scaled(minutes=3).train.steps is None
    with pytest.raises(ParameterError, match="must be positive"):
        recipe.scaled(steps=0)
    side = 28 if recipe.data == "digits" else recipe.pixels
    assert recipe.net().grid(side, side) == ((7, 7) if side == 28 else (15, 15))


def test_recipes_of_digits_learn_digits(tmp_path):
    for recipe in (recipes.LATENT_DIGITS, recipes.DIGITS_VQ, recipes.JUDGE_DIGITS):
        assert recipe.data == "digits"
        assert recipe.images("test", cache=tmp_path).pixels.shape == (1_000, 1, 28, 28)
    assert recipes.LENSNET.data == recipes.LENS64.data == "lenses"
    with pytest.raises(ParameterError, match="data must be one of"):
        replace(recipes.LENS64, data="cats").images()
    with pytest.raises(DataError, match="there is no train-images-idx3-ubyte"):
        images_of(recipes.JUDGE_DIGITS, tmp_path)
    with pytest.raises(ParameterError, match="leave `n` out"):
        images_of(recipes.LENSNET, n=100)


def test_a_judge_of_digits_is_small_and_answers_ten_classes():
    net = LensClassifier(**recipes.JUDGE_DIGITS.model).eval()
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert net.features(torch.rand(2, 1, 28, 28)).shape == (2, 64)
    assert sum(parameter.numel() for parameter in net.parameters()) < 1e5


@pytest.mark.parametrize("name", recipes.NETWORKS)
def test_published_networks_answer_at_the_size_of_their_images(name):
    with torch.device("meta"):
        net = UNet(**recipes.NETWORKS[name])
        shape = (2, 1, 128, 128) if name == "five_levels" else (2, 1, 64, 64)
        assert net(torch.empty(shape), torch.empty(2)).shape == shape
    assert net.multiple == (16 if name == "five_levels" else 8)

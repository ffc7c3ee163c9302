"""What lies beside the shipped weights was made with these weights, and says what they do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lensdiff import storage
from lensdiff.lensing.survey import diverse
from lensdiff.model import load
from lensdiff.scores.card import FIRST_SEED, Card, images_key, stored_images
from lensdiff.storage import shipped
from lensdiff.training import recipes


def stored(name: str, file: str) -> dict:
    return json.loads((shipped(name) / file).read_text())


@pytest.mark.parametrize(
    ("name", "fall"),
    [
        ("lens64", 0.6),
        ("lens64-long", 0.99),
        ("lens150", 0.6),
        ("lens150-long", 0.95),
        ("latent150", 0.8),
    ],
)
def test_a_shipped_model_is_what_its_recipe_and_its_card_say(name, fall):
    model = load(shipped(name))
    recipe = recipes.RECIPES[name]
    assert (shipped(name) / "weights.safetensors").stat().st_size < 15e6
    written = json.loads(json.dumps(recipe.as_dict()))  # tuples as lists
    assert {**model.spec["recipe"], "network": None} == {**written, "network": None}
    arguments = model.spec["network"]["arguments"]
    assert {**written["network"], "image_channels": model.denoised_shape[0]} == arguments
    curve = model.spec["curve"]
    trained_on = recipe.train.steps * recipe.train.batch
    assert model.spec["images_seen"] == trained_on == curve[-1]["images_seen"]
    assert curve[-1]["held_out"] < fall * curve[0]["held_out"]
    card = stored(name, "card.json")
    assert card["n_generated"] == card["n_reference"] == card["n_floor"] == 2048
    assert card["sampling"] == str(model.sampling)
    assert card["calls"] == model.sampling.calls <= 35
    page = storage.root() / "data" / "checkpoints" / "README.md"
    assert Card(**card).markdown() in page.read_text(encoding="utf-8")


def test_training_on_at_high_noise_took_away_more_than_half_of_the_excess():
    before = Card(**stored("lens150", "card.json"))
    after = Card(**stored("lens150-long", "card.json"))
    assert (after.sampling, after.reference) == (before.sampling, before.reference)
    gain = before.excess - after.excess
    assert after.excess < 0.5 * before.excess
    assert gain > 4 * (before.excess_error**2 + after.excess_error**2) ** 0.5
    spec = stored("lens150-long", "spec.json")
    assert spec["stages"][-1]["sha256"] == load(shipped("lens150")).spec["sha256"]


def test_the_large_models_network_took_most_of_the_excess_from_small_lenses():
    before = Card(**stored("lens64", "card.json"))
    after = Card(**stored("lens64-long", "card.json"))
    assert (after.reference, after.n_generated) == (before.reference, before.n_generated)
    assert after.calls < before.calls
    gain = before.excess - after.excess
    assert after.excess < before.excess / 2
    assert gain > 4 * (before.excess_error**2 + after.excess_error**2) ** 0.5


def test_only_a_sixth_of_its_weights_is_its_own():
    long = load(shipped("lens150-long"))
    small = load(shipped("lens64-long"))
    assert small.spec["stages"][-1]["sha256"] == long.spec["sha256"]
    learns = set(small.spec["recipe"]["train"]["learns"])
    theirs = dict(long.denoiser.net.named_parameters())
    own = 0
    for name, weight in small.denoiser.net.named_parameters():
        if any(f".{part}." in f".{name}." for part in learns):
            own += weight.numel()
        elif not name.startswith(("stem.", "exit.")):
            assert torch.equal(weight, theirs[name]), name
    assert 0.14 < own / sum(weight.numel() for weight in theirs.values()) < 0.19


@pytest.mark.parametrize("name", ["lens64", "lens64-long", "lens150", "lens150-long", "latent150"])
def test_a_shipped_model_draws_lenses(name):
    model = load(shipped(name))
    pixels = recipes.RECIPES[name].pixels
    images = torch.cat(list(model.generate(range(8))))[:, 0]
    assert images.shape == (8, pixels, pixels)
    assert (images.amax((1, 2)) > 0.7).all()  # something bright in each
    assert (images[:, :4, :4].mean((1, 2)) < 0.08).all()  # on a dark sky
    assert len({tuple(np.round(image.flatten().numpy(), 2)) for image in images}) == 8


def test_the_large_model_began_as_the_small_one_and_carries_its_telescope():
    small = load(shipped("lens64"))
    large = load(shipped("lens150"))
    assert large.spec["stages"][0]["sha256"] == small.spec["sha256"]
    assert large.telescope.survey == diverse(150)
    assert small.telescope is None
    noise = {}
    for observed in (False, True):
        images = torch.cat(list(large.generate(range(4), observed=observed)))
        noise[observed] = images[..., :18, :18].diff(dim=-1).std().item()
    assert noise[False] < 0.2 * noise[True]


def test_the_stored_images_are_the_shipped_models():
    model = load(shipped("lens150"))
    images = stored_images(model.folder, images_key(model, model.sampling))
    assert images.shape == (1_024, 1, 150, 150)
    again = torch.cat(list(model.generate(range(FIRST_SEED, FIRST_SEED + 4))))
    # bf16 sums depend on the machine
    assert ((again - images[:4]).abs() > 0.05).float().mean() < 0.02


def test_the_score_of_earlier_reports_is_a_row_of_its_own():
    model = load(shipped("lens150"))
    old = stored("lens150", "legacy.json")
    assert old["model_sha256"] == model.spec["sha256"]
    assert old["n_generated"] == old["n_reference"] == 2_500
    assert "training" in old["reference"]
    assert old["resolution"] == "128 x 128"


def test_the_shipped_sampling_is_near_the_best_and_precision_does_not_matter():
    model = load(shipped("lens150"))
    sweep = stored("lens150", "samplers.json")
    assert sweep["model_sha256"] == model.spec["sha256"]
    rows = sweep["rows"]
    best = min(row["distance"] for row in rows)
    way = (model.sampling.sampler, model.sampling.calls)
    own = {
        row["precision"]: row["distance"] for row in rows if (row["sampler"], row["calls"]) == way
    }
    assert model.sampling.calls <= 20
    assert own["bf16"] <= 1.1 * best
    assert min(row["distance"] for row in rows if row["calls"] <= 10) <= 1.5 * best
    error = stored("lens150", "card.json")["distance_error"]
    assert abs(own["bf16"] - own["fp32"]) <= error

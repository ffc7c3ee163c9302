"""Diffusion on latents: their set, a model that draws images, and autoencoders that don't fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import perturb
from toys_autoencoder import DIFFUSION, blobs, recipe, saved
from toys_training import weights

from lensdiff.data.images import ImageSet, Stretch, simulated, symmetry
from lensdiff.diffusion.sampling import draw, guided
from lensdiff.errors import CheckpointError, DataError, ParameterError
from lensdiff.lensing.survey import diverse
from lensdiff.model import Model, Sampling, load
from lensdiff.training.fit import fit
from lensdiff.training.latents import encoded, expanded
from lensdiff.training.reflow import reflow


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))


# ---- the set of latents --------------------------------------------------------------------------


def test_latents_are_a_set_of_their_own(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    images = blobs()
    z = encoded(images, ends)
    assert z.pixels.shape == (48, 3, 4, 4)
    np.testing.assert_allclose(z.pixels, ends.encode(images.pixels).numpy(), atol=1e-5)
    assert z.symmetries == 1
    assert z.classes == images.classes
    assert np.array_equal(z.labels, images.labels)
    assert z.fingerprint != images.fingerprint
    assert Stretch.of(z.pixels).std == pytest.approx(1, abs=0.05)
    other = saved(tmp_path / "other", "KLVAE")
    assert encoded(images, other).fingerprint != z.fingerprint


def test_they_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = saved(tmp_path / "ends")
    first = encoded(blobs(), ends)
    monkeypatch.setattr(type(ends), "encode", None)
    assert np.array_equal(encoded(blobs(), ends).pixels, first.pixels)


def test_turned_images_have_latents_of_their_own(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    images = blobs()
    z = encoded(images, ends, elements=(0, 3))
    assert len(z) == 96
    turned = symmetry(torch.from_numpy(images.pixels[5:6]), [3])
    np.testing.assert_allclose(z.pixels[48 + 5], ends.encode(turned)[0], atol=1e-5)
    assert z.labels[48 + 5] == images.labels[5]
    train, held = expanded((np.array([0, 2]), np.array([1])), 48, (0, 3))
    assert train.tolist() == [0, 2, 48, 50]
    assert held.tolist() == [1]
    with pytest.raises(ParameterError, match="elements must be some of"):
        encoded(replace(images, symmetries=2), ends, elements=(0, 3))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    with pytest.raises(DataError, match=r"blobs: images of shape \(1, 18, 18\), but .* learnt"):
        encoded(blobs(side=18), ends)
    with pytest.raises(DataError, match="Take one that learnt such images"):
        fit(DIFFUSION, blobs(channels=3), tmp_path / "model", autoencoder=ends)
    assert not (tmp_path / "model").exists()


# ---- a latent model ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_latent_model_draws_images(tmp_path: Path, channels: int) -> None:
    images = blobs(channels=channels)
    fit(recipe(), images, tmp_path / "ends")
    fit(DIFFUSION, images, tmp_path / "model", autoencoder=tmp_path / "ends")
    shutil.rmtree(tmp_path / "ends")  # the model holds a copy
    model = load(tmp_path / "model")
    assert isinstance(model, Model)
    assert model.shape == (channels, 14, 14)
    assert model.denoised_shape == (3, 4, 4)
    drawn = model.draw(3, seed=5)
    assert drawn.shape == (3, channels, 14, 14)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    torch.testing.assert_close(model.draw(1, seed=7), drawn[2:], rtol=0, atol=1e-2)
    spec = json.loads((tmp_path / "model" / "spec.json").read_text())
    assert spec["autoencoder"] == {"name": "small", "sha256": model.autoencoder.sha256}
    assert spec["image_size"] == 14
    assert spec["data"] == images.as_dict()


def test_a_latent_model_only_touches_the_two_ends(tmp_path: Path) -> None:
    """What is drawn is what the samplers give at the latents' size, decoded."""
    ends = saved(tmp_path / "ends")
    model = fit(DIFFUSION, blobs(), tmp_path / "model", autoencoder=ends)
    plan = model.sampling
    denoise = guided(model.denoiser, 1.0)
    x = next(draw(denoise, (3, 4, 4), [0, 1], plan.sigmas(), plan.sampler))
    assert torch.equal(model.draw(2), ends.decode(model.stretch.inverse(x).float()))


def test_latents_are_not_clamped_to_pixels(tmp_path: Path) -> None:
    model = fit(DIFFUSION, blobs(), tmp_path / "model", autoencoder=saved(tmp_path / "ends"))
    x = 100 * torch.randn(2, 3, 4, 4)
    assert model.denoise(Sampling(clamp=True))(x, 1.0).abs().max() > model.stretch.limits[1]
    clamped = model.draw(2, sampling=Sampling(steps=3))
    assert torch.equal(clamped, model.draw(2, sampling=Sampling(steps=3, clamp=False)))


def test_labels_and_guidance_are_those_of_pixels(tmp_path: Path) -> None:
    plan = replace(DIFFUSION, network={**DIFFUSION.network, "classes": 3})
    images = blobs()
    ends = saved(tmp_path / "ends")
    model = fit(plan, images, tmp_path / "model", autoencoder=ends)
    assert model.spec["classes"] == list(images.classes)
    perturb(model.denoiser.net, scale=0.05)  # two updates teach it no class
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 2])
    with torch.no_grad():
        plain = model.denoiser(x, 1.0)
        known = model.denoiser(x, 1.0, label)
        found = model.denoise(guidance=2.5)(x, 1.0, label)
    torch.testing.assert_close(found, plain + 2.5 * (known - plain), atol=1e-3, rtol=1e-3)
    assert (known - plain).abs().max() > 0.01
    large = model.draw(2, label="large", guidance=2.0)
    assert large.shape == (2, 1, 14, 14)
    other = next(name for name in images.classes if name != "large")
    assert not torch.equal(large, model.draw(2, label=other, guidance=2.0))


def test_killed_it_goes_on_to_the_same_model(tmp_path: Path) -> None:
    seen = []

    def stop(step: object) -> None:
        seen.append(step.number)
        if seen == [1, 2, 3]:
            raise KeyboardInterrupt

    ends = saved(tmp_path / "ends")
    plan = replace(DIFFUSION.scaled(save_every=1), elements=(0, 4))
    with pytest.raises(KeyboardInterrupt):
        fit(plan, blobs(), tmp_path / "a", tmp_path / "state", stop, autoencoder=ends)
    again = fit(plan, blobs(), tmp_path / "a", tmp_path / "state", stop, autoencoder=ends)
    assert seen[3] == 4, "it goes on behind the update that it had reached"
    whole = fit(plan, blobs(), tmp_path / "b", autoencoder=ends)
    assert again.spec["sha256"] == whole.spec["sha256"]


def test_the_telescope_stands_behind_the_decoder(tmp_path: Path) -> None:
    lenses = simulated(diverse(16), 24, seed=1, noiseless=True)
    ends = fit(recipe(steps=2), lenses, tmp_path / "ends")
    plan = replace(DIFFUSION, noiseless=True)
    model = fit(plan, lenses, tmp_path / "model", autoencoder=ends)
    assert model.telescope is not None
    light = model.draw(2, observed=False)
    assert not torch.equal(model.draw(2), light)
    assert torch.equal(light, model.draw(2, observed=False))


# ---- autoencoders that don't fit -----------------------------------------------------------------


def test_a_new_stage_learns_latents_of_the_same_autoencoder(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    first = fit(DIFFUSION, blobs(), tmp_path / "first", autoencoder=ends)
    still = DIFFUSION.scaled(steps=1, lr=1e-12)
    second = fit(still, blobs(), tmp_path / "second", start=first, autoencoder=ends)
    torch.testing.assert_close(
        weights(second.denoiser.net), weights(first.denoiser.net), rtol=0, atol=1e-3
    )
    assert [stage["recipe"]["name"] for stage in second.spec["stages"]] == ["small-latent"]
    other = saved(tmp_path / "other", "KLVAE")
    with pytest.raises(CheckpointError, match=r"latents of another autoencoder. Start from"):
        fit(still, blobs(), tmp_path / "third", start=first, autoencoder=other)
    with pytest.raises(CheckpointError, match="first learnt pixels, or latents of another"):
        fit(still, blobs(), tmp_path / "third", start=first)
    with pytest.raises(CheckpointError, match="can't start from an autoencoder"):
        fit(still, blobs(), tmp_path / "third", start=tmp_path / "ends")
    assert not (tmp_path / "third").exists()


def test_a_model_with_another_autoencoder_is_refused(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    fit(DIFFUSION, blobs(), tmp_path / "model", autoencoder=ends)
    saved(tmp_path / "other", "KLVAE")
    shutil.rmtree(tmp_path / "model" / "autoencoder")
    shutil.copytree(tmp_path / "other", tmp_path / "model" / "autoencoder")
    with pytest.raises(CheckpointError, match=r"model draws latents of .* is another one"):
        load(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "autoencoder")
    assert load(tmp_path / "model").autoencoder.folder == tmp_path / "ends"
    shutil.rmtree(tmp_path / "ends")
    with pytest.raises(CheckpointError, match=r"its autoencoder ends is missing. Put the"):
        load(tmp_path / "model")


def test_a_recipe_names_its_autoencoder(tmp_path: Path) -> None:
    saved(tmp_path / "ends")
    plan = replace(DIFFUSION, autoencoder=str(tmp_path / "ends"))
    model = fit(plan, blobs(), tmp_path / "model")
    assert model.autoencoder is not None
    assert model.spec["recipe"]["autoencoder"] == str(tmp_path / "ends")
    with pytest.raises(CheckpointError, match="can't be read as a checkpoint"):
        fit(replace(plan, autoencoder="no-such"), blobs(), tmp_path / "model")


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    plan = replace(DIFFUSION, network={**DIFFUSION.network, "classes": 4})
    with pytest.raises(DataError, match=r"blobs has 3 classes .* small-latent is for 4"):
        fit(plan, blobs(), tmp_path / "model", autoencoder=ends)
    turned = replace(DIFFUSION, network={**DIFFUSION.network, "conditions": 7}, elements=(0, 4))
    with pytest.raises(ParameterError, match="lens parameters do not turn with latents"):
        fit(turned, blobs(), tmp_path / "model", autoencoder=ends)


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    images: ImageSet = blobs()
    images.pixels[7, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"Number 7 holds NaN or infinity. Take it out"):
        fit(DIFFUSION, images, tmp_path / "model", autoencoder=saved(tmp_path / "ends"))
    assert not (tmp_path / "model").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_model_in_its_autoencoders_folder_is_refused_before_it_learns(tmp_path: Path) -> None:
    saved(tmp_path / "ends")
    for place in ("ends", "ends/model"):
        with pytest.raises(ParameterError, match="lies in the folder of its autoencoder"):
            fit(DIFFUSION, blobs(), tmp_path / place, autoencoder=tmp_path / "ends")
    model = fit(DIFFUSION, blobs(), tmp_path / "model", autoencoder=tmp_path / "ends")
    config = replace(DIFFUSION.train, held_out_every=0)
    with pytest.raises(ParameterError, match="lies in the folder of its autoencoder"):
        reflow(model, config, model.autoencoder.folder / "student", n=4)

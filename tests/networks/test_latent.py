"""The two ends of a latent model: as they are saved, and what they refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toys_autoencoder import KINDS, NETWORK, blobs, saved, small_autoencoder
from toys_scores import small_model

from lensdiff.errors import CheckpointError, DataError
from lensdiff.model import load
from lensdiff.networks import latent


@pytest.mark.parametrize("kind", KINDS)
def test_it_encodes_and_decodes(tmp_path: Path, kind: str) -> None:
    ends = saved(tmp_path / "ends", kind)
    images = blobs().pixels
    z = ends.encode(images, batch=7)
    assert z.shape == (48, *ends.shape) == (48, 3, 4, 4)
    assert ends.image_shape == (1, 14, 14)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), rtol=0, atol=0.02)
    found = ends.decode(z, batch=5)
    assert found.shape == images.shape
    assert 0 <= found.min() <= found.max() <= 1
    torch.testing.assert_close(found, ends.reconstruct(torch.from_numpy(images)))
    torch.testing.assert_close(z, ends.encode(images.astype(">f4")))  # as FITS files have it


def test_other_sizes_come_back_as_they_were(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    wide = torch.rand(2, 1, 9, 21)
    assert ends.reconstruct(wide).shape == wide.shape
    assert ends.decode(ends.encode(wide), size=(9, 21)).shape == wide.shape


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    ends = saved(tmp_path / "ends", kind, image_channels=3)
    again = load(tmp_path / "ends", "cpu")
    assert isinstance(again, latent.Latent)
    assert again.sha256 == ends.sha256
    assert again.spec["kind"] == "autoencoder"
    fresh = small_autoencoder(kind, image_channels=3)
    for name, tensor in fresh.named_parameters():
        torch.testing.assert_close(again.net.get_parameter(name), tensor, rtol=1e-3, atol=1e-3)
    images = blobs(channels=3).pixels
    assert torch.equal(again.reconstruct(images), ends.reconstruct(images))
    assert not any(parameter.requires_grad for parameter in again.net.parameters())


def test_no_images_are_no_latents(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    none = np.zeros((0, 1, 9, 21), np.float32)
    assert ends.encode(none).shape == (0, 3, 3, 6)
    assert ends.decode(torch.zeros(0, *ends.shape)).shape == (0, 1, 14, 14)
    assert ends.reconstruct(none).shape == none.shape


# ---- which one belongs to a model ----------------------------------------------------------------


def test_it_is_found_inside_or_beside(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    about = {"name": "ends", "sha256": ends.sha256}
    model = tmp_path / "model"
    model.mkdir()
    assert latent.belonging(model, about, "cpu").folder == tmp_path / "ends"
    shutil.copytree(tmp_path / "ends", model / latent.INSIDE)
    assert latent.belonging(model, about, "cpu").folder == model / latent.INSIDE
    assert latent.belonging(model, None) is None


def test_another_one_is_refused(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    saved(tmp_path / "other", "KLVAE")
    model = tmp_path / "model"
    model.mkdir()
    about = {"name": "ends", "sha256": ends.sha256}
    shutil.copytree(tmp_path / "other", model / latent.INSIDE)
    with pytest.raises(CheckpointError, match=r"is another one.*Put the autoencoder with SHA-256"):
        latent.belonging(model, about, "cpu")
    shutil.rmtree(model / latent.INSIDE)
    shutil.rmtree(tmp_path / "ends")
    with pytest.raises(CheckpointError, match=r"its autoencoder ends is missing. Put the"):
        latent.belonging(model, about, "cpu")


# ---- what is refused -----------------------------------------------------------------------------


def test_latents_of_another_shape_are_refused(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    with pytest.raises(DataError, match=r"ends: latents of shape .* of another autoencoder"):
        ends.decode(torch.zeros(2, 4, 4, 4))
    with pytest.raises(DataError, match="of another autoencoder or of other images"):
        ends.decode(torch.zeros(2, 3, 5, 4))


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    ends = saved(tmp_path / "ends")
    images = blobs().pixels.copy()
    images[9, 0, 3, 3] = np.nan
    with pytest.raises(DataError, match=r"Number 9 holds NaN or infinity. Take it out"):
        ends.encode(images, batch=4)
    with pytest.raises(DataError, match="Number 1 holds NaN"):
        ends.decode(torch.tensor([0.0, torch.inf]).view(2, 1, 1, 1).expand(2, 3, 4, 4))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    small_model(tmp_path / "model")
    with pytest.raises(CheckpointError, match="model: this is no autoencoder"):
        latent.load(tmp_path / "model")
    with pytest.raises(CheckpointError, match="can't be read as a checkpoint"):
        latent.load(tmp_path / "nothing")
    saved(tmp_path / "ends")
    weights = tmp_path / "ends" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"weights.safetensors has SHA-256"):
        latent.load(tmp_path / "ends")


def test_a_description_of_another_network_is_refused(tmp_path: Path) -> None:
    latent.save(tmp_path / "ends", small_autoencoder(), {**NETWORK, "unshuffle": 4}, (14, 14))
    with pytest.raises(CheckpointError, match=r"its spec.json and its weights don't agree"):
        latent.load(tmp_path / "ends")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    net = small_autoencoder()
    net.mean.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="not saved, since the weights hold NaN"):
        latent.save(tmp_path / "ends", net, NETWORK, (14, 14))
    assert list(tmp_path.iterdir()) == []

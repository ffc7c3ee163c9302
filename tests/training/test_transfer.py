"""A transplanted network answers for fine pixels what the old one answered for coarse ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import small_unet

from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser, LogNormal
from lensdiff.errors import CheckpointError
from lensdiff.training.diffusion import TrainConfig
from lensdiff.training.fit import fit
from lensdiff.training.recipes import Recipe
from lensdiff.training.transfer import noise_ratio, overlap, transplant


def averaged(x, coarse, fine):
    """Fold by fold, the mean of fine pixels over coarse ones."""
    line = torch.block_diag(*[overlap(coarse, fine)] * (x.shape[-1] // fine))
    return line @ x @ line.T


@pytest.mark.parametrize(("coarse", "fine"), [(2, 5), (1, 3), (2, 4), (2, 2)])
def test_averages_keep_the_mean_and_shrink_noise_by_the_ratio(coarse, fine):
    assert torch.allclose(overlap(coarse, fine).sum(1), torch.ones(coarse))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 1, 4 * fine, 4 * fine, generator=generator)
    after = averaged(noise, coarse, fine).std().item()
    assert after == pytest.approx(noise_ratio(coarse, fine), rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_new_network_gives_the_old_ones_answer_for_the_averaged_image(channels):
    old = Denoiser(small_unet(unshuffle=2, image_channels=channels))
    new = Denoiser(small_unet(unshuffle=4, image_channels=channels))
    transplant(old, new)
    x = torch.randn(3, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([-0.5, 0.2, 0.9])
    fine = new.net(x, level)
    coarse = old.net(averaged(x, 2, 4), level + torch.tensor(noise_ratio(2, 4)).log() / 4)
    repeated = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(fine, repeated, atol=1e-4, rtol=1e-4)


def test_the_same_fold_is_a_copy():
    old = Denoiser(small_unet())
    new = Denoiser(small_unet())
    new.net.stem.weight.data.zero_()
    transplant(old, new)
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "other", [{"channels": (16, 16)}, {"blocks": 2}, {"unshuffle": 1}, {"image_channels": 3}]
)
def test_other_networks_are_refused(other):
    new = Denoiser(small_unet(**{"unshuffle": 4, **other}))
    with pytest.raises(CheckpointError, match="same channels and blocks"):
        transplant(Denoiser(small_unet(unshuffle=2)), new)


def test_a_recipe_starts_from_coarser_pixels_and_says_so(tmp_path):
    def made(side):
        pixels = np.random.default_rng(side).random((40, 1, side, side), np.float32)
        return ImageSet(f"made-{side}", pixels, f"{side}" * 32)

    plan = Recipe(
        name="coarse",
        network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 2},
        train=TrainConfig(steps=2, batch=4, sigmas=LogNormal(), held_out_every=2, save_every=2),
    )
    first = fit(plan, made(16), tmp_path / "coarse")
    fine = replace(plan, name="fine", network={**plan.network, "unshuffle": 4})
    second = fit(fine, made(32), tmp_path / "fine", start=first)
    assert second.spec["stages"][0]["recipe"]["name"] == "coarse"
    assert second.spec["stages"][0]["images_seen"] == 8
    assert second.stretch == Stretch.of(made(32).pixels) != first.stretch
    third = fit(fine, made(32), tmp_path / "third", start=second)
    assert third.stretch == second.stretch
    assert [s["recipe"]["name"] for s in third.spec["stages"]] == ["coarse", "fine"]

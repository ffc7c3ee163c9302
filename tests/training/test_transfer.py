"""A transplanted network answers for its pixels what the old one did for finer or coarser ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import perturb, small_unet

from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser, LogNormal
from lensdiff.errors import CheckpointError
from lensdiff.model import Model
from lensdiff.networks.transformer import DiT
from lensdiff.training.diffusion import TrainConfig
from lensdiff.training.fit import fit
from lensdiff.training.recipes import Recipe
from lensdiff.training.transfer import copy_weights, noise_ratio, overlap, transplant


def made(side):
    pixels = np.random.default_rng(side).random((40, 1, side, side), np.float32)
    return ImageSet(f"made-{side}", pixels, f"{side}" * 32)


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fine", [4, 5])
def test_for_coarse_pixels_it_gives_the_average_of_the_old_ones_answer(channels, fine):
    old = Denoiser(small_unet(unshuffle=fine, image_channels=channels))
    new = Denoiser(small_unet(unshuffle=2, image_channels=channels))
    transplant(old, new)
    x = torch.randn(3, channels, 16, 16, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([-0.5, 0.2, 0.9])
    assert noise_ratio(fine, 2) == pytest.approx(1 / noise_ratio(2, fine))
    shift = torch.tensor(noise_ratio(fine, 2)).log() / 4
    answer = old.net(averaged(x, fine, 2), level + shift)  # coarse pixels, spread over fine ones
    torch.testing.assert_close(new.net(x, level), averaged(answer, 2, fine), atol=1e-4, rtol=1e-4)


def test_images_of_another_field_are_no_coarser_pixels_of_it(tmp_path):
    plan = Recipe(
        name="plan",
        network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 4},
        train=TrainConfig(steps=1, batch=4, sigmas=LogNormal()),
    )
    first = fit(plan, made(32), tmp_path / "first")
    other = replace(plan, name="other", network={**plan.network, "unshuffle": 2})
    with pytest.raises(CheckpointError, match=r"first: it folds .* 8 x 8 cells, other into 16 x"):
        fit(other, made(32), tmp_path / "other", start=first)
    assert fit(other, made(16), tmp_path / "other", start=first).spec["stages"]
    labelled = replace(other, network={**other.network, "conditions": 2})
    with pytest.raises(CheckpointError, match="first: Pixels and labels can't both change at once"):
        fit(labelled, made(16), tmp_path / "labelled", start=first)


def test_to_coarse_pixels_and_back_is_the_same_network_again():
    """Where coarse pixels are wholes of fine ones, and those were equal."""
    first = Denoiser(small_unet(unshuffle=2))
    fine = Denoiser(perturb(small_unet(unshuffle=4), seed=1))
    again = Denoiser(perturb(small_unet(unshuffle=2), seed=2))
    transplant(first, fine)
    transplant(fine, again)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("before", "after"),
    [("edm", "x0"), ("x0", "v"), ("v", "edm"), ("eps", "eps"), ("flow", "flow")],
)
def test_at_high_noise_another_prediction_is_the_same_denoiser(before, after):
    """Of equal folds, so that nothing else differs; `out` has its sign."""
    old = Denoiser(small_unet(unshuffle=2), before)
    new = Denoiser(perturb(small_unet(unshuffle=2), seed=1), after)
    transplant(old, new)
    sigma = 1e4
    x = sigma * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    if before == after:
        torch.testing.assert_close(new(x, sigma), old(x, sigma))
    else:
        apart = (new(x, sigma) - old(x, sigma)).abs().max()
        assert apart < 1e-2 * old(x, sigma).abs().max()


def test_what_goes_in_is_smaller_than_the_old_network_knew_it_by_the_ratio():
    old = Denoiser(small_unet(unshuffle=2))
    new = Denoiser(small_unet(unshuffle=4))
    transplant(old, new)
    seen = {}
    for name, one in (("old", old), ("new", new)):
        one.net.stem.bias.data.zero_()

        def keep(_: object, given: tuple, out: torch.Tensor, name: str = name) -> None:
            seen[name] = out.detach()

        one.net.stem.register_forward_hook(keep)
    noise = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    new(1e4 * noise, 1e4)
    old(1e4 * noise[..., :32, :32], 1e4)
    ratio = float(seen["new"].std() / seen["old"].std())
    assert ratio == pytest.approx(noise_ratio(2, 4), rel=0.1)


@pytest.mark.parametrize(("before", "after"), [("eps", "edm"), ("x0", "flow"), ("flow", "eps")])
def test_predictions_that_do_not_agree_at_high_noise_are_refused(before, after):
    old = Denoiser(small_unet(unshuffle=2), before)
    new = Denoiser(small_unet(unshuffle=4), after)
    with pytest.raises(CheckpointError, match=f"predicts {before}, the other {after}: a tr"):
        transplant(old, new)


@pytest.mark.parametrize("labels", [{"classes": 3}, {"conditions": 7}])
@pytest.mark.parametrize("bottleneck", [0, 5])
def test_a_transformer_without_labels_starts_one_with_them(tmp_path, labels, bottleneck):
    network = {"patch": 4, "width": 32, "depth": 1, "heads": 2, "bottleneck": bottleneck}
    old = Denoiser(perturb(DiT(**network)))
    new = Denoiser(DiT(**network, **labels))
    start = Model(old, Stretch(0.1, 0.2), {}, tmp_path / "start")
    copy_weights(start, new)
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(new(x, 1.0), old(x, 1.0))
    if labels == {"classes": 3}:
        torch.testing.assert_close(new(x, 1.0, torch.tensor([0, 2])), old(x, 1.0))
    other = Denoiser(DiT(**network, image_channels=3))
    with pytest.raises(CheckpointError, match="start: training can't go on from here"):
        copy_weights(start, other)


def test_the_same_fold_is_a_copy():
    old = Denoiser(small_unet())
    new = Denoiser(perturb(small_unet(), seed=1))
    transplant(old, new)
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("other", [{"channels": (16, 16)}, {"blocks": 2}, {"image_channels": 3}])
def test_other_networks_are_refused(other):
    new = Denoiser(small_unet(**{"unshuffle": 4, **other}))
    with pytest.raises(CheckpointError, match="same channels and blocks"):
        transplant(Denoiser(small_unet(unshuffle=2)), new)


def test_a_network_that_takes_in_planes_is_refused():
    old = Denoiser(small_unet(unshuffle=2, conditions=2, spins=(2,)))
    with pytest.raises(
        CheckpointError, match=r"other channels or planes.*same channels and blocks"
    ):
        transplant(old, Denoiser(small_unet(unshuffle=4, conditions=2)))


def test_a_recipe_starts_from_coarser_pixels_and_says_so(tmp_path):
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
    part = replace(plan, name="part", train=replace(plan.train, learns=("stem", "noise")))
    back = fit(part, made(16), tmp_path / "back", start=third)
    assert back.spec["stages"][-1]["sha256"] == third.spec["sha256"]
    assert back.spec["recipe"]["train"]["learns"] == ["stem", "noise"]
    before = third.denoiser.net.state_dict()
    for name, weight in back.denoiser.net.state_dict().items():
        if not name.startswith(("stem.", "exit.2.")) and "noise" not in name.split("."):
            assert torch.equal(weight, before[name]), name

"""Training autoencoders: what they learn, exact resume with the codebook, and what is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toys_autoencoder import KINDS, blobs, recipe

from lensdiff.errors import CheckpointError, DataError, ParameterError, TrainingError
from lensdiff.networks.autoencoder import VQVAE, Autoencoder
from lensdiff.training.autoencoder import (
    AutoencoderConfig,
    AutoencoderTask,
    check_codebook,
    train_autoencoder,
)
from lensdiff.training.fit import fit
from lensdiff.training.loop import Step


def everything(net: Autoencoder) -> Tensor:
    """Weights and the codebook's averages in one line."""
    return torch.cat([tensor.flatten().float() for tensor in net.state_dict().values()])


def steps_of(kind: str, **changes: object) -> list[Step]:
    plan = recipe(kind, **changes)
    return list(train_autoencoder(plan.net(), blobs(), plan.train))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_logs(kind: str) -> None:
    steps = steps_of(kind, steps=40, held_out_every=20, lr=1e-2)
    first, last = (step for step in steps if step.held_out is not None)
    assert last.held_out < 0.6 * steps[0].loss
    assert last.scores["error"] <= last.held_out
    names = {"error", "perplexity", "codes_in_use"} if kind == "VQVAE" else {"error", "divergence"}
    assert set(first.scores) == set(last.scores) == names
    if kind == "VQVAE":
        assert 2 < last.scores["perplexity"] <= 16
        assert 0.2 < last.scores["codes_in_use"] <= 1


@pytest.mark.parametrize(
    ("kind", "more"), [("KLVAE", {"kl": 10.0}), ("VQVAE", {"commitment": 10.0})]
)
def test_the_loss_is_the_error_over_the_variance_and_the_penalty(kind: str, more: dict) -> None:
    plan = recipe(kind)
    net = replace(plan, network={**plan.network, **more, "image_std": 0.25}).net().eval()
    images = blobs()
    task = AutoencoderTask(net, images, plan.train, images.split())
    (x,) = task.batch(0, torch.device("cpu"))
    found, penalty, _ = net(x)
    error = ((found - x) ** 2).mean((1, 2, 3)) / 0.25**2
    assert penalty.mean() > 1e-3 * error.mean()
    torch.testing.assert_close(task.loss(net, (x,)), (error + penalty).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ema", [0.9, None])
def test_broken_off_and_resumed_it_ends_the_same(
    tmp_path: Path, kind: str, ema: float | None
) -> None:
    """Bit for bit, codebook and its averages included."""
    plan = recipe(kind, steps=10, save_every=4, ema=ema, held_out_every=5)
    whole = list(train_autoencoder(plan.net(), blobs(), plan.train))
    for step in train_autoencoder(plan.net(), blobs(), plan.train, state=tmp_path):
        if step.number == 6:
            break
    again = list(train_autoencoder(plan.net(), blobs(), plan.train, state=tmp_path))
    assert [step.number for step in again] == [5, 6, 7, 8, 9, 10]
    assert [step.loss for step in again] == [step.loss for step in whole[4:]]
    assert torch.equal(everything(again[-1].model), everything(whole[-1].model))
    assert torch.equal(everything(again[-1].ema), everything(whole[-1].ema))
    assert again[-1].scores == whole[-1].scores


def test_the_codebook_of_micro_batches_is_that_of_the_batch() -> None:
    """But for restarts, whose latents are drawn from each micro-batch."""
    found = []
    for accumulation in (1, 2):
        plan = recipe("VQVAE", steps=2, ema=None, accumulation=accumulation)
        plan = replace(plan, network={**plan.network, "rare": 0.0})
        *_, step = train_autoencoder(plan.net(), blobs(), plan.train)
        found.append(step.model)
    taken = found[0].shares > 0
    assert found[0].seen == found[1].seen == []
    torch.testing.assert_close(found[1].shares, found[0].shares, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[1].codes[taken], found[0].codes[taken], rtol=0, atol=1e-2)


def test_images_are_turned_by_their_own_symmetries() -> None:
    images = blobs()
    plan = recipe(batch=48)
    rows = (np.arange(48), np.arange(4))
    turned = AutoencoderTask(plan.net(), images, plan.train, rows).batch(3, torch.device("cpu"))[0]
    plain = AutoencoderTask(plan.net(), replace(images, symmetries=1), plan.train, rows)
    straight = plain.batch(3, torch.device("cpu"))[0]
    same = (turned == straight).flatten(1).all(1)
    assert 0 < same.sum() < 20
    torch.testing.assert_close(turned.sum((1, 2, 3)), straight.sum((1, 2, 3)))


def test_a_held_out_pass_takes_no_more_images_than_a_micro_batch() -> None:
    plan = recipe("VQVAE", batch=8, accumulation=4)
    task = AutoencoderTask(plan.net(), blobs(), plan.train, (np.arange(40), np.arange(40, 45)))
    sizes = []
    forward = task.saved.forward

    def watched(images: Tensor) -> tuple:
        sizes.append(len(images))
        return forward(images)

    task.saved.forward = watched
    task.held_out(task.saved)
    assert sizes == [2, 2, 1]


# ---- a checkpoint --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_recipe_gives_a_checkpoint_that_describes_itself(
    tmp_path: Path, kind: str, channels: int
) -> None:
    images = blobs(channels=channels)
    numbers = []
    plan = recipe(kind, held_out_every=3)
    ends = fit(plan, images, tmp_path / "ends", each=lambda step: numbers.append(step.number))
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert ends.image_shape == (channels, 14, 14)
    assert ends.spec["name"] == "small"
    assert ends.spec["recipe"]["kind"] == kind
    assert ends.spec["images_seen"] == 48
    assert ends.spec["data"] == images.as_dict()
    assert [row["update"] for row in ends.spec["curve"]] == [3, 6]
    assert ends.spec["scores"]["error"] > 0
    rows = images.split()[0]
    z = ends.encode(images.pixels[rows])
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=0.05)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), rtol=0, atol=0.05)


def test_a_broken_off_fit_goes_on(tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.number == 5:
            raise KeyboardInterrupt

    plan = recipe(save_every=2, held_out_every=3)
    with pytest.raises(KeyboardInterrupt):
        fit(plan, blobs(), tmp_path / "ends", tmp_path / "state", stop)
    assert not (tmp_path / "ends").exists()
    again = fit(plan, blobs(), tmp_path / "ends", tmp_path / "state")
    whole = fit(plan, blobs(), tmp_path / "whole")
    assert again.sha256 == whole.sha256
    assert [row["update"] for row in again.spec["curve"]] == [3, 6]


# ---- what is refused -----------------------------------------------------------------------------


def test_a_collapsed_codebook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = recipe(steps=2)
    images = blobs()
    net = plan.net()  # an encoder that says the same of all images
    torch.nn.init.zeros_(net.encoder[-1].weight)
    task = AutoencoderTask(net, images, plan.train, images.split())
    task.update = plan.train.warmup_steps
    with pytest.raises(TrainingError, match=r"blobs: the codebook has collapsed: 1 of 16 codes"):
        task.held_out(net)
    task.update = 0  # the codebook may still begin
    assert task.held_out(net)["perplexity"] == pytest.approx(1)
    first = staticmethod(lambda z: torch.zeros(len(z), *z.shape[2:], dtype=torch.long))
    monkeypatch.setattr(VQVAE, "nearest", first)
    with pytest.raises(TrainingError, match=r"collapsed: 1 of 16 .* perplexity of 1.0. Lower lr"):
        fit(plan, images, tmp_path / "ends")
    assert not (tmp_path / "ends").exists()


def test_a_channel_that_says_nothing_is_refused(tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.setattr(Autoencoder, "measure", lambda self, z: self.std.zero_())
    with pytest.raises(TrainingError, match="channel 0 of the latents is the same for all images"):
        fit(recipe("KLVAE"), blobs(), tmp_path / "ends")
    assert not (tmp_path / "ends").exists()


def test_nan_is_refused(tmp_path: Path) -> None:
    images = blobs()
    images.pixels[:, 0, 0, 0] = np.nan
    plan = recipe()
    with pytest.raises(DataError, match=r"blobs: image [0-9]+ holds NaN or infinity. Take it out"):
        list(train_autoencoder(plan.net(), images, plan.train))
    images.pixels[:, 0, 0, 0] = 0
    net = plan.net()
    torch.nn.init.constant_(net.decoder[-1].bias, torch.inf)
    with pytest.raises(TrainingError, match=r"The loss is .* at update 1. Lower lr"):
        list(train_autoencoder(net, images, plan.train))


def test_images_smaller_than_the_fold_are_refused(tmp_path: Path) -> None:
    plan = recipe()
    plan = replace(plan, network={**plan.network, "unshuffle": 8})
    with pytest.raises(DataError, match="14 x 14 pixels are smaller than the fold of 16"):
        fit(plan, blobs(), tmp_path / "ends")
    assert list(tmp_path.iterdir()) == []


def test_another_state_and_another_start_are_refused(tmp_path: Path) -> None:
    fit(recipe(), blobs(), tmp_path / "ends", tmp_path / "state")
    with pytest.raises(CheckpointError, match="of another run"):
        fit(recipe(steps=7), blobs(), tmp_path / "ends", tmp_path / "state")
    with pytest.raises(CheckpointError, match="autoencoders start anew"):
        fit(recipe(), blobs(), tmp_path / "ends", start=tmp_path / "ends")


@pytest.mark.parametrize(
    ("kind", "name", "default", "other"),
    [
        ("KLVAE", "kl", 1e-3, 1e-2),
        ("VQVAE", "commitment", 0.25, 0.5),
        ("VQVAE", "decay", 0.99, 0.9),
        ("VQVAE", "rare", 0.03, 0.1),
    ],
)
def test_a_state_knows_what_no_shape_shows(
    tmp_path: Path, kind: str, name: str, default: float, other: float
) -> None:
    plan = recipe(kind, steps=1)

    def trained(**arguments: float) -> list[Step]:
        net = replace(plan, network={**plan.network, **arguments}).net()
        return list(train_autoencoder(net, blobs(), plan.train, state=tmp_path))

    trained()
    trained(**{name: default})  # as it was not given
    with pytest.raises(CheckpointError, match="of another run"):
        trained(**{name: other})


@pytest.mark.parametrize(
    "wrong", [{}, {"steps": 1, "minutes": 1.0}, {"steps": 0}, {"steps": 1, "accumulation": 3}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ParameterError):
        AutoencoderConfig(**wrong)
    with pytest.raises(ParameterError, match="kind must be one of"):
        replace(recipe(), kind="GAN")


def test_a_codebook_is_there_for_vqvae_alone() -> None:
    assert isinstance(recipe("VQVAE").net(), VQVAE)
    assert not hasattr(recipe("KLVAE").net(), "codes")


@pytest.mark.parametrize(
    ("codes", "perplexity", "good"),
    [(2, 1.99, True), (2, 1.1, False), (3, 2.0, True), (16, 1.9, False)],
)
def test_few_codes_can_be_in_use(codes: int, perplexity: float, good: bool) -> None:
    use = {"perplexity": perplexity, "codes_in_use": 1.0}
    with contextlib.nullcontext() if good else pytest.raises(TrainingError, match="collapsed"):
        check_codebook("x", use, codes, 1_000)


def test_few_latents_can_not_be_in_many_codes() -> None:
    use = {"perplexity": 12.0, "codes_in_use": 12 / 1_024}
    check_codebook("x", use, 1_024, latents=16)
    with pytest.raises(TrainingError, match="collapsed"):
        check_codebook("x", use, 1_024, latents=10_000)

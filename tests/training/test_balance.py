"""A loss that is even over noise levels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from toys_training import config, run, tiny, weights

from lensdiff.__main__ import parser_for
from lensdiff.data.images import ImageSet
from lensdiff.diffusion.process import LogNormal, Uniform
from lensdiff.errors import ParameterError
from lensdiff.studies import train as command
from lensdiff.training.balance import MOVES, PARTS, Balance
from lensdiff.training.diffusion import train
from lensdiff.training.recipes import TINY


@pytest.mark.parametrize("sigmas", [LogNormal(0.5, 1.4), Uniform("cosine", 100)])
def test_parts_are_equally_likely(sigmas: LogNormal | Uniform) -> None:
    sigma = sigmas.at((torch.arange(8_000) + 0.5) / 8_000)
    number = torch.bincount(Balance(sigmas).part_of(sigma), minlength=PARTS)
    assert len(number) == PARTS
    # a level of a table is whole
    assert (number - 8_000 / PARTS).abs().max() <= (1 if isinstance(sigmas, LogNormal) else 120)


def test_no_level_drowns_another_and_the_mean_stays() -> None:
    sigmas = LogNormal(0.0, 1.0)
    sigma = sigmas.at((torch.arange(64) + 0.5) / 64)
    losses = 1 / sigma**2 + 0.01  # the first levels have nearly all of it
    balance = Balance(sigmas)
    torch.testing.assert_close(balance(losses, sigma), losses)  # nothing was seen before
    balance.update(Accelerator(cpu=True))
    even = balance(losses, sigma)
    by_part = even.view(PARTS, -1).mean(1)
    torch.testing.assert_close(by_part, by_part.mean().expand(PARTS))
    torch.testing.assert_close(even.mean(), losses.mean())
    assert losses.view(PARTS, -1).mean(1).max() > 100 * losses.view(PARTS, -1).mean(1).min()


def test_means_move_towards_the_losses_of_an_update_and_stay_where_none_was() -> None:
    balance = Balance(LogNormal(0.0, 1.0), parts=2)
    low = torch.tensor([0.1])
    high = torch.tensor([10.0])
    one = Accelerator(cpu=True)
    balance(torch.tensor([4.0]), low)
    balance.update(one)
    assert balance.means.tolist() == [4.0, 0.0]
    balance(torch.tensor([3.0]), high)
    balance(torch.tensor([5.0]), high)  # a second micro-batch
    balance.update(one)
    assert balance.means.tolist() == [4.0, 4.0]
    balance(torch.tensor([float("inf")]), high)
    balance(torch.tensor([8.0]), low)
    balance.update(one)
    assert balance.means.tolist() == [pytest.approx(4.0 + 4.0 * MOVES), 4.0]
    assert balance.sums.abs().sum() == 0


def test_gradients_do_not_flow_into_the_means() -> None:
    balance = Balance(LogNormal(0.0, 1.0), parts=2)
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    sigma = torch.tensor([0.1, 10.0])
    balance(losses, sigma)
    balance.update(Accelerator(cpu=True))
    balance(losses, sigma).sum().backward()
    assert losses.grad.tolist() == [2.0, pytest.approx(2 / 3)]


def test_a_broken_off_balanced_run_resumes_as_if_it_never_was(
    lenses16: ImageSet, tmp_path: Path
) -> None:
    settings = config(steps=6, save_every=2, balance=True)
    whole = run(tiny(), lenses16, settings)
    for last in (3, 99):
        for step in train(tiny(), lenses16, settings, state=tmp_path):
            if step.number == last:
                break
    assert torch.equal(weights(step.model), weights(whole[-1].model))
    assert torch.equal(step.model.balance.means, whole[-1].model.balance.means)
    assert (step.model.balance.means > 0).any()
    plain = run(tiny(), lenses16, replace(settings, balance=False))
    assert plain[0].loss == whole[0].loss and plain[-1].loss != whole[-1].loss
    assert "balance.means" not in plain[-1].model.state_dict()


def test_a_denoiser_that_was_trained_so_can_be_trained_plainly(lenses16: ImageSet) -> None:
    looks = {"steps": 2, "held_out_every": 1, "held_out_images": 8}
    even = tiny()
    balanced = run(even, lenses16, config(balance=True, **looks))
    again = run(even, lenses16, config(**looks))
    assert again[-1].model.balance is None
    plain = run(tiny(), lenses16, config(**looks))
    # what is held out is never balanced: after the first update, which is the plain one, too
    assert balanced[0].held_out == plain[0].held_out


def test_the_command_takes_it_for_denoisers_alone(monkeypatch) -> None:
    learnt = []
    monkeypatch.setattr("lensdiff.training.recipe.images_of", lambda *_: [])
    monkeypatch.setattr("lensdiff.training.fit.fit", lambda recipe, *_: learnt.append(recipe))
    for more, expected in ((["--balance"], True), ([], False)):
        words = ["train", "tiny", "x", *more]
        command._train_recipe(parser_for(words).parse_args(words), print)
        assert learnt[-1].train.balance is expected
    for recipe in ("lensnet", "digits-vq"):
        words = ["train", recipe, "x", "--balance"]
        with pytest.raises(ParameterError, match="--balance does not apply to the recipe"):
            command._train_recipe(parser_for(words).parse_args(words), print)


def test_a_recipe_says_so_where_its_loss_is_balanced() -> None:
    assert "balance" not in TINY.as_dict()["train"]
    assert TINY.scaled(balance=True).as_dict()["train"]["balance"] is True

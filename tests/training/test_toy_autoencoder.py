"""The loop trains more than denoisers: an autoencoder of thirty lines, and all that it gets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys_training import weights

from lensdiff.training.loop import Run, Settings, Step, Task


class AutoencoderTask(Task):
    """Waves of 16 samples, which have an amplitude and a phase, through a waist of four numbers."""

    def __init__(self, dropout: float = 0.0):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 4))
        decoder = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 16))
        super().__init__(nn.Sequential(encoder, decoder))

    @staticmethod
    def waves(n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        amplitude, phase = torch.rand(2, n, 1, generator=generator)
        return (0.5 + amplitude) * torch.sin(torch.arange(16) / 3 + 2 * math.pi * phase)

    def batch(self, update: int, device: torch.device) -> tuple[Tensor]:
        return (self.waves(32, seed=1 + update).to(device),)

    def loss(self, module: nn.Module, part: tuple[Tensor]) -> Tensor:
        (waves,) = part
        return F.mse_loss(module(waves), waves)

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> dict[str, float]:
        waves = self.waves(64, seed=0)
        found = model.eval()(waves)
        return {
            "loss": float(F.mse_loss(found, waves)),
            "worst": float((found - waves).abs().max()),
        }


SETTINGS = Settings(lr=5e-3, batch=32, steps=60, ema=0.9, warmup_steps=5, held_out_every=20)


def steps_of(task: Task, settings: Settings = SETTINGS, **arguments: object) -> list[Step]:
    return list(Run(task, settings, "autoencoder").steps(**arguments))


def test_it_learns_and_its_scores_are_yielded() -> None:
    task = AutoencoderTask()
    before = task.held_out(task.module)["loss"]
    steps = steps_of(task)
    assert [step.number for step in steps] == list(range(1, 61))
    assert [step.images_seen for step in steps[:2]] == [32, 64]
    looked = [step for step in steps if step.held_out is not None]
    assert [step.number for step in looked] == [20, 40, 60]
    falling = [before, *(step.held_out for step in looked)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.1 * before
    assert all(set(step.scores) == {"worst"} for step in looked)
    assert all(step.scores == {} for step in steps if step.held_out is None)


def test_the_average_is_what_is_held_out() -> None:
    task = AutoencoderTask()
    last = steps_of(task)[-1]
    assert last.model is task.module
    assert not torch.equal(weights(last.ema), weights(last.model))
    assert last.held_out == task.held_out(last.ema)["loss"]
    assert last.held_out != task.held_out(last.model)["loss"]
    plain = steps_of(task, replace(SETTINGS, ema=None))[-1]
    assert plain.ema is plain.model


def test_accumulation_changes_nothing() -> None:
    one = steps_of(AutoencoderTask())
    two = steps_of(AutoencoderTask(), replace(SETTINGS, accumulation=2))
    assert [step.loss for step in two] == pytest.approx([step.loss for step in one], rel=1e-4)
    torch.testing.assert_close(weights(two[-1].model), weights(one[-1].model), rtol=0, atol=1e-4)
    torch.testing.assert_close(weights(two[-1].ema), weights(one[-1].ema), rtol=0, atol=1e-4)


@pytest.mark.parametrize("ema", [0.9, None])
def test_broken_off_and_resumed_it_ends_with_the_same_weights(
    tmp_path: Path, ema: float | None
) -> None:
    """Bit for bit, with dropout, whose random numbers depend on the update alone."""
    settings = replace(SETTINGS, steps=20, save_every=6, decay_share=0.5, ema=ema)
    whole = steps_of(AutoencoderTask(0.2), settings)
    for step in Run(AutoencoderTask(0.2), settings, "autoencoder").steps(tmp_path):
        if step.number == 9:
            break
    assert [path.name for path in tmp_path.iterdir()] == ["00000006"]
    resumed = steps_of(AutoencoderTask(0.2), settings, state=tmp_path)
    assert [step.number for step in resumed] == list(range(7, 21))
    assert [step.loss for step in resumed] == [step.loss for step in whole[6:]]
    assert torch.equal(weights(resumed[-1].model), weights(whole[-1].model))
    assert torch.equal(weights(resumed[-1].ema), weights(whole[-1].ema))
    assert resumed[-1].held_out == whole[-1].held_out

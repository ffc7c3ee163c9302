"""What the tests of training share: a small denoiser, its settings, a network that remembers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lensdiff.data.images import ImageSet
from lensdiff.diffusion.process import Denoiser, LogNormal
from lensdiff.networks.unet import UNet
from lensdiff.training import loop
from lensdiff.training.diffusion import TrainConfig, train
from lensdiff.training.loop import Step

# with x0 prediction, what the network sees is the image itself
NO_NOISE = LogNormal(mean=-20.0, std=0.0)


def tiny(precision: str = "fp32", prediction: str = "edm", **arguments: object) -> Denoiser:
    """A small denoiser, the same on every call."""
    standard = {
        "channels": (16, 32),
        "blocks": 1,
        "attention_levels": (),
        "middle_attention": False,
    }
    torch.manual_seed(0)
    return Denoiser(UNet(**{**standard, **arguments}), prediction, precision=precision)


def config(**changes: object) -> TrainConfig:
    """Three updates, or what `changes` say."""
    short = TrainConfig(steps=3, batch=8, lr=1e-3, warmup_steps=1, decay_share=0.0, ema=0.9)
    return replace(short, **changes)


def weights(module: nn.Module) -> Tensor:
    """All weights in one line."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def run(
    denoiser: Denoiser, images: ImageSet, settings: TrainConfig, **arguments: object
) -> list[Step]:
    """All steps of a training."""
    return list(train(denoiser, images, settings, **arguments))


class Clock:
    """The loop's clock, which each update moves by `each` seconds, and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: float):
        self.now = 0.0
        update = loop.Run.update

        def timed(run: loop.Run, number: int, seconds: float) -> tuple[float, float]:
            self.now += each
            return update(run, number, seconds)

        monkeypatch.setattr(loop.Run, "update", timed)
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: self.now))


class Spy(nn.Module):
    """A network that answers its one weight times its input, and keeps what it saw."""

    null = UNet.null

    def __init__(self, classes: int = 0, conditions: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.classes = classes
        self.conditions = conditions
        self.x = []
        self.noise = []
        self.labels = []

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        self.x.append(x.detach().clone())
        self.noise.append(noise.detach().clone())
        if label is not None:
            self.labels.append(label.clone())
        return self.weight * x

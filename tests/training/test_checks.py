"""Settings that no training can use are refused as they are made, by all three kinds alike."""

from __future__ import annotations

import math

import pytest

from lensdiff.errors import ParameterError
from lensdiff.training.autoencoder import AutoencoderConfig
from lensdiff.training.classifier import ClassifierConfig
from lensdiff.training.diffusion import TrainConfig

CONFIGS = (TrainConfig, AutoencoderConfig, ClassifierConfig)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"save_every": 0}, "save_every must be 1 or more, got 0"),
        ({"held_out_every": -1}, "held_out_every must be 0 or more, got -1"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"clip": 0.0}, "clip must be positive, got 0"),
        ({"clip": math.nan}, "clip must be positive, got nan"),
        ({"lr": 0.0}, "lr must be positive"),
    ],
)
def test_what_no_training_can_use_is_refused(config: type, wrong: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        config(steps=1, **wrong)


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_some_images_must_be_held_out(config: type) -> None:
    with pytest.raises(ParameterError, match="held_out_images must be 1 or more, got 0"):
        config(steps=1, held_out_images=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_clip_may_be_as_large_as_it_likes(config: type) -> None:
    assert config(steps=1, clip=math.inf, seed=2**40).clip == math.inf

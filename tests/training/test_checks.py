"""Settings that no training can use are refused as they are made, by all three kinds alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toys_training import config, run, tiny

from lensdiff.data.images import ImageSet
from lensdiff.errors import ParameterError
from lensdiff.training.autoencoder import AutoencoderConfig
from lensdiff.training.classifier import ClassifierConfig
from lensdiff.training.diffusion import TrainConfig

CONFIGS = (TrainConfig, AutoencoderConfig, ClassifierConfig)


@pytest.mark.parametrize("kind", CONFIGS)
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
        ({"decay_share": -0.4}, "decay_share must lie between 0 and 1, got -0.4"),
        ({"decay_share": math.nan}, "decay_share must lie between 0 and 1"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ],
)
def test_what_no_training_can_use_is_refused(kind: type, wrong: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        kind(steps=1, **wrong)


@pytest.mark.parametrize("kind", CONFIGS[:2])
def test_some_images_must_be_held_out(kind: type) -> None:
    with pytest.raises(ParameterError, match="held_out_images must be 1 or more, got 0"):
        kind(steps=1, held_out_images=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_clip_may_be_as_large_as_it_likes(kind: type) -> None:
    assert kind(steps=1, clip=math.inf, seed=2**40).clip == math.inf


@pytest.mark.parametrize("wrong", [{"ema": -1.0}, {"ema": 1.5}, {"label_dropout": 5.0}])
def test_shares_of_a_diffusion_training_lie_between_0_and_1(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ParameterError, match=f"{name} must lie between 0 and 1"):
        TrainConfig(steps=1, **wrong)


def test_no_rows_are_refused_before_a_training(lenses16: ImageSet) -> None:
    none = np.array([], int)
    some = np.arange(8)
    for rows in ((none, some), (some, none)):
        with pytest.raises(ParameterError, match="Give more images, or other `rows`"):
            run(tiny(), lenses16, config(held_out_every=2), rows=rows)

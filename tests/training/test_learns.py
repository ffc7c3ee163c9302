"""A stage in which only some of the weights learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys_training import config, tiny

from lensdiff.data.images import ImageSet
from lensdiff.errors import CheckpointError, ParameterError
from lensdiff.training import recipes
from lensdiff.training.diffusion import train
from lensdiff.training.fit import fit


def test_only_the_weights_that_are_named_learn(lenses16: ImageSet) -> None:
    denoiser = tiny()
    before = {name: weight.clone() for name, weight in denoiser.net.named_parameters()}
    some = config(steps=3, learns=("stem", "exit", "down.0"))
    *_, step = train(denoiser, lenses16, some)
    for model in (step.model, step.ema):
        for name, weight in model.net.named_parameters():
            if not name.startswith(("stem.", "exit.", "down.0.")):
                assert torch.equal(weight, before[name]), name
        changed = model.net.state_dict()
        for name in ("stem.weight", "exit.2.weight", "down.0.0.conv2.weight"):
            assert not torch.equal(changed[name], before[name]), name
    *_, step = train(denoiser, lenses16, config(steps=1))
    assert all(weight.requires_grad for weight in step.model.parameters()), "as a run without"
    changed = step.model.net.state_dict()
    assert not torch.equal(changed["exit.0.weight"], before["exit.0.weight"])


def test_a_name_that_no_weight_has_is_refused(lenses16: ImageSet) -> None:
    with pytest.raises(ParameterError, match=r"No weight is named 'ste'\. Names begin with down"):
        next(train(tiny(), lenses16, config(steps=1, learns=("ste",))))


def test_one_name_is_no_list_of_letters() -> None:
    with pytest.raises(ParameterError, match=r"learns takes several names: \('stem',\)"):
        config(learns="stem")


def test_what_would_stay_random_is_refused(lenses16: ImageSet, tmp_path: Path) -> None:
    recipe = recipes.TINY.scaled(steps=1, learns=("stem",))
    with pytest.raises(ParameterError, match="tiny lets only some weights learn"):
        fit(recipe, lenses16, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_learns_belongs_to_a_runs_identity(lenses16: ImageSet, tmp_path: Path) -> None:
    for _ in train(tiny(), lenses16, config(steps=2), state=tmp_path):
        pass
    with pytest.raises(CheckpointError, match="another run"):
        next(train(tiny(), lenses16, config(steps=2, learns=("stem",)), state=tmp_path))

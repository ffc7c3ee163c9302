"""What a conditional model is conditioned on: classes, lens parameters, and guidance by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import perturb

from lensdiff.data.images import Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import SamplingError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import KINDS, sample_params
from lensdiff.lensing.survey import diverse
from lensdiff.model import Model, Sampling, load, save
from lensdiff.networks.unet import UNet

QUICK = Sampling(steps=2)


def conditional_model(tmp_path: Path, **labels: int) -> Model:
    """A model, saved and loaded, that is conditioned on these labels."""
    torch.manual_seed(0)
    denoiser = Denoiser(perturb(UNet((16, 32), blocks=1, **labels))).eval()
    network = {"channels": (16, 32), "blocks": 1, **labels}
    stretch = Stretch(0, 1)
    folder = save(tmp_path / "model", denoiser, network, stretch, 16, classes=list(KINDS))
    return load(folder, precision="fp32")


def images(model: Model, seeds: list[int], label: Tensor, guidance: float = 1.0) -> Tensor:
    return torch.cat(list(model.generate(seeds, QUICK, label, guidance=guidance)))


def test_classes_are_requested_by_name_or_number(tmp_path: Path) -> None:
    model = conditional_model(tmp_path, classes=3)
    label = model.labels(["axion", 0, "cdm"])
    assert label.tolist() == [2, 0, 1]
    for wrong in (["sphere"], [3], [-1]):
        message = r"model knows the classes .*'no_sub'.* there is no"
        with pytest.raises(SamplingError, match=message):
            model.labels(wrong)
    one = images(model, [1, 2, 3], label)
    other = images(model, [1, 2, 3], model.labels([0, 0, 1]))
    # the same class and seed, then another class
    assert (one[2] == other[2]).all() and (one[0] != other[0]).any()
    with pytest.raises(SamplingError, match="3 labels for 2 seeds"):
        next(model.generate([1, 2], QUICK, label))


def test_lens_parameters_are_requested_in_their_units(tmp_path: Path) -> None:
    values = parameters.of(sample_params(12, "no_sub", seed=3, survey=diverse(32)))
    model = conditional_model(tmp_path, conditions=7)
    np.testing.assert_allclose(model.labels(values).numpy(), parameters.encode(values))
    for wrong in (np.zeros((2, 6)), np.zeros(7), np.full((1, 7), np.nan)):
        with pytest.raises(SamplingError, match="takes 7 finite numbers"):
            model.labels(wrong)
    with pytest.raises(SamplingError, match="no classes and no conditions"):
        conditional_model(tmp_path / "plain").labels([0])


def test_guidance_is_a_straight_line_through_null_and_label(tmp_path: Path) -> None:
    model = conditional_model(tmp_path, classes=3)
    x = torch.randn(2, 1, 16, 16)
    label = model.labels([1, 2])
    null = model.denoiser(x, 0.5)
    conditional = model.denoiser(x, 0.5, label)
    plain = Sampling(clamp=False)
    for scale in (0.0, 1.0, 2.5):
        found = model.denoise(plain, scale)(x, 0.5, label)
        torch.testing.assert_close(found, null + scale * (conditional - null))
    once = images(model, [1, 2], label)
    assert (images(model, [1, 2], label, guidance=3.0) != once).any()

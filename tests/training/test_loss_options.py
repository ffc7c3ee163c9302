"""Criterion and weight of a configuration reach the training and the held-out loss."""

from __future__ import annotations

import pytest
import torch
from toys_training import Spy, config

from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.training.diffusion import DiffusionTask, held_out_loss

WEIGHTS = {
    "none": torch.ones_like,
    "min_snr": lambda sigma: (sigma**-2).clamp(max=5),
    "edm": lambda sigma: (sigma**-2).clamp(max=400) + 4,
}


@pytest.mark.parametrize(
    ("criterion", "weight"), [("l1", "none"), ("l2", "min_snr"), ("l2", "edm")]
)
def test_criterion_and_weight_reach_both_losses(
    lenses16: ImageSet, criterion: str, weight: str
) -> None:
    settings = config(criterion=criterion, weight=weight, held_out_images=5)
    stretch = Stretch.of(lenses16.pixels)
    rows = lenses16.split()
    spy = Spy()
    with torch.no_grad():
        spy.weight.fill_(0.0)  # its answer is 0, so that the error is x0 itself
    denoiser = Denoiser(spy, "x0")

    def expected(x0: torch.Tensor, sigma: torch.Tensor) -> float:
        error = x0.abs() if criterion == "l1" else x0**2
        return float((error.mean((1, 2, 3)) * WEIGHTS[weight](sigma)).mean())

    task = DiffusionTask(denoiser, lenses16, settings, stretch, rows)
    part = task.batch(0, torch.device("cpu"))
    found = task.loss(denoiser.net, part).item()
    assert found == pytest.approx(expected(part[0], part[1]), rel=1e-4)
    x0 = stretch(torch.from_numpy(lenses16.pixels[rows[1][:5]]))
    sigma = settings.sigmas.at((torch.arange(5) + 0.5) / 5)
    found = held_out_loss(denoiser, lenses16, rows[1], stretch, settings)
    assert found == pytest.approx(expected(x0, sigma), rel=1e-4)

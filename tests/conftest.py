"""What all tests share. Those marked `gpu` are skipped, by name, where there is no CUDA device."""
from __future__ import annotations

import os

os.environ["LENSDIFF_QUIET"] = "1"

import pytest
import torch

from lensdiff.data.images import ImageSet, simulated
from lensdiff.lensing.survey import diverse
from lensdiff.networks.unet import UNet

torch.set_num_threads(2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def perturb(module: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> torch.nn.Module:
    """The module with noise on every weight, those that start at zero too, so that every path carries a signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


def small_unet(**arguments: object) -> UNet:
    """A UNet of two small levels with perturbed weights, the same on every call."""
    torch.manual_seed(0)
    return perturb(UNet(**{"channels": (16, 32), "blocks": 1, "attention_levels": (1,), **arguments})).eval()


@pytest.fixture(scope="session")
def lenses16(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """64 simulated lenses of 16 pixels, three classes, eight symmetries."""
    return simulated(diverse(16), 64, seed=1, cache=tmp_path_factory.mktemp("cache"))

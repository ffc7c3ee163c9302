"""What all tests share. Those marked `gpu` are skipped, by name, where there is no CUDA device."""

from __future__ import annotations

import os

os.environ["LENSDIFF_QUIET"] = "1"

import pytest
import torch

from lensdiff.data.images import ImageSet, simulated
from lensdiff.lensing.survey import diverse

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


# Of all files, those that take minutes: begun first, so that two workers end together.
LONG = (
    "test_lab.py",
    "test_benchmark.py",
    "test_site.py",
    "test_processes.py",
    "test_readme.py",
    "test_command_processes.py",
    "test_colab.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files before the others."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def lenses16(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """64 simulated lenses of 16 pixels, three classes, eight symmetries."""
    return simulated(diverse(16), 64, seed=1, cache=tmp_path_factory.mktemp("cache"))

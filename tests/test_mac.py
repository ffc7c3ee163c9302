"""What a Mac's GPU asks for, as far as a machine without one can tell: no float64, fp32, AdamW."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys_autoencoder import blobs
from toys_autoencoder import recipe as autoencoder_recipe
from toys_classifier import small_classifier, squares
from toys_training import config, run, tiny

from lensdiff import runtime
from lensdiff.data.images import ImageSet
from lensdiff.diffusion import sampling
from lensdiff.errors import ParameterError
from lensdiff.storage import root
from lensdiff.training.classifier import ClassifierConfig, train_classifier
from lensdiff.training.fit import fit
from lensdiff.training.loop import Run, Settings, Task


class NoDouble(TorchDispatchMode):
    """Refuses what a Mac's GPU does: any float64 tensor of more than one number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64 and one.numel() > 1:
                raise RuntimeError(f"{func} made float64: MPS has none")
        return found


@pytest.fixture
def on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In what the loop and the samplers do on the device, float64 is refused."""

    def refused(work: Callable) -> Callable:
        def inside(*args, **kwargs):
            with NoDouble():
                return work(*args, **kwargs)

        return inside

    monkeypatch.setattr(Run, "_gradients", refused(Run._gradients))
    for name, sampler in sampling.SAMPLERS.items():

        def stepping(*args, own=sampler, **kwargs) -> Iterator[torch.Tensor]:
            with NoDouble():
                yield from own(*args, **kwargs)

        monkeypatch.setitem(sampling.SAMPLERS, name, stepping)
    return None


def test_float64_is_seen(on_the_gpu: None) -> None:
    x = sampling.noise(range(2), (1, 8, 8)).double()
    with pytest.raises(RuntimeError, match="made float64"):
        next(sampling.SAMPLERS["ddim"](lambda x, s, y: 0.5 * x, x, sampling.karras_levels(4)))


@pytest.mark.parametrize("prediction", ["eps", "edm", "flow"])
def test_a_denoiser_learns_and_draws_without_float64(
    prediction: str, lenses16: ImageSet, on_the_gpu: None
) -> None:
    denoiser = tiny(prediction=prediction)
    assert len(run(denoiser, lenses16, config(held_out_every=2))) == 3
    for sampler, options in (("ddim", {"eta": 1.0}), ("heun", {}), ("dpmpp_2m", {})):
        levels = sampling.karras_levels(4, 10.0, 0.02)
        (x,) = sampling.draw(denoiser, (1, 16, 16), range(2), levels, sampler, **options)
        assert x.dtype == torch.float32


@pytest.mark.parametrize("kind", ["VQVAE", "KLVAE"])
def test_an_autoencoder_learns_without_float64(kind: str, tmp_path: Path, on_the_gpu: None) -> None:
    images = blobs()
    fit(autoencoder_recipe(kind, steps=2), images, tmp_path / "m")


def test_a_classifier_learns_without_float64(on_the_gpu: None) -> None:
    settings = ClassifierConfig(steps=2, frozen_steps=1, batch=6)
    images = squares()
    assert list(train_classifier(small_classifier(), images, settings))


def test_the_device_is_the_first_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSDIFF_DEVICE", raising=False)
    monkeypatch.setitem(runtime.DEVICES, "cuda", lambda: False)
    monkeypatch.setitem(runtime.DEVICES, "mps", lambda: True)
    assert runtime.best_device() == "mps" and "GPU of a Mac" in runtime.machine()
    monkeypatch.setenv("LENSDIFF_DEVICE", "cpu")
    assert runtime.best_device() == "cpu" and runtime.machine().startswith("CPU")
    monkeypatch.setenv("LENSDIFF_DEVICE", "cuda")
    with pytest.raises(
        ParameterError, match=r"'cuda', which this machine has not\. Set it to 'mps' or 'cpu'"
    ):
        runtime.best_device()


def test_a_mac_computes_in_fp32_with_the_same_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSDIFF_PRECISION", raising=False)
    assert runtime.best_precision("mps") == "fp32"
    assert "mps" in _get_fused_kernels_supported_devices()
    device = SimpleNamespace(type="mps")
    accelerator = SimpleNamespace(num_processes=1, device=device, prepare=lambda *given: given)
    net = torch.nn.Linear(2, 2)
    monkeypatch.setattr(net, "to", lambda *_, **__: net)  # there is no such device here
    optimizer = Run(Task(net), Settings(lr=1e-3, batch=2), accelerator=accelerator).optimizer
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["fused"]


def mps_works() -> bool:
    """Whether a Mac's GPU can be used; virtual ones are there and give no memory."""
    try:
        return bool(torch.ones(1, device="mps"))
    except (RuntimeError, AssertionError):
        return False


@pytest.mark.skipif(not mps_works(), reason="no Mac's GPU")
def test_it_draws_there_as_on_the_cpu() -> None:
    import lensdiff as ld

    there, here = (ld.load("lens64", device=device) for device in ("mps", "cpu"))
    assert torch.allclose(there.draw(2), here.draw(2), atol=2e-2)


def test_numbers_are_as_fine_as_the_device_has_them() -> None:
    x = torch.ones(2)
    assert runtime.finest(x).dtype == torch.float64
    assert runtime.finest(torch.ones(2, device="meta")).dtype == torch.float64
    mac = SimpleNamespace(device=torch.device("mps"), float=lambda: "float32", double=None)
    assert runtime.finest(mac) == "float32"


@pytest.mark.parametrize("page", sorted((root() / "notebooks").glob("??_*.ipynb")), ids=str)
def test_no_page_asks_the_device_for_float64(page: Path) -> None:
    """Where a page computes on `run.device` it takes the finest numbers that there are."""
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
        for line in source.splitlines():
            assert not (".double()" in line and "run.device" in line), line
        if "SAMPLERS[" in source or "sampling.ddim(denoise" in source:
            assert ".double()" not in source.replace("cpu().flatten(1).double()", ""), source

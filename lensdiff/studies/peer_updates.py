"""How a network of another library is trained here: its updates, on images at hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ParameterError
from ..runtime import best_device, best_precision

BATCH = 16
IMAGES = 64  # random ones, at hand


@dataclass(frozen=True)
class Contender:
    """A network in training: its number of weights, and an iterator of its updates.

    `saved` are the parts of its state, each with `state_dict` and `load_state_dict`; `draw(n,
    calls, averaged, sampler)` gives images (n, 1, side, side) in [0, 1] by one of its library's
    `samplers`, with the averaged weights or the last ones. These are names, each with the network
    calls of a step; the first is the one to take where none is named.
    """

    parameters: int
    updates: Iterator[object]
    saved: dict = field(default_factory=dict)
    draw: Callable[..., Tensor] | None = None
    samplers: dict[str, int] = field(default_factory=dict)


def library(name: str) -> object:
    """A module of another library. Raises ParameterError, with the cure, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cure = 'Run `make benchmark`, or: python -m pip install -e ".[benchmark]"'
        raise ParameterError(f"{name} is not installed ({error}). {cure}.") from error


def count(net: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in net.parameters())


def grid(side: int, fold: int = 1) -> tuple[int, int]:
    """Side of a peer's grid, a multiple of 8, and its channels, for images folded by `fold`."""
    return -(-side // (8 * fold)) * 8, fold**2


def layout(fast: bool) -> torch.memory_format:
    """Channels last where `fast`, as ours has them; a network has it before its average is made."""
    return torch.channels_last if fast else torch.preserve_format


def lower(fast: bool) -> torch.autocast:
    """Autocast to the device's own precision, or none where not `fast`."""
    low = torch.float16 if best_precision() == "fp16" else torch.bfloat16
    return torch.autocast(best_device(), low, enabled=fast and best_precision() != "fp32")


def updates(
    net: nn.Module,
    loss: Callable[[Tensor], Tensor],
    pixels: Tensor | int,
    optimizer: torch.optim.Optimizer,
    average: Callable[[], object],
    fast: bool,
    fold: int = 1,
) -> Iterator[float]:
    """Updates of a peer on images (n, 1, H, W), mirrored at random, or on random ones of a side.

    `fast`: by autocast to the device's own precision (with a gradient scaler for fp16), channels
    last. `fold`: the network's
    images have blocks of fold x fold pixels as channels, as behind our stem. Pixels only change
    places, so that noise process and loss are those of the images.
    """
    device = best_device()
    scaler = torch.amp.GradScaler(device, enabled=fast and best_precision() == "fp16")
    if isinstance(pixels, int):
        pixels = torch.rand(IMAGES, 1, fold * pixels, fold * pixels)
    while True:
        x = pixels[torch.randint(len(pixels), (BATCH,))]
        mirrored = torch.rand(BATCH, 1, 1, 1) < 0.5
        x = torch.where(mirrored, x.flip(-1), x).to(device)
        x = F.pixel_unshuffle(x, fold)
        if fast:
            x = x.contiguous(memory_format=torch.channels_last)
        with lower(fast):
            found = loss(x)
        scaler.scale(found).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        average()
        yield float(found.detach())

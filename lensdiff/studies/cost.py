"""What a model costs: weights, operations, memory and seconds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..data.images import ImageSet
from ..diffusion.process import Denoiser
from ..model import Model
from ..runtime import best_device, synchronize
from ..training.diffusion import TrainConfig, train

TIMED = 32
TIMED_UPDATES = 6  # the first is not counted
TRAINED = 8  # images of a training step whose memory is counted


def cost(model: Model) -> dict:
    """What a lens costs: network, memory of training, and time of drawing.

    `training_bytes` is what autograd keeps of an image until the backward pass, `call_s` a network
    call of an image in a batch of `TIMED`, `decode_s` the decoder, `flops` the multiplications and
    additions of a call, `update_s` an update of the weights: `training_s` is by the clock, and
    holds whatever paused the training.
    """
    autoencoder = model.autoencoder
    spec = autoencoder.spec if autoencoder else {"seconds": 0, "images_seen": 0}
    counted = sum(p.numel() for p in model.denoiser.parameters())
    found = {
        "parameters": counted,
        "autoencoder_parameters": 0,
        "training_bytes": training_bytes(model),
        "training_s": model.spec["seconds"],
        "autoencoder_training_s": spec["seconds"],
        "images_seen": model.spec["images_seen"],
        "machine": model.spec["machine"],
        "decode_s": 0.0,
        "updates": model.spec["recipe"]["train"]["steps"],
        "update_s": update_seconds(model.denoiser, model.denoised_shape, model.spec["recipe"]),
        "flops": flops(model),
    }
    device = next(model.denoiser.parameters()).device
    x = torch.randn(TIMED, *model.denoised_shape, device=device)
    sigma = torch.ones(TIMED, device=device)
    with torch.no_grad():
        found["call_s"] = seconds(lambda: model.denoiser(x, sigma)) / TIMED
    if autoencoder is not None:
        found["autoencoder_parameters"] = sum(p.numel() for p in autoencoder.net.parameters())
        found["decode_s"] = seconds(lambda: autoencoder.decode(x)) / TIMED
    return found


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of `work()`, after one that isn't counted."""
    work()
    synchronize(best_device())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        synchronize(best_device())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def significant(value: float, n: int = 5) -> float:
    """A positive number to `n` significant digits: a short time does not become zero."""
    return float(f"{value:.{n}g}")


def update_seconds(denoiser: Denoiser, shape: tuple[int, int, int], recipe: dict) -> float:
    """Median seconds of an update of the weights in the training loop, of a few on a copy.

    `shape` is (channels, H, W) of what is denoised; `recipe` is as `Recipe.as_dict` gives it.
    """
    settings = {name: recipe["train"][name] for name in ("batch", "accumulation")}
    learns = tuple(recipe["train"].get("learns", ()))
    even = bool(recipe["train"].get("balance"))
    config = TrainConfig(steps=TIMED_UPDATES, learns=learns, balance=even, **settings)
    n = max(64, 2 * config.batch)
    pixels = np.random.default_rng(0).random((n, *shape), np.float32)
    own = copy.deepcopy(denoiser).requires_grad_(True)
    taken = []
    start = time.perf_counter()
    for _ in train(own, ImageSet("random pixels", pixels, "random"), config):
        now = time.perf_counter()
        taken.append(now - start)
        start = now
    return float(np.median(taken[1:]))


def flops(model: Model) -> int:
    """Multiplications and additions of a network call of one image."""
    x = torch.zeros(1, *model.denoised_shape, device=next(model.denoiser.parameters()).device)
    # the fused attention is not counted, the plain one is
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.denoiser(x, 1.0)
    return counter.get_total_flops()


def training_bytes(model: Model) -> int:
    """Bytes that autograd keeps of an image between forward and backward pass.

    Two batches differ by `TRAINED` images; what does not grow with them, as weights, cancels.
    """
    more = bytes_kept(model, 2 * TRAINED) - bytes_kept(model, TRAINED)
    return more // TRAINED


def bytes_kept(model: Model, n: int) -> int:
    """Bytes that autograd keeps of a training step of `n` images, each storage counted once."""
    device = next(model.denoiser.parameters()).device
    return bytes_kept_by(model.denoiser, torch.randn(n, *model.denoised_shape, device=device))


def bytes_kept_by(denoiser: Denoiser, x: Tensor) -> int:
    """The same of a denoiser and a batch `x` (n, C, H, W)."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    denoiser.requires_grad_(True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            denoiser(x, torch.ones(len(x), device=x.device))
    finally:
        denoiser.requires_grad_(False)
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in kept}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

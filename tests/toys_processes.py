"""What the tests of several processes run in them, each for itself or with others.

They are forked from one that has loaded all that already (a tenth of a second, not eight).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lensdiff.__main__ import main
from lensdiff.data.images import ImageSet
from lensdiff.diffusion.process import Denoiser
from lensdiff.lensing.population import KINDS
from lensdiff.networks.autoencoder import VQVAE
from lensdiff.networks.classifier import LensClassifier
from lensdiff.networks.unet import UNet
from lensdiff.training import loop
from lensdiff.training.autoencoder import AutoencoderConfig, train_autoencoder
from lensdiff.training.classifier import ClassifierConfig, train_classifier
from lensdiff.training.diffusion import TrainConfig, train
from lensdiff.training.processes import share_norms

FORKS = multiprocessing.get_context("forkserver")
# the last two: what an optimizer loads, and a page of results
FORKS.set_forkserver_preload([__name__, "torch._dynamo", "lensdiff.studies.pages"])


def start(work: Callable, *arguments: object, processes: int = 1) -> list[BaseProcess]:
    """Begin `work(*arguments)`, in several processes that share each batch if there are several."""
    # Python 3.11's server would not find what to load, and say nothing
    found = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, found):
        forkserver.ensure_running()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {key: value for key, value in os.environ.items() if key.startswith("LENSDIFF_")}
    given = processes, port, ours, work, arguments
    started = [FORKS.Process(target=enter, args=(each, *given)) for each in range(processes)]
    for process in started:
        process.start()
    return started


def wait(started: list[BaseProcess], seconds: float) -> list[int | None]:
    """Exit statuses; None of a process that has not ended in time, which is killed."""
    for process in started:
        process.join(seconds)
    statuses = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return statuses


def enter(
    rank: int, processes: int, port: int, ours: dict, work: Callable, arguments: tuple
) -> None:
    """Do the work as process `rank` of several, named as torchrun names them."""
    os.environ.update(ours)
    torch.set_num_threads(1)
    torch.cuda.is_available = lambda: False
    if processes > 1:
        here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        here |= {"LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in here.items()})
    torch.manual_seed(0)
    work(*arguments)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> str:
    """The number of this process, 0 where it is alone."""
    return os.environ.get("RANK", "0")


def save(tensors: dict[str, torch.Tensor], folder: Path, name: str) -> None:
    """Keep the tensors as this process has them."""
    own = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    save_file(own, folder / f"{name}-{rank()}.safetensors")


def toy(n: int, pixels: int, names: tuple[str, ...] = ()) -> ImageSet:
    """Random images of three classes."""
    values = np.random.default_rng(0).random((n, 1, pixels, pixels)).astype(np.float32)
    return ImageSet("toy", values, "toy", names, labels=np.arange(n) % 3, symmetries=8)


def command(words: list[str], said: Path) -> None:
    """Run lensdiff's command; what it says goes to a file of this process's own.

    Errors and warnings stay on stderr, which pytest shows.
    """
    with said.with_name(f"{said.name}-{rank()}.txt").open("w") as out:
        with contextlib.redirect_stdout(out):
            sys.exit(main(words))


def hasty(words: list[str], said: Path) -> None:
    """`command`, with a training clock that is twice as fast in the second process."""
    if rank() == "1":
        loop.time = SimpleNamespace(monotonic=lambda: 2 * time.monotonic())
    command(words, said)


def diffusion(
    folder: Path, steps: int, precision: str, stop: int | None = None, hold: bool = False
) -> None:
    """Train a small UNet, and leave its weights, their average and the held-out losses.

    With `hold` it waits before its last update, to be killed.
    """
    # the state's folder is the first process's to make: the second may save before it is there
    folder.mkdir(exist_ok=True)
    net = UNet((16, 32), blocks=1, attention_levels=(1,), classes=3)
    looks = {"held_out_every": 2, "save_every": 2}
    settings = {"steps": steps, "batch": 8, "warmup_steps": 10, "accumulation": 2, "balance": True}
    config = TrainConfig(**settings, **looks)
    rows = np.arange(33), np.arange(33, 40)  # neither shares out evenly
    denoiser = Denoiser(net, precision=precision)
    for step in train(denoiser, toy(40, 16), config, rows=rows, state=folder):
        if step.held_out is not None:
            with (folder / f"held-out-{rank()}.txt").open("a") as log:
                print(step.number, step.held_out, file=log)
        if step.number == stop:
            break
        while hold and step.number == steps - 1:
            time.sleep(1)
    save(step.model.state_dict(), folder, "model")
    save(step.ema.state_dict(), folder, "ema")


def codebook(folder: Path, rare: float) -> None:
    """Train an autoencoder whose codebook learns from the latents of all processes."""
    folder.mkdir(exist_ok=True)
    net = VQVAE(codes=8, rare=rare, channels=(16, 16), image_mean=0.5, image_std=0.3)
    config = AutoencoderConfig(steps=3, batch=8, warmup_steps=10)
    *_, last = train_autoencoder(net, toy(40, 16), config, state=folder)
    save(last.model.state_dict(), folder, "model")


def classifier(folder: Path, backbone: str) -> None:
    """Train a classifier, whose batch norms see the batch of all processes."""
    folder.mkdir(exist_ok=True)
    net = LensClassifier(size=40, pretrained=False, dropout=0.0, backbone=backbone)
    config = ClassifierConfig(frozen_steps=3, steps=2, batch=12, warmup_steps=10)
    tensors = {}
    for step in train_classifier(net, toy(60, 40, KINDS), config, state=folder):
        tensors[f"loss-{step.number}"] = torch.tensor(step.loss)
        if step.number == 3:  # the backbone is frozen until then
            head = net.head.state_dict()
            tensors |= {f"head-3.{key}": part.clone() for key, part in head.items()}
    save(tensors | net.state_dict(), folder, "model")


def norms(folder: Path, name: str) -> None:
    """Gradients and running statistics of batch norms, in float64."""
    layers = []
    for _ in range(12):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.SiLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 64, 8), nn.BatchNorm1d(8)).double()
    x = torch.randn(12, 3, 8, 8, dtype=torch.float64)
    wanted = torch.randn(12, 8, dtype=torch.float64)
    model = net
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
        share_norms(net)
        model = DistributedDataParallel(net)
        share = slice(6 * int(rank()), 6 + 6 * int(rank()))
        x = x[share]
        wanted = wanted[share]
    (model(x) - wanted).square().mean().backward()
    tensors = {key: p.grad for key, p in net.named_parameters()}
    save(tensors | {f"{key}.kept": value for key, value in net.named_buffers()}, folder, name)

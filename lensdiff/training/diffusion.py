"""Training a denoiser: its batches of images, labels and noise levels, and its loss.

for step in train(denoiser, images, config, state="runs/state"):
    print(step.number, step.loss)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.images import ELEMENTS, ImageSet, Shuffle, Stretch, some_of, symmetry
from ..data.labels import labels_for, network_labels
from ..diffusion.process import CRITERIA, WEIGHTS, Denoiser, LogNormal, Uniform
from ..errors import ParameterError
from .balance import Balance
from .checks import check_budget, check_finite, check_rows, check_settings
from .loop import Run, Settings, Step, Task, at_once
from .state import run_identity, turned, unshaped

DRAWN = 64  # images whose held-out noise is drawn at once


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run. One of `steps` and `minutes` is the budget.

    A step is one update of the weights. Raises ParameterError for values that can't be used.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 32  # images an update, over all micro-batches and processes
    accumulation: int = 1  # micro-batches an update
    lr: float = 6e-4
    warmup_steps: int = 200
    decay_share: float = 0.4  # of the budget, at its end, over which lr falls linearly to 0
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999
    sigmas: LogNormal | Uniform = field(default_factory=LogNormal)
    criterion: str = "l2"
    weight: str = "none"
    label_dropout: float = 0.1  # share of labels replaced by the null class
    augment: bool = True  # by the data set's own symmetries
    seed: int = 0
    held_out_every: int = 0  # updates between held-out losses; 0: never
    held_out_images: int = 256
    save_every: int = 500  # updates between saved states, or three minutes
    # only weights with one of these in their dotted names learn, "stem" or "down.0"; empty: all do
    learns: tuple[str, ...] = field(default=(), repr=False)
    # each loss is divided by the running mean of those at its noise level (`balance.Balance`)
    balance: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_budget(self)
        check_settings(self)
        if isinstance(self.learns, str):
            raise ParameterError(f"learns takes several names: ({self.learns!r},).")
        if self.criterion not in CRITERIA or self.weight not in WEIGHTS:
            known = f"criterion must be one of {tuple(CRITERIA)}, weight one of {tuple(WEIGHTS)}"
            raise ParameterError(f"{known}.")

    def settings(self, precision: str) -> Settings:
        """What the loop needs of it."""
        return Settings(
            lr=self.lr,
            batch=self.batch,
            steps=self.steps,
            minutes=self.minutes,
            accumulation=self.accumulation,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
            clip=self.clip,
            ema=self.ema,
            warmup_steps=self.warmup_steps,
            decay_share=self.decay_share,
            held_out_every=self.held_out_every,
            save_every=self.save_every,
            seed=self.seed,
            precision=precision,
        )


class Batches:
    """The batch of update k: images, labels, sigma and noise, a function of (seed, k) alone.

    `rows` are those to learn from; `net` is the network, which says whether labels are given.
    """

    def __init__(
        self,
        images: ImageSet,
        rows: np.ndarray,
        stretch: Stretch,
        config: TrainConfig,
        device: torch.device | str = "cpu",
        net: nn.Module | None = None,
    ):
        self.images = images
        self.stretch = stretch
        self.config = config
        self.device = device
        self.net = net
        self.shuffle = Shuffle(rows, config.batch, config.seed)
        self.labels = labels_for(net, images)

    def __call__(self, update: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(x0 in the network's units, sigma, eps, label or None)."""
        config = self.config
        rows = self.shuffle(update)
        rng = np.random.default_rng([config.seed, 1, update])
        x = self.stretch(torch.from_numpy(self.images.pixels[rows]))
        check_finite(self.images.name, rows, x)
        which = np.zeros(len(rows), int)
        if config.augment and self.images.symmetries > 1:
            which = rng.choice(ELEMENTS[self.images.symmetries], len(rows))
            x = symmetry(x, which)
        # stratified: each batch covers all noise levels
        u = (rng.random() + np.arange(len(rows)) / len(rows)) % 1
        sigma = config.sigmas.at(torch.from_numpy(rng.permutation(u)))
        label = None
        if self.labels is not None:
            label = network_labels(self.labels[rows], which).to(self.device)
            dropped = torch.from_numpy(rng.random(len(rows)) < config.label_dropout)
            label[dropped] = self.net.null(int(dropped.sum()), self.device)
        x = x.to(self.device, memory_format=torch.channels_last)
        own = (config.seed * 1_000_003 + update) % 2**64  # as large as torch takes it
        generator = torch.Generator(self.device).manual_seed(own)
        eps = torch.randn(x.shape, generator=generator, device=self.device)
        eps = eps.contiguous(memory_format=torch.channels_last)
        return x, sigma.to(self.device), eps, label


def _held_out_parts(
    n: int, shape: tuple[int, int, int], seed: int, batch: int
) -> Iterator[tuple[slice, Tensor]]:
    """Parts of `n` images of a shape, at most `batch` of them, and the noise of each.

    It is drawn for `DRAWN` images at once, and so is the same for any batch.
    """
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, n, DRAWN):
        drawn = torch.randn((min(DRAWN, n - first), *shape), generator=generator)
        for start, eps in zip(range(first, n, batch), drawn.split(batch), strict=False):
            yield slice(start, start + len(eps)), eps


@torch.no_grad()
def held_out_loss(
    denoiser: Denoiser,
    images: ImageSet,
    rows: np.ndarray,
    stretch: Stretch,
    config: TrainConfig,
    batch: int = 64,
) -> float:
    """Mean loss over `config.held_out_images` of `rows`, always with the same noise.

    `batch` images go through the network at once.
    """
    device = next(denoiser.parameters()).device
    rows = some_of(images, rows, config.held_out_images)
    sigma = config.sigmas.at((torch.arange(len(rows)) + 0.5) / len(rows)).to(device)
    labels = labels_for(denoiser.net, images)
    losses = []
    for part, eps in _held_out_parts(len(rows), images.pixels.shape[1:], config.seed, batch):
        x = stretch(torch.from_numpy(images.pixels[rows[part]]))
        check_finite(images.name, rows[part], x)
        label = None
        if labels is not None:
            label = network_labels(labels[rows[part]], np.zeros(len(x), int)).to(device)
        given = (x.to(device), sigma[part], eps.to(device), label)
        losses.append(denoiser.loss(*given, config.criterion, config.weight))
    # summed as they are drawn, so that not even the rounding depends on the batch
    return sum(float(block.sum()) for block in torch.cat(losses).split(DRAWN)) / len(rows)


class DiffusionTask(Task):
    """A denoiser to be trained: the loop wraps its network, and averages the whole of it."""

    def __init__(
        self,
        denoiser: Denoiser,
        images: ImageSet,
        config: TrainConfig,
        stretch: Stretch,
        rows: tuple[np.ndarray, np.ndarray],
    ):
        super().__init__(denoiser.net, saved=denoiser)
        freeze(denoiser.net, config.learns)
        self.images = images
        self.config = config
        self.rows = rows
        self.batches = Batches(images, rows[0], stretch, config, net=denoiser.net)
        denoiser.balance = Balance(config.sigmas) if config.balance else None

    def batch(self, update: int, device: torch.device) -> tuple:
        self.batches.device = device
        return self.batches(update)

    def loss(self, module: nn.Module, part: tuple) -> Tensor:
        denoiser = self.saved
        if module is not denoiser.net:  # wrapped by accelerate for several processes
            scaling = denoiser.scaling.name
            denoiser = Denoiser(module, scaling, denoiser.data_std, denoiser.precision)
        x0, sigma, eps, label = part
        config = self.config
        losses = denoiser.loss(x0, sigma, eps, label, config.criterion, config.weight)
        if self.saved.balance is not None:
            losses = self.saved.balance(losses, sigma)
        return losses.mean()

    def after_update(self, accelerator: Accelerator) -> None:
        if self.saved.balance is not None:
            self.saved.balance.update(accelerator)

    def held_out(self, model: Denoiser) -> dict[str, float]:
        given = (self.images, self.rows[1], self.batches.stretch, self.config)
        model.eval()  # without an average it is the network that learns
        return {"loss": held_out_loss(model, *given, at_once(self.config))}


def run_fingerprint(
    denoiser: Denoiser, images: ImageSet, rows: np.ndarray, config: TrainConfig, **more: object
) -> str:
    """What a saved state must agree with: configuration, network, scaling, data and rows.

    And `more`, JSON-able, where there is any: what the weights began with, say.
    """
    shapes = {name: list(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    network = [shapes, denoiser.scaling.name, denoiser.data_std, denoiser.precision]
    more |= unshaped(denoiser.net) | turned(images, config.augment)
    more |= {"learns": list(config.learns)} if config.learns else {}
    about = [repr(config), *network, images.fingerprint, *([more] if more else [])]
    return run_identity(about, rows)


def freeze(net: nn.Module, learns: tuple[str, ...]) -> None:
    """Let only weights learn whose dotted names hold one of `learns`; all, where it is empty.

    The others stay, bit for bit, in the average of the weights as well.

    Raises ParameterError for a name that no weight of the network has.
    """
    own = dict(net.named_parameters())
    for part in learns:
        if not any(f".{part}." in f".{name}." for name in own):
            known = ", ".join(sorted({name.split(".")[0] for name in own}))
            raise ParameterError(f"No weight is named {part!r}. Names begin with {known}.")
    for name, weight in own.items():
        weight.requires_grad_(not learns or any(f".{part}." in f".{name}." for part in learns))


def train(
    denoiser: Denoiser,
    images: ImageSet,
    config: TrainConfig,
    stretch: Stretch | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    accelerator: Accelerator | None = None,
    start: str = "",
) -> Iterator[Step]:
    """Yield a `Step` after every update, until the budget is spent or the caller breaks.

    `rows` are the (train, held-out) indices, by default the set's own split; `state` is a folder to
    save in and to resume from. The network's precision is the denoiser's. Which of its weights have
    `requires_grad` is set as `config.learns` says, and stays so. `start` is the SHA-256 of
    the model whose weights it has: with another one, or another `stretch`, a run is another run.
    Raises TrainingError where the loss is not finite or the batch can't be shared out,
    CheckpointError where `state` holds another run or a damaged one, ParameterError for no rows, or
    names in `config.learns` that no weight has, DataError for images with NaN or infinity.
    """
    more = {"start": start} if start else {}
    if stretch is not None:
        more["stretch"] = [stretch.mean, stretch.std]
    stretch = stretch or Stretch.of(images.pixels)
    rows = rows or images.split()
    check_rows(rows, bool(config.held_out_every))
    task = DiffusionTask(denoiser, images, config, stretch, rows)
    identity = run_fingerprint(denoiser, images, rows[0], config, **more)
    run = Run(task, config.settings(denoiser.precision), identity, accelerator)
    yield from run.steps(state)

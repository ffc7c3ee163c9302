"""Training: a generator of steps, so that the caller logs, samples, or breaks.

    for step in train(denoiser, images, config, state="runs/state"):
        if step.number % 100 == 0: print(step.number, step.loss)
    save("my-model", step.ema, network_arguments, stretch, image_size=64)

Every random draw of update k depends on (seed, k) alone. With a budget in steps, a run on CPUs that
was killed and resumed therefore ends with the same weights, bit for bit and on the same machine, as
one that never was. (CUDA's own sums are not repeatable to the bit.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ..data.images import ImageSet, Stretch
from ..diffusion.process import CRITERIA, WEIGHTS, Denoiser, LogNormal, Uniform
from ..errors import TrainingError
from ..lensing import parameters as conditions
from ..storage import fingerprint_of
from .state import load_state, save_state


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run.

    One of `steps` and `minutes` is the budget; a step is one update of the weights.
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
    # share of labels replaced by the null class, in a conditional network
    label_dropout: float = 0.1
    augment: bool = True  # by the data set's own symmetries
    seed: int = 0
    held_out_every: int = 0  # updates between held-out losses; 0: never
    held_out_images: int = 256
    save_every: int = 500  # updates between saved states, where `state` is given

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ParameterError("Give a budget: either steps or minutes, not both.")
        budget = self.minutes if self.steps is None else self.steps
        if budget <= 0 or self.batch < 1 or self.accumulation < 1 or self.batch % self.accumulation:
            raise ParameterError(
                "steps or minutes must be positive, and batch a multiple of accumulation."
            )
        if self.criterion not in CRITERIA or self.weight not in WEIGHTS:
            raise ParameterError(
                f"criterion must be one of {tuple(CRITERIA)}, weight one of {tuple(WEIGHTS)}."
            )


@dataclass
class Step:
    """One update.

    `loss` is the mean over the batch, all processes together; `held_out` is the EMA's loss where it
    was taken.
    """

    number: int
    images_seen: int
    loss: float
    lr: float
    seconds: float  # since the first start, without the time between a kill and its resume
    held_out: float | None
    model: Denoiser
    ema: Denoiser


def symmetry(x: Tensor, which: Tensor) -> Tensor:
    """Flip or turn each image of x (n, C, H, W) by element `which` (n,) of the eight: k % 4
    quarter turns, then a mirror where k >= 4.
    """
    turned = [torch.rot90(image, int(k) % 4, (-2, -1)) for image, k in zip(x, which, strict=True)]
    return torch.stack(
        [image.flip(-1) if k >= 4 else image for image, k in zip(turned, which, strict=True)]
    )


ELEMENTS = {1: (0,), 2: (0, 4), 8: tuple(range(8))}


class Batches:
    """The batch of update k: stretched images, labels, sigma and noise, a function of (seed, k)
    alone.

    `rows` are those to learn from; `net` is the network, which says whether labels are given.
    """

    def __init__(
        self,
        images: ImageSet,
        rows: np.ndarray,
        stretch: Stretch,
        config: TrainConfig,
        device: torch.device | str = "cpu",
        net: torch.nn.Module | None = None,
    ):
        self.images = images
        self.rows = rows
        self.stretch = stretch
        self.config = config
        self.device = device
        self.net = net
        self.epoch = -1
        self.order = rows
        self.labels = conditions.labels_for(net, images)

    def _rows(self, update: int) -> np.ndarray:
        """Rows of update k: the epochs' shuffled orders, one behind the other, cut into batches."""
        picked = []
        for position in range(update * self.config.batch, (update + 1) * self.config.batch):
            epoch, index = divmod(position, len(self.rows))
            if epoch != self.epoch:
                self.epoch = epoch
                self.order = np.random.default_rng([self.config.seed, 0, epoch]).permutation(
                    self.rows
                )
            picked.append(self.order[index])
        return np.array(picked)

    def __call__(self, update: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        config = self.config
        rows = self._rows(update)
        rng = np.random.default_rng([config.seed, 1, update])
        x = self.stretch(torch.from_numpy(self.images.pixels[rows]))
        which = np.zeros(len(rows), int)
        if config.augment and self.images.symmetries > 1:
            which = rng.choice(ELEMENTS[self.images.symmetries], len(rows))
            x = symmetry(x, which)
        # stratified: each batch covers all noise levels
        u = (rng.random() + np.arange(len(rows)) / len(rows)) % 1
        sigma = config.sigmas.at(torch.from_numpy(rng.permutation(u)))
        label = None
        if self.labels is not None:
            label = conditions.told(self.labels[rows], which).to(self.device)
            dropped = torch.from_numpy(rng.random(len(rows)) < config.label_dropout)
            label[dropped] = self.net.null(int(dropped.sum()), self.device)
        x = x.to(self.device, memory_format=torch.channels_last)
        generator = torch.Generator(self.device).manual_seed(config.seed * 1_000_003 + update)
        eps = torch.randn(x.shape, generator=generator, device=self.device).contiguous(
            memory_format=torch.channels_last
        )
        return x, label, sigma.to(self.device), eps


def learning_rate(config: TrainConfig, update: int, share: float) -> float:
    """Rate of update k, at `share` of the budget: linear warm-up, a plateau, and a linear fall
    over the last `decay_share`.
    """
    warm = min(1.0, (update + 1) / max(1, config.warmup_steps))
    return (
        config.lr * warm * min(1.0, (1 - share) / config.decay_share if config.decay_share else 1.0)
    )


@torch.no_grad()
def held_out_loss(
    denoiser: Denoiser,
    images: ImageSet,
    rows: np.ndarray,
    stretch: Stretch,
    config: TrainConfig,
    batch: int = 64,
) -> float:
    """Mean loss over `config.held_out_images` of `rows`, always with the same noise, so that two
    values can be compared.
    """
    device = next(denoiser.parameters()).device
    rows = rows[: config.held_out_images]
    generator = torch.Generator().manual_seed(config.seed)
    sigma = config.sigmas.at((torch.arange(len(rows)) + 0.5) / len(rows)).to(device)
    total = 0.0
    labels = conditions.labels_for(denoiser.net, images)
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        x = stretch(torch.from_numpy(images.pixels[rows[part]]))
        eps = torch.randn(x.shape, generator=generator)
        label = (
            None
            if labels is None
            else conditions.told(labels[rows[part]], np.zeros(len(x), int)).to(device)
        )
        loss = denoiser.loss(
            x.to(device), sigma[part], eps.to(device), label, config.criterion, config.weight
        )
        total += float(loss.sum())
    return total / len(rows)


def _gradients(
    wrapped: Denoiser, batch: tuple, config: TrainConfig, accelerator: Accelerator
) -> float:
    """Gradients of one update, over this process's share of each micro-batch; returns this
    process's mean loss.
    """
    x, label, sigma, eps = batch
    total = 0.0
    for micro in range(config.accumulation):
        size = config.batch // config.accumulation // accelerator.num_processes
        start = (micro * accelerator.num_processes + accelerator.process_index) * size
        part = slice(start, start + size)
        last = micro == config.accumulation - 1
        mine = None if label is None else label[part]
        with torch.enable_grad() if last else accelerator.no_sync(wrapped.net):
            loss = wrapped.loss(
                x[part], sigma[part], eps[part], mine, config.criterion, config.weight
            ).mean()
            accelerator.backward(loss / config.accumulation)
        total += float(loss.detach()) / config.accumulation
    return total


def run_fingerprint(
    denoiser: Denoiser, images: ImageSet, rows: np.ndarray, config: TrainConfig
) -> str:
    """What a saved state must agree with to be resumed: configuration, network, scaling, data
    and rows.
    """
    shapes = {name: list(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    what = [
        repr(config),
        shapes,
        denoiser.scaling.name,
        denoiser.data_std,
        denoiser.precision,
        images.fingerprint,
    ]
    return fingerprint_of([*what, [int(row) for row in rows]])


def _accelerator(precision: str) -> Accelerator:
    """An Accelerator with a gradient scaler for fp16, and no other precision of its own: the
    denoiser has that.
    """
    mixed = "fp16" if precision == "fp16" else "no"
    if AcceleratorState._shared_state.get("_mixed_precision", mixed) != mixed:
        AcceleratorState._reset_state()  # else accelerate refuses a second precision in one process
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed)


def ema_average(decay: float):
    """Exponential moving average; its decay after n updates is min(decay, (1 + n) / (10 + n)),
    so that short runs profit too.
    """

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return average


def train(
    denoiser: Denoiser,
    images: ImageSet,
    config: TrainConfig,
    stretch: Stretch | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    accelerator: Accelerator | None = None,
) -> Iterator[Step]:
    """Yield a `Step` after every update, until the budget is spent or the caller breaks.

    `rows` are the (train, held-out) indices, by default the set's own split; `state` is a folder to
    save in and to resume from. The network's precision is the denoiser's. Raises TrainingError
    where the loss is not finite or the batch can't be shared out, CheckpointError where `state`
    holds another run or a damaged one.
    """
    accelerator = accelerator or _accelerator(denoiser.precision)
    if config.batch % (config.accumulation * accelerator.num_processes):
        shares = f"{config.accumulation} micro-batches x {accelerator.num_processes} processes"
        raise TrainingError(
            f"batch = {config.batch} can't be shared by {shares}: make it a multiple."
        )
    run = _Run(
        denoiser,
        images,
        config,
        stretch or Stretch.of(images.pixels),
        rows or images.split(),
        accelerator,
    )
    update, seconds, loss = run.resume(state) if state else (0, 0.0, math.nan)
    started = time.monotonic() - seconds
    if run.spent(update, seconds):  # the state is that of a finished run: show it once
        yield Step(
            update, update * config.batch, loss, 0.0, seconds, None, denoiser, run.ema.module
        )
    while not run.spent(update, seconds):
        loss, lr = run.update(update, seconds)
        update = update + 1
        seconds = time.monotonic() - started
        last = run.spent(update, seconds)
        if state and (update % config.save_every == 0 or last) and accelerator.is_main_process:
            run.save(state, update, seconds, loss)
        held = None
        if config.held_out_every and (update % config.held_out_every == 0 or last):
            held = held_out_loss(run.ema.module, images, run.held_rows, run.batches.stretch, config)
        yield Step(update, update * config.batch, loss, lr, seconds, held, denoiser, run.ema.module)


class _Run:
    """What one training run holds: model, EMA, optimizer and the stream of batches."""

    def __init__(self, denoiser, images, config, stretch, rows, accelerator):
        self.config = config
        self.accelerator = accelerator
        self.denoiser = denoiser
        train_rows, self.held_rows = rows
        denoiser.to(accelerator.device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(
            denoiser.parameters(),
            config.lr,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.ema = (
            AveragedModel(denoiser, multi_avg_fn=ema_average(config.ema))
            .eval()
            .requires_grad_(False)
        )
        self.identity = run_fingerprint(denoiser, images, train_rows, config)
        net, self.optimizer = accelerator.prepare(denoiser.net, optimizer)
        self.wrapped = Denoiser(net, denoiser.scaling.name, denoiser.data_std, denoiser.precision)
        self.batches = Batches(
            images, train_rows, stretch, config, accelerator.device, denoiser.net
        )

    def share(self, update: int, seconds: float) -> float:
        """Share of the budget that is spent."""
        return (
            update / self.config.steps
            if self.config.steps
            else seconds / (60 * self.config.minutes)
        )

    def spent(self, update: int, seconds: float) -> bool:
        return self.share(update, seconds) >= 1

    def update(self, update: int, seconds: float) -> tuple[float, float]:
        """One update of the weights; returns (loss over all processes, learning rate)."""
        config = self.config
        accelerator = self.accelerator
        lr = learning_rate(config, update, self.share(update, seconds))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        device = accelerator.device
        # dropout's draws, too, depend on (seed, update) alone
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(
                (config.seed * 1_000_003 + update) * 1_009 + accelerator.process_index
            )
            loss = _gradients(self.wrapped, self.batches(update), config, accelerator)
        loss = float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), "mean"))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at update {update + 1}. Lower lr (now {lr:.2g}), or use "
                "precision bf16 or fp32."
            )
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), config.clip)
        # in fp16 the gradient scaler leaves such an update out
        if self.denoiser.precision != "fp16" and not torch.isfinite(norm):
            raise TrainingError(
                f"The gradients are not finite at update {update + 1}. Lower lr (now {lr:.2g})."
            )
        self.optimizer.step()
        self.ema.update_parameters(self.denoiser)
        return loss, lr

    def save(self, folder: Path | str, update: int, seconds: float, loss: float) -> None:
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        save_state(
            folder,
            self.identity,
            update,
            seconds,
            self._parts(),
            self.optimizer.optimizer,
            {"scaler": scaler, "loss": loss},
        )

    def resume(self, folder: Path | str) -> tuple[int, float, float]:
        spec = load_state(folder, self.identity, self._parts(), self.optimizer.optimizer)
        if spec.get("scaler"):
            self.accelerator.scaler.load_state_dict(spec["scaler"])
        return spec.get("update", 0), spec.get("seconds", 0.0), spec.get("loss", math.nan)

    def _parts(self) -> dict[str, torch.nn.Module]:
        return {"model": self.denoiser, "ema": self.ema}

"""The one training loop: budget, schedule, accumulation, EMA, clipping, held-out loss, resume.

A `Task` gives it batches and losses; the loop knows neither images nor noise. It is a generator of
steps, so that the caller logs, samples, or breaks:

    for step in Run(task, settings).steps("runs/state"):
        print(step.number, step.loss)

Every random draw of update k depends on (seed, k) alone. With a budget in steps, a run on CPUs that
was killed and resumed therefore ends with the same weights, bit for bit and on the same machine, as
one that never was. (CUDA's own sums are not repeatable to the bit.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import TrainingError
from ..runtime import enough_memory, processes, together
from .processes import accelerator_for, mean_over
from .state import SAVE_AFTER_S, load_state, save_state


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know; `steps` (a step is one update) or `minutes` is the budget."""

    lr: float
    batch: int  # images an update, over all micro-batches and processes
    steps: int | None = None
    minutes: float | None = None
    accumulation: int = 1  # micro-batches an update
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient
    ema: float | None = None  # decay of the average of the weights; None: no average
    warmup_steps: int = 0
    decay_share: float = 0.0  # of the budget, at its end, over which lr falls linearly to 0
    held_out_every: int = 0  # updates between held-out losses; 0: never
    save_every: int = 500  # updates between saved states, or three minutes
    seed: int = 0
    precision: str = "fp32"  # fp16 gets a gradient scaler
    first_update: int = 0  # updates of the stages before this one, from which numbers go on


class Task:
    """What the loop trains. A subclass gives `module`, `batch` and `loss`, and what else differs.

    - `module`: the network whose weights learn
    - `saved`: what a saved state holds and the average is taken of, where it is more than `module`
    """

    def __init__(self, module: nn.Module, saved: nn.Module | None = None):
        self.module = module
        self.saved = module if saved is None else saved

    def batch(self, update: int, device: torch.device) -> tuple:
        """Tensors (n, ...), or None, of update k; they depend on (seed, k) alone."""
        raise NotImplementedError

    def loss(self, module: nn.Module, part: tuple) -> Tensor:
        """Mean loss over a part of a batch; `module` is the network as the loop wraps it."""
        raise NotImplementedError

    def train_mode(self) -> None:
        """Called before each update."""
        self.saved.train()

    def learning_rate(self, settings: Settings, update: int, share: float) -> float:
        """The rate of update k, at `share` of the budget."""
        return learning_rate(settings, update, share)

    def random_seed(self, settings: Settings, update: int, process: int) -> int:
        """The seed of what update k draws inside the network (dropout)."""
        return (settings.seed * 1_000_003 + update) * 1_009 + process

    def after_update(self, accelerator: Accelerator) -> None:
        """Called after each update, for what learns without a gradient."""

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Scores on held-out data, `loss` among them, of `saved` or its average."""
        return {}


@dataclass
class Step:
    """One update. `loss` is the mean over the batch, all processes together."""

    number: int  # from 1
    images_seen: int
    loss: float
    lr: float
    seconds: float  # since the first start, without the time between a kill and its resume
    held_out: float | None  # loss on held-out data, where taken; of the average, if there is one
    model: nn.Module
    ema: nn.Module  # the average, or the model itself where there is none
    scores: dict[str, float] = field(default_factory=dict)  # further held-out scores


def learning_rate(settings: object, update: int, share: float) -> float:
    """Rate of update k, at `share` of the budget: linear warm-up, a plateau, and a linear fall.

    `settings` have `lr`, `warmup_steps` and `decay_share`, the part of the budget of the fall.
    """
    warm = min(1.0, (update + 1) / max(1, settings.warmup_steps))
    fall = (1 - share) / settings.decay_share if settings.decay_share else 1.0
    return settings.lr * warm * min(1.0, fall)


def at_once(config: object, most: int = 64) -> int:
    """Images of a held-out pass at once: at most those of a micro-batch, which have room."""
    return max(1, min(most, config.batch // config.accumulation // processes()))


def ema_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """Exponential moving average, as `AveragedModel` takes it.

    Its decay after n updates is min(decay, (1 + n) / (10 + n)), so that short runs profit too.
    """

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        now = min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(averaged, current, 1 - now)

    return average


class Run:
    """One training run: the task, its optimizer, the average of its weights, and its saved state.

    `identity` is what a saved state must agree with to be resumed. Raises TrainingError where the
    batch can't be shared by micro-batches and processes.
    """

    def __init__(
        self,
        task: Task,
        settings: Settings,
        identity: str = "",
        accelerator: Accelerator | None = None,
    ):
        self.task = task
        self.settings = settings
        self.identity = identity
        self.accelerator = accelerator or accelerator_for(settings.precision)
        count = self.accelerator.num_processes
        if settings.batch % (settings.accumulation * count):
            shares = f"{settings.accumulation} micro-batches x {count} processes"
            reason = f"batch = {settings.batch} can't be shared by {shares}"
            raise TrainingError(f"{reason}: make it a multiple.")
        device = self.accelerator.device
        cure = "Take a smaller batch (--batch), or more `accumulation` where there is one"
        self._needs = (f"{settings.batch // settings.accumulation} images", cure, device)
        task.saved.to(device, memory_format=torch.channels_last)
        weights = task.module.parameters()
        decay = settings.weight_decay
        optimizer = torch.optim.AdamW(
            weights, settings.lr, betas=settings.betas, weight_decay=decay, fused=True
        )
        self.average = None
        if settings.ema is not None:
            self.average = AveragedModel(task.saved, multi_avg_fn=ema_average(settings.ema))
            self.average.eval().requires_grad_(False)
        self.module, self.optimizer = self.accelerator.prepare(task.module, optimizer)
        # a task casts by itself: an fp16 wrapper would stay with the network after the run
        task.module.__dict__.pop("forward", None)

    @property
    def ema(self) -> nn.Module:
        """The average of the weights, or the model itself where there is none."""
        return self.task.saved if self.average is None else self.average.module

    def share(self, update: int, seconds: float) -> float:
        """Share of the budget that is spent."""
        if self.settings.steps is not None:
            return update / self.settings.steps
        return seconds / (60 * self.settings.minutes)

    def resume(self, folder: Path | str) -> tuple[int, float, float]:
        """Load the newest state in `folder`: (updates, seconds, loss); (0, 0, NaN) without one."""
        spec = load_state(folder, self.identity, self._parts(), self.optimizer.optimizer)
        if spec.get("scaler") and self.accelerator.scaler:  # a CPU has none
            self.accelerator.scaler.load_state_dict(spec["scaler"])
        return spec.get("update", 0), spec.get("seconds", 0.0), spec.get("loss", math.nan)

    def steps(self, state: Path | str | None = None, seconds_before: float = 0.0) -> Iterator[Step]:
        """Yield a `Step` after every update, until the budget is spent or the caller breaks.

        `state` is a folder to save in and to resume from; the last step of a finished run is
        yielded again. Raises TrainingError where loss or gradients are not finite, CheckpointError
        where `state` holds another run or a damaged one.
        """
        update, seconds, loss = self.resume(state) if state else (0, 0.0, math.nan)
        saved = time.monotonic()
        started = saved - seconds - seconds_before
        if self.share(update, seconds) >= 1:
            yield self._step(update, loss, 0.0, seconds, {})
        while self.share(update, seconds) < 1:
            with enough_memory(TrainingError, *self._needs), together(TrainingError):
                loss, lr = self.update(update, seconds)
            update += 1
            seconds = time.monotonic() - started
            if self.accelerator.num_processes > 1:
                with together(TrainingError):
                    seconds = mean_over(self.accelerator, seconds)  # all spend one budget
            last = self.share(update, seconds) >= 1
            every = self.settings.held_out_every
            number = update + self.settings.first_update
            look = every and (number % every == 0 or last)
            with enough_memory(TrainingError, *self._needs):
                scores = self.task.held_out(self.ema) if look else {}
            save = update % self.settings.save_every == 0 or last
            save = save or time.monotonic() - saved > SAVE_AFTER_S
            if state and save and self.accelerator.is_main_process:
                self.save(state, update, seconds, loss)
                saved = time.monotonic()
            yield self._step(update, loss, lr, seconds, scores)

    def _step(self, update: int, loss: float, lr: float, seconds: float, scores: dict) -> Step:
        number = update + self.settings.first_update
        others = {name: value for name, value in scores.items() if name != "loss"}
        return Step(
            number=number,
            images_seen=number * self.settings.batch,
            loss=loss,
            lr=lr,
            seconds=seconds,
            held_out=scores.get("loss"),
            model=self.task.saved,
            ema=self.ema,
            scores=others,
        )

    def update(self, update: int, seconds: float) -> tuple[float, float]:
        """One update of the weights; returns (loss over all processes, learning rate)."""
        task = self.task
        accelerator = self.accelerator
        lr = task.learning_rate(self.settings, update, self.share(update, seconds))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        task.train_mode()
        self.optimizer.zero_grad()
        device = accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            process = accelerator.process_index
            torch.manual_seed(task.random_seed(self.settings, update, process) % 2**64)
            loss = self._gradients(task.batch(update, device))
        loss = mean_over(accelerator, loss)
        number = update + 1 + self.settings.first_update
        if not math.isfinite(loss):
            cure = f"Lower lr (now {lr:.2g}), or use precision bf16 or fp32."
            raise TrainingError(f"The loss is {loss} at update {number}. {cure}")
        norm = accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        scaled = accelerator.scaler is not None  # it leaves such an update out
        if not scaled and not torch.isfinite(norm):
            reason = f"The gradients are not finite at update {number}"
            raise TrainingError(f"{reason}. Lower lr (now {lr:.2g}).")
        self.optimizer.step()
        task.after_update(accelerator)
        if self.average is not None:
            self.average.update_parameters(task.saved)
        return loss, lr

    def _gradients(self, batch: tuple) -> float:
        """Gradients of one update, over this process's share; returns this process's mean loss."""
        settings = self.settings
        accelerator = self.accelerator
        total = 0.0
        size = settings.batch // settings.accumulation // accelerator.num_processes
        for micro in range(settings.accumulation):
            start = (micro * accelerator.num_processes + accelerator.process_index) * size
            part = tuple(None if x is None else x[start : start + size] for x in batch)
            last = micro == settings.accumulation - 1
            with torch.enable_grad() if last else accelerator.no_sync(self.module):
                loss = self.task.loss(self.module, part)
                accelerator.backward(loss / settings.accumulation)
            total += float(loss.detach()) / settings.accumulation
        return total

    def save(self, folder: Path | str, update: int, seconds: float, loss: float) -> None:
        """Write the state after `update` updates."""
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        extra = {"scaler": scaler, "loss": loss}
        own = self.optimizer.optimizer
        save_state(folder, self.identity, update, seconds, self._parts(), own, extra)

    def _parts(self) -> dict[str, nn.Module]:
        if self.average is None:
            return {"model": self.task.saved}
        return {"model": self.task.saved, "ema": self.average}

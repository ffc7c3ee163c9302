"""Training a lens classifier: first the head on a frozen backbone, then everything; a generator
of steps, as `train` is.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.images import ImageSet
from ..errors import CheckpointError, DataError, TrainingError
from ..networks.classifier import LensClassifier, half, predict, read
from ..networks.classifier import load as load_classifier
from ..networks.classifier import save as save_classifier
from ..runtime import best_device, processor, progress
from ..storage import fingerprint_of, write_json
from .diffusion import ELEMENTS, learning_rate, symmetry
from .state import load_state, save_state

BALANCE = 0.8  # least number of images of a class, over that of the largest


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that decides the training of a classifier.

    `frozen_steps` updates of the head alone, then `steps` of everything.
    """

    steps: int = 1_000
    frozen_steps: int = 100
    batch: int = 32
    lr: float = 1e-3
    frozen_lr: float = 3e-3
    warmup_steps: int = 50
    decay_share: float = 1.0  # of the steps, at their end, over which lr falls linearly to 0
    weight_decay: float = 0.02
    clip: float = 5.0
    label_smoothing: float = 0.0
    # of the eight flips and turns (`train.symmetry`), to augment by; None: the data set's own
    elements: tuple[int, ...] | None = None
    seed: int = 0
    held_out_every: int = 0  # updates between held-out scores; 0: never
    save_every: int = 200

    def __post_init__(self) -> None:
        if self.steps < 1 or self.frozen_steps < 0 or self.batch < 2:
            raise ParameterError(
                "steps must be 1 or more, frozen_steps 0 or more and batch 2 or more."
            )
        if self.elements is not None and (
            not self.elements or not set(self.elements) <= set(range(8))
        ):
            raise ParameterError(f"elements are some of 0 to 7, got {self.elements}.")


@dataclass
class ClassifierStep:
    """One update. `held_out` is (loss, accuracy) on held-out rows, where they were taken."""

    number: int  # from 1; the frozen ones come first
    frozen: bool
    images_seen: int
    loss: float
    lr: float
    seconds: float
    held_out: tuple[float, float] | None


def checked(images: ImageSet, classes: tuple[str, ...], unbalanced: bool = False) -> None:
    """Raises DataError where labels are missing, not one for each image, out of range, of other
    classes, or (else) unbalanced.
    """
    if images.labels is None:
        raise DataError(
            f"{images.name} has no labels. Put its files into class folders: {', '.join(classes)}."
        )
    if len(images.labels) != len(images):
        raise DataError(
            f"{images.name}: {len(images.labels)} labels for {len(images)} images. Give one for "
            "each."
        )
    if images.classes and tuple(images.classes) != tuple(classes):
        raise DataError(
            f"{images.name} has the classes {images.classes}, the classifier {classes}. Take "
            "one that knows them."
        )
    wrong = np.flatnonzero((images.labels < 0) | (images.labels >= len(classes)))
    if len(wrong):
        raise DataError(
            f"{images.name}: image {wrong[0]} has the label {images.labels[wrong[0]]}; there "
            f"are 0 to {len(classes) - 1}."
        )
    count = np.bincount(images.labels, minlength=len(classes))
    told = ", ".join(f"{n} {name}" for n, name in zip(count, classes, strict=True))
    if not count.all():
        raise DataError(f"{images.name} lacks a class: {told}. Add its folder.")
    if not unbalanced and count.min() < BALANCE * count.max():
        raise DataError(
            f"{images.name} is unbalanced: {told}. Take learn.balanced(images), or say "
            "unbalanced=True (--unbalanced)."
        )


def balanced(images: ImageSet, seed: int = 0) -> ImageSet:
    """As many images of each class as the smallest has, chosen at random, in their old order."""
    rng = np.random.default_rng(seed)
    fewest = np.unique(images.labels, return_counts=True)[1].min()
    rows = [
        rng.choice(np.flatnonzero(images.labels == label), fewest, replace=False)
        for label in np.unique(images.labels)
    ]
    return images.subset(np.sort(np.concatenate(rows)), "balanced")


def batch_of(
    images: ImageSet, rows: np.ndarray, update: int, config: ClassifierConfig
) -> tuple[Tensor, Tensor]:
    """Images and labels of update k: shuffled epochs, one behind the other, each image turned at
    random; a function of (seed, k) alone.
    """
    picked = []
    order = rows
    current = -1
    for position in range(update * config.batch, (update + 1) * config.batch):
        epoch, index = divmod(position, len(rows))
        if epoch != current:
            current = epoch
            order = np.random.default_rng([config.seed, 0, epoch]).permutation(rows)
        picked.append(order[index])
    elements = ELEMENTS[images.symmetries] if config.elements is None else config.elements
    which = np.random.default_rng([config.seed, 1, update]).choice(elements, config.batch)
    x = torch.from_numpy(np.asarray(images.pixels[picked], np.float32))
    return symmetry(x, which), torch.from_numpy(np.asarray(images.labels)[picked])


def held_out(model: LensClassifier, images: ImageSet, rows: np.ndarray) -> tuple[float, float]:
    """(mean cross-entropy, accuracy) on `rows`."""
    logits = torch.from_numpy(predict(model, images, rows))
    labels = torch.from_numpy(np.asarray(images.labels)[rows])
    return float(F.cross_entropy(logits, labels)), float(
        (logits.argmax(1) == labels).float().mean()
    )


class _Run:
    """One stage of training: the frozen one learns the head alone, with the backbone's batch
    statistics as they came.
    """

    def __init__(
        self,
        model: LensClassifier,
        images: ImageSet,
        rows: np.ndarray,
        config: ClassifierConfig,
        frozen: bool,
    ):
        self.model = model
        self.images = images
        self.rows = rows
        self.config = config
        self.frozen = frozen
        self.device = next(model.parameters()).device
        learns = model.head if frozen else model
        self.lr, self.total = (
            (config.frozen_lr, config.frozen_steps) if frozen else (config.lr, config.steps)
        )
        self.optimizer = torch.optim.AdamW(
            learns.parameters(), self.lr, weight_decay=config.weight_decay, fused=True
        )

    def update(self, number: int) -> tuple[float, float]:
        """Update `number`, counted from 0 within the stage: (loss, learning rate)."""
        config = self.config
        first = 0 if self.frozen else self.config.frozen_steps
        lr = learning_rate(config, number, number / self.total) * self.lr / config.lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x, labels = (
            part.to(self.device)
            for part in batch_of(self.images, self.rows, first + number, config)
        )
        self.model.train()
        self.model.backbone.train(not self.frozen)
        self.optimizer.zero_grad()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(config.seed * 1_000_003 + first + number)  # dropout
            loss = F.cross_entropy(self._logits(x), labels, label_smoothing=config.label_smoothing)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], config.clip)
        if not math.isfinite(loss.item()) or not torch.isfinite(norm):
            raise TrainingError(
                f"The loss is {loss.item()} at update {first + number + 1}. Lower lr (now "
                f"{lr:.2g})."
            )
        self.optimizer.step()
        return loss.item(), lr

    def _logits(self, x: Tensor) -> Tensor:
        with half(self.device):
            if not self.frozen:
                return self.model(x).float()
            with torch.no_grad():
                maps = self.model.maps(x)
            return self.model.head(maps).float()


def train_classifier(
    model: LensClassifier,
    images: ImageSet,
    config: ClassifierConfig,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    unbalanced: bool = False,
) -> Iterator[ClassifierStep]:
    """Yield a step after every update: `frozen_steps` of the head, then `steps` of everything.

    `rows` are the (train, held-out) indices, by default the set's own split. With `state`, a
    folder, the second stage is saved and resumed. Raises DataError for labels that can't be learnt
    (see `checked`), TrainingError where the loss is not finite.
    """
    checked(images, model.classes, unbalanced)
    train_rows, held_rows = rows or images.split()
    model.to(best_device())
    identity = fingerprint_of(
        [asdict(config), model.arguments, images.fingerprint, [int(row) for row in train_rows]]
    )
    whole = _Run(model, images, train_rows, config, frozen=False)
    spec = load_state(state, identity, {"model": model}, whole.optimizer) if state else {}
    begun = spec.get("update", 0)
    started = time.monotonic() - spec.get("seconds", 0.0)
    stages = (
        [(_Run(model, images, train_rows, config, frozen=True), 0)]
        if config.frozen_steps and not begun
        else []
    )
    for stage, first in [*stages, (whole, begun)]:
        for number in range(first, stage.total):
            loss, lr = stage.update(number)
            done = number + 1 + (0 if stage.frozen else config.frozen_steps)
            last = number + 1 == stage.total
            held = None
            if config.held_out_every and (done % config.held_out_every == 0 or last):
                held = held_out(model, images, held_rows)
            seconds = time.monotonic() - started
            if state and not stage.frozen and ((number + 1) % config.save_every == 0 or last):
                save_state(
                    state, identity, number + 1, seconds, {"model": model}, whole.optimizer, {}
                )
            yield ClassifierStep(done, stage.frozen, done * config.batch, loss, lr, seconds, held)
    model.eval()


def _begin(model: LensClassifier, start: Path | str) -> list[dict]:
    """Give the model the weights of another; returns the stages before this one, each with what
    decided it and its SHA-256.
    """
    weights, spec = read(start)
    if spec["arguments"] != model.arguments:
        raise CheckpointError(
            f"{start}: made with {spec['arguments']}, not {model.arguments}. Take the same network."
        )
    model.load_state_dict(weights)
    names = ("config", "data", "images_seen", "seconds", "machine", "sha256", "curve")
    return [*spec.get("stages", []), {name: spec.get(name) for name in names}]


def fit_classifier(
    model: LensClassifier,
    images: ImageSet,
    config: ClassifierConfig,
    folder: Path | str,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    each: Callable[[ClassifierStep], object] | None = None,
    unbalanced: bool = False,
    start: Path | str | None = None,
) -> LensClassifier:
    """Train a classifier and save it in `folder`, with its curve;

    `each` is called after every update. Returns it as it was saved.

    With `start`, the folder of a classifier, training goes on from its weights with a fresh
    optimiser: a new stage, and recorded so. Arguments and errors as `train_classifier`;
    CheckpointError where the start is another network.
    """
    stages = _begin(model, start) if start else []
    path = Path(state) / "curve.json" if state else None
    curve = json.loads(path.read_text()) if path and path.exists() else []
    losses = []
    about = curve[-1] if curve else {}
    steps = train_classifier(model, images, config, rows, state, unbalanced)
    for step in progress(steps, config.frozen_steps + config.steps, "training the classifier"):
        losses.append(step.loss)
        about = {"images_seen": step.images_seen, "seconds": round(step.seconds, 1)}
        if step.held_out is not None:
            row = {
                "update": step.number,
                "loss": sum(losses) / len(losses),
                "held_out": step.held_out[0],
                "accuracy": step.held_out[1],
            }
            curve = [*(r for r in curve if r["update"] < step.number), {**row, **about}]
            losses = []
            if path:
                write_json(path, curve)
        if each is not None:
            each(step)
    save_classifier(
        folder,
        model,
        config=asdict(config),
        curve=curve,
        images_seen=about.get("images_seen", 0),
        seconds=about.get("seconds", 0.0),
        data={"name": images.name, "fingerprint": images.fingerprint, "images": len(images)},
        machine=processor(),
        stages=stages,
    )
    return load_classifier(folder)

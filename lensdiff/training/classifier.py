"""Training a lens classifier: first the head on a frozen backbone, then everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import ELEMENTS, ImageSet, Shuffle, symmetry
from ..data.labels import check_classes
from ..errors import CheckpointError, ParameterError
from ..networks import classifier
from ..networks.classifier import LensClassifier, half, predict
from ..runtime import once, processes, processor
from .checks import check_finite, check_rows, check_settings
from .loop import Run, Settings, Step, Task, learning_rate
from .processes import leave_out_unused, share_norms
from .state import Curve, run_identity, stages_of, turned


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that decides the training of a classifier.

    `frozen_steps` updates of the head alone, then `steps` of everything. Raises ParameterError for
    values that can't be used.
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
    # of the eight flips and turns (`data.images.symmetry`), to augment by; None: the data set's own
    elements: tuple[int, ...] | None = None
    seed: int = 0
    held_out_every: int = 0  # updates between held-out scores; 0: never
    save_every: int = 200  # updates between saved states, or three minutes

    def __post_init__(self) -> None:
        if self.steps < 1 or self.frozen_steps < 0 or self.batch < 2:
            raise ParameterError(
                "steps must be 1 or more, frozen_steps 0 or more and batch 2 or more."
            )
        check_settings(self)
        if not self.frozen_lr > 0:
            raise ParameterError(f"frozen_lr must be positive, got {self.frozen_lr}.")
        if self.elements is not None and (
            not self.elements or not set(self.elements) <= set(range(8))
        ):
            raise ParameterError(f"elements are some of 0 to 7, got {self.elements}.")

    def settings(self, frozen: bool) -> Settings:
        """What the loop needs of it, for the head on the frozen backbone or for everything."""
        return Settings(
            lr=self.frozen_lr if frozen else self.lr,
            batch=self.batch,
            steps=self.frozen_steps if frozen else self.steps,
            weight_decay=self.weight_decay,
            clip=self.clip,
            warmup_steps=self.warmup_steps,
            decay_share=self.decay_share,
            held_out_every=self.held_out_every,
            save_every=self.save_every,
            seed=self.seed,
            first_update=0 if frozen else self.frozen_steps,
        )


class Batches:
    """Images and labels of update k, each image turned at random: a function of (seed, k) alone."""

    def __init__(self, images: ImageSet, rows: np.ndarray, config: ClassifierConfig):
        self.images = images
        self.config = config
        self.shuffle = Shuffle(rows, config.batch, config.seed)

    def __call__(self, update: int) -> tuple[Tensor, Tensor]:
        """(images (batch, 1, H, W) in [0, 1], labels (batch,))."""
        config = self.config
        rows = self.shuffle(update)
        elements = config.elements
        if elements is None:
            elements = ELEMENTS[self.images.symmetries]
        which = np.random.default_rng([config.seed, 1, update]).choice(elements, config.batch)
        x = torch.from_numpy(np.asarray(self.images.pixels[rows], np.float32))
        check_finite(self.images.name, rows, x)
        labels = np.asarray(self.images.labels)[rows].astype(np.int64)
        return symmetry(x, which), torch.from_numpy(labels)


class ClassifierTask(Task):
    """A classifier to be trained: all of it, or with `frozen` the head alone.

    A frozen backbone keeps its batch statistics, too.
    """

    def __init__(
        self,
        model: LensClassifier,
        batches: Batches,
        held_rows: np.ndarray,
        frozen: bool,
    ):
        super().__init__(model.head if frozen else model, saved=model)
        self.batches = batches
        self.held_rows = held_rows
        self.frozen = frozen

    def batch(self, update: int, device: torch.device) -> tuple[Tensor, Tensor]:
        first = 0 if self.frozen else self.batches.config.frozen_steps
        images, labels = self.batches(first + update)
        return images.to(device), labels.to(device)

    def loss(self, module: nn.Module, part: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = part
        with half(images.device):
            if self.frozen:
                with torch.no_grad():
                    maps = self.saved.maps(images)
                logits = module(maps).float()
            else:
                logits = module(images).float()
        return F.cross_entropy(logits, labels, label_smoothing=self.batches.config.label_smoothing)

    def train_mode(self) -> None:
        self.saved.train()
        self.saved.backbone.train(not self.frozen)

    def learning_rate(self, settings: Settings, update: int, share: float) -> float:
        config = self.batches.config
        return learning_rate(config, update, share) * settings.lr / config.lr

    def random_seed(self, settings: Settings, update: int, process: int) -> int:
        return settings.seed * 1_000_003 + settings.first_update + update + 7_919 * process

    def held_out(self, model: LensClassifier) -> dict[str, float]:
        images = self.batches.images
        logits = torch.from_numpy(predict(model, images, self.held_rows))
        labels = torch.from_numpy(np.asarray(images.labels)[self.held_rows].astype(np.int64))
        loss = float(F.cross_entropy(logits, labels))
        return {"loss": loss, "accuracy": float((logits.argmax(1) == labels).float().mean())}


def train_classifier(
    model: LensClassifier,
    images: ImageSet,
    config: ClassifierConfig,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    unbalanced: bool = False,
    start: str = "",
) -> Iterator[Step]:
    """Yield a step after every update: `frozen_steps` of the head, then `steps` of everything.

    `rows` are the (train, held-out) indices, by default the set's own split. With `state`, a
    folder, the second stage is saved and resumed; `start` is the SHA-256 of the classifier whose
    weights the model has, if there is one: with another, a run is another run. Raises DataError for
    labels that can't be learnt (see `check_classes`), TrainingError where the loss is not finite.
    """
    check_classes(images, model.classes, unbalanced)
    if processes() > 1:
        share_norms(model)
        leave_out_unused(model, torch.zeros(1, 1, model.size, model.size))
    train_rows, held_rows = rows or images.split()
    check_rows((train_rows, held_rows), bool(config.held_out_every))
    about = [asdict(config), model.arguments, images.fingerprint]
    begun = start or model.begun
    more = [one for one in (begun, turned(images, config.elements is None)) if one]
    identity = run_identity(about, train_rows, *more)
    batches = Batches(images, train_rows, config)
    task = ClassifierTask(model, batches, held_rows, frozen=False)
    whole = Run(task, config.settings(frozen=False), identity)
    seconds = 0.0
    begun = whole.resume(state)[0] if state else 0
    if config.frozen_steps and not begun:
        head = ClassifierTask(model, batches, held_rows, frozen=True)
        for step in Run(head, config.settings(frozen=True)).steps():
            seconds = step.seconds
            yield step
    yield from whole.steps(state, seconds)
    model.eval()


def _start_from(model: LensClassifier, start: Path | str) -> list[dict]:
    """Give the model the weights of another; returns the stages before this one."""
    weights, spec = classifier.read(start)
    if spec["arguments"] != model.arguments:
        made = f"made with {spec['arguments']}, not {model.arguments}"
        raise CheckpointError(f"{start}: {made}. Take the same network.")
    model.load_state_dict(weights)
    return stages_of(spec, "config")


def fit_classifier(
    model: LensClassifier,
    images: ImageSet,
    config: ClassifierConfig,
    folder: Path | str,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    each: Callable[[Step], object] | None = None,
    unbalanced: bool = False,
    start: Path | str | None = None,
) -> LensClassifier:
    """Train a classifier and save it in `folder`, with its curve; returns it as it was saved.

    `each` is called after every update. With `start`, the folder of a classifier, training goes on
    from its weights with a fresh optimiser: a new stage, and recorded so. Other arguments and
    errors as `train_classifier`; CheckpointError where the start is another network.
    """
    stages = _start_from(model, start) if start else []
    curve = Curve(state)
    begun = stages[-1]["sha256"] if stages else ""
    steps = train_classifier(model, images, config, rows, state, unbalanced, begun)
    for step in curve.watch(steps, config.frozen_steps + config.steps, "training the classifier"):
        if each is not None:
            each(step)
    about = {
        "config": asdict(config),
        "curve": curve.rows,
        "images_seen": step.images_seen,
        "seconds": round(step.seconds, 1),
        "data": images.as_dict(),
        "machine": processor(),
        "stages": stages,
    }
    once(lambda: classifier.save(folder, model, **about))
    return classifier.load(folder)

"""What is refused before a training begins: settings out of range, folders that aren't free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import DataError, ParameterError
from ..storage import SPEC, check_free
from ..storage.places import check_writable

LEAST = {"save_every": 1, "held_out_every": 0, "held_out_images": 1, "warmup_steps": 0, "seed": 0}
LEAST |= {"weight_decay": 0}
SHARES = ("decay_share", "label_dropout", "label_smoothing", "ema")  # from 0 to 1


def check_finite(name: str, rows: np.ndarray, x: Tensor) -> None:
    """Raises DataError for NaN or infinity in the images x, (n, ...), which are these `rows`."""
    if not x.isfinite().all():
        wrong = rows[int((~x.isfinite()).flatten(1).any(1).nonzero()[0])]
        reason = f"image {wrong} holds NaN or infinity"
        raise DataError(f"{name}: {reason}. Take it out, or mend it.")


def check_settings(config: object) -> None:
    """Raises ParameterError for settings that no training can use, of any of the three kinds.

    `config` has `lr` and `clip`, and of `LEAST` and `SHARES` what its kind has; see `check_budget`
    for the others.
    """
    for name, least in LEAST.items():
        value = getattr(config, name, least)
        if not value >= least:  # NaN, too
            raise ParameterError(f"{name} must be {least} or more, got {value}.")
    for name in SHARES:
        value = getattr(config, name, None)
        if value is not None and not 0 <= value <= 1:
            raise ParameterError(f"{name} must lie between 0 and 1, got {value}.")
    for name in ("lr", "clip"):
        value = getattr(config, name)
        if not value > 0:
            raise ParameterError(f"{name} must be positive, got {value}.")


def check_budget(config: object) -> None:
    """Raises ParameterError unless there is one budget, and micro-batches share the batch."""
    if (config.steps is None) == (config.minutes is None):
        raise ParameterError("Give a budget: either steps or minutes, not both.")
    budget = config.minutes if config.steps is None else config.steps
    shared = config.batch > 0 and config.accumulation > 0
    if not budget > 0 or not shared or config.batch % config.accumulation:
        reason = "steps or minutes must be positive, and batch a multiple of accumulation"
        raise ParameterError(f"{reason}.")


def check_rows(rows: tuple[np.ndarray, np.ndarray], held_out: bool) -> None:
    """Raises ParameterError for no (train, held-out) rows where some are needed."""
    if not len(rows[0]) or (held_out and not len(rows[1])):
        cure = "Give more images, or other `rows`"
        counts = f"{len(rows[0])} images to train on and {len(rows[1])} held out"
        raise ParameterError(f"There are {counts}. {cure}.")


def check_places(folder: Path | str, state: Path | str | None) -> None:
    """See that a run can end well before it begins: that `folder` is free for the model.

    Raises StorageError where it holds something else than a model or can't be written, or `state`
    can't; ParameterError where `state` is or lies in it.
    """
    place = Path(folder)
    check_free(place, SPEC)
    check_writable((place.resolve() if place.is_symlink() else place.absolute()).parent)
    if state is None:
        return
    check_writable(Path(state))
    place = Path(state).resolve()
    if Path(folder).resolve() in (place, *place.parents):
        cure = "give the state a folder outside of it"
        raise ParameterError(f"{folder} is to hold the model: {cure}.")


def check_apart(folder: Path | str, autoencoder: Path | str | None) -> None:
    """Raises ParameterError where `folder` lies in the autoencoder's, which is copied into it."""
    if autoencoder and Path(folder).resolve().is_relative_to(Path(autoencoder).resolve()):
        raise ParameterError(f"{folder} lies in the folder of its autoencoder. Take another one.")

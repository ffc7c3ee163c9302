"""How a training is followed: lines on the screen, and TensorBoard or Weights & Biases.

The latter through accelerate's trackers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from ..errors import ParameterError
from ..runtime import best_device, is_main
from .loop import Step

PROJECT = "lensdiff"  # of Weights & Biases
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb"}  # and the package that each needs


def values(step: Step) -> dict[str, float]:
    """What is tracked of an update: loss, rate, images seen, and what was held out."""
    found = {"loss": step.loss, "lr": step.lr, "images_seen": step.images_seen}
    found |= {"seconds": step.seconds}
    if step.held_out is not None:
        found["held_out"] = step.held_out
    return found | step.scores


def report(step: Step) -> None:
    """Print a line every 50 updates, and wherever something was held out; of the main process."""
    if not is_main() or (step.number % 50 and step.held_out is None):
        return
    held = "" if step.held_out is None else f", held out {step.held_out:.4f}"
    for name, value in step.scores.items():
        held += f", {name} {value:.4f}"
    seen = f"update {step.number:,}, {step.images_seen:,} images"
    print(f"{time.strftime('%H:%M')}  {seen}: loss {step.loss:.4f}{held}", flush=True)


@contextmanager
def tracked(name: str, run: str, folder: Path) -> Iterator[Callable[[Step], None]]:
    """What is to be called after each update of the run; TensorBoard's files go into `folder`.

    Of several processes only the first tracks: some trackers would begin a run in each. Raises
    ParameterError for a tracker that there isn't, or whose package is not installed.
    """
    if name not in TRACKERS:
        raise ParameterError(f"There is no tracker {name!r}; there are {', '.join(TRACKERS)}.")
    PartialState(cpu=best_device() == "cpu")  # in each process: they find each other here
    if not is_main():
        yield lambda step: None
        return
    kind = LOGGER_TYPE_TO_CLASS[name]
    try:
        if name == "tensorboard":
            tracker = kind(run, logging_dir=str(folder))
        else:
            tracker = kind(PROJECT, name=run)
        tracker.start()
    except ImportError as error:
        cure = f"Install it: python -m pip install {TRACKERS[name]}"
        raise ParameterError(f"{name} is not installed. {cure}") from error
    except Exception as error:  # a tracker's own, without a key or a network, say
        reason = f"{name} does not start ({type(error).__name__}: {error})"
        raise ParameterError(
            f"{reason}. See its own documentation, or leave --track out."
        ) from error
    try:
        yield lambda step: tracker.log(values(step), step=step.number)
    finally:
        tracker.finish()

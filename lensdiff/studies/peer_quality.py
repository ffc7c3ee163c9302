"""Lenses drawn by other libraries' networks after thirty minutes of training, scored as ours are.

Each has its own recipe, precision bfloat16 where there is one, and its own best sampler, once in
the time that ours takes for an image, once in 250 calls.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import storage
from ..data.images import ImageSet, lenses
from ..runtime import best_device, progress
from ..scores.card import FIRST_SEED, SampleSizeWarning, card
from ..scores.features import extractor
from ..scores.jackknife import excess_errors
from ..scores.statistics import as_stored, reference, statistics
from . import cost, peers
from .ablations import keep_pictures
from .physics import physics
from .recipes import COLUMNS, FITTED, SCORED, SHOWN, mended

BUILDERS = {
    "denoising-diffusion-pytorch": peers.denoising_diffusion_pytorch,
    "diffusers": peers.diffusers,
}
SIDE = 64
MINUTES = 30
LONG = 250  # calls, as the best published FID was drawn
SAVE_S = 240
TIMED = 10  # updates, by which the number in thirty minutes is set
CHUNK = 64  # images drawn at once


def train(made: peers.Contender, updates: int | None, place: Path) -> tuple[int, float]:
    """Train for `updates`, or as many as fill the minutes; the state lies in `place`.

    Returns how many updates these were, and the median seconds of one. Weights, average and
    optimizer go on from where a killed run was; random draws are new ones.
    """
    done = 0
    if place.exists():
        state = torch.load(place, weights_only=True, map_location=best_device())
        for name, part in made.saved.items():
            part.load_state_dict(state[name])
        done = state["done"]
        updates = state["updates"]
        seconds = state["seconds"]
    else:
        seconds = update_seconds(made)
        done = TIMED
        updates = updates or round(60 * MINUTES / seconds)
    saved = time.monotonic()
    with progress(total=updates, what=place.stem) as bar:
        bar.update(done)
        while done < updates:
            next(made.updates)
            done += 1
            bar.update(1)
            if time.monotonic() - saved > SAVE_S or done >= updates:
                state = {name: part.state_dict() for name, part in made.saved.items()}
                state |= {"done": done, "updates": updates, "seconds": seconds}
                place.parent.mkdir(parents=True, exist_ok=True)
                with storage.atomic(place) as part:
                    torch.save(state, part)
                saved = time.monotonic()
    return updates, seconds


def update_seconds(made: peers.Contender) -> float:
    """Median seconds of `TIMED` updates, which count as training."""
    taken = []
    for _ in range(TIMED):
        start = time.perf_counter()
        next(made.updates)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def drawn(made: peers.Contender, n: int, calls: int) -> tuple[np.ndarray, float]:
    """Images as a PNG keeps them, and the seconds of one."""
    torch.manual_seed(FIRST_SEED)
    start = time.perf_counter()
    parts: list[Tensor] = [made.draw(min(CHUNK, n - i), calls) for i in range(0, n, CHUNK)]
    seconds = (time.perf_counter() - start) / n
    return as_stored(torch.cat(parts)), seconds


def scored(net: nn.Module, images: np.ndarray, test: ImageSet, calls: int) -> dict:
    """The card of images drawn by a peer's own sampler, with the errors of distance and excess."""
    n = len(images)
    found = statistics(net, torch.from_numpy(images).split(64), n, "generated lenses")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleSizeWarning)
        words = f"its own sampler in {calls} calls"
        made = card(net, found, test, words, calls, FIRST_SEED, n).as_dict()
    real = (reference(net, test, rows) for rows in (range(n), range(n, 2 * n)))
    errors = excess_errors(found, *real)
    return made | {"distance_error": errors.distance, "excess_error": errors.excess}


def quality(
    name: str, image_s: float, out: Path, work: Path, updates: int | None = None, n: int = SCORED
) -> dict:
    """Train and score one peer; `image_s` are the seconds that ours takes for an image."""
    torch.manual_seed(0)
    pixels = torch.from_numpy(np.array(lenses("train", SIDE).pixels))
    made = BUILDERS[name](SIDE, True, pixels)
    own = "" if updates is None else f"-{updates}"  # a trial's state is no other run's
    updates, update_s = train(made, updates, work / f"{name}{own}.pt")
    call_s = cost.seconds(lambda: made.draw(16, 2)) / 32
    net = extractor("efficientnet", best_device())
    test = lenses("test", SIDE)
    found = {"updates": updates, "update_s": update_s, "parameters": made.parameters}
    found |= {"images_seen": updates * peers.BATCH, "call_s": call_s}
    for what, calls in (("equal_time", max(2, round(image_s / call_s))), ("long", LONG)):
        images, seconds = drawn(made, n, calls)
        images, constant = mended(images)
        keep_pictures(out / "benchmark" / f"{name}-{what}.png", images[:SHOWN], COLUMNS)
        row = {"card": scored(net, images, test, calls), "image_s": seconds}
        found[what] = {**row, "constant": constant}
        found[what]["physics"] = physics(images, test.pixels[:n], FITTED)
    return found

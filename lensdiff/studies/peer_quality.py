"""Lenses drawn by other libraries' networks after as much training time as ours, scored alike.

The recipe `ours` has the updates that fill thirty minutes of two cores. A peer has those that take
as long as these: both train in turns, on any machine, and the ratio of the times of an update says
how many. Each has its own recipe, bfloat16 where there is one, and the best of its library's
samplers: in the time that ours takes for an image, and in `LONG` calls; with the averaged weights
or the last, whichever are better.
"""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import storage
from ..data.images import ImageSet, lenses
from ..runtime import best_device, best_precision, progress
from ..scores.card import FIRST_SEED
from ..scores.distances import frechet
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..training.diffusion import train as train_ours
from ..training.published import OURS, PUBLISHED
from . import cost, peers
from .ablations import keep_pictures
from .paired import alternate
from .peers import BUILDERS
from .physics import physics
from .recipes import COLUMNS, FITTED, SCORED, mended, scored

SIDE = 64
LONG = 50  # calls, where ours has 20; the peers' guides take 64 to 1,000: minutes to hours here
SHOWN = 16  # generated images whose picture is kept
CHOSEN = 128  # images by which the average or the last weights are chosen
EQUAL = "equal time"
WAYS = (EQUAL, "long")
SAVE_S = 240
TIMED = 10  # updates of each, in turns, by which a peer's number is set
CHUNK = 64  # images drawn at once


def equal_updates(made: peers.Contender) -> dict:
    """How many updates take as long as those of the recipe `ours`, and median seconds of both.

    The peer's updates count as training: there are `TIMED` and one.
    """
    plan = PUBLISHED[OURS].recipe
    config = replace(plan.train, held_out_every=0)
    ours = train_ours(plan.denoiser(), peers.random_images(SIDE), config)
    works = {"ours": lambda: next(ours), "peer": lambda: next(made.updates)}
    taken = {name: float(np.median(each)) for name, each in alternate(works, TIMED).items()}
    updates = round(plan.train.steps * taken["ours"] / taken["peer"])
    return {"updates": updates, "update_s": taken["peer"], "ours_update_s": taken["ours"]}


def train(made: peers.Contender, updates: int | None, place: Path) -> dict:
    """Train for `updates`, or for as long as ours; the state lies in `place`.

    Returns the number of updates, and seconds of one. Weights, average and optimizer go on from
    where a killed run was, with random draws that it had not yet.
    """
    done = 0
    if place.exists():
        state = torch.load(place, weights_only=True, map_location=best_device())
        for name, part in made.saved.items():
            part.load_state_dict(state[name])
        done = state["done"]
        found = state["found"]
        torch.manual_seed(done)
    else:
        found = equal_updates(made)
        done = TIMED + 1
        found["updates"] = updates or found["updates"]
    saved = time.monotonic()
    with progress(total=found["updates"], what=place.stem, done=done) as bar:
        while done < found["updates"]:
            next(made.updates)
            done += 1
            bar.update(1)
            if time.monotonic() - saved > SAVE_S or done >= found["updates"]:
                state = {name: part.state_dict() for name, part in made.saved.items()}
                state |= {"done": done, "found": found}
                place.parent.mkdir(parents=True, exist_ok=True)
                with storage.atomic(place) as part:
                    torch.save(state, part)
                saved = time.monotonic()
    return found


def drawn(
    made: peers.Contender, n: int, calls: int, averaged: bool = True, sampler: str = ""
) -> tuple[np.ndarray, float]:
    """Images as a PNG keeps them, and the seconds of one; by its first sampler if none is named."""
    torch.manual_seed(FIRST_SEED)
    how = (calls, averaged, sampler or next(iter(made.samplers)))
    start = time.perf_counter()
    parts: list[Tensor] = [made.draw(min(CHUNK, n - i), *how) for i in range(0, n, CHUNK)]
    seconds = (time.perf_counter() - start) / n
    return as_stored(torch.cat(parts)), seconds


def weights_by_distance(
    made: peers.Contender, net: nn.Module, test: ImageSet, calls: int, n: int
) -> dict:
    """The distance of `n` images drawn with the averaged weights, and with the last ones.

    An average is made for long trainings: in a short one it may still hold early weights.
    """
    real = reference(net, test, range(n))
    averages = {"average": True, "last": False}
    return {name: far(made, net, real, calls, one) for name, one in averages.items()}


def samplers_by_distance(
    made: peers.Contender, net: nn.Module, test: ImageSet, calls: int, n: int, weights: dict
) -> dict:
    """The distance of `n` images drawn by each of a library's samplers, in as many calls.

    `weights` is what `weights_by_distance` found: the better ones draw, and the first sampler has
    its distance there. Seeds and test images are the first of those that are scored, which favours
    the peer.
    """
    real = reference(net, test, range(n))
    averaged = better(weights)
    first, *others = made.samplers
    own = {name: far(made, net, real, calls, averaged, name) for name in others}
    return {first: min(weights.values())} | own


def better(weights: dict) -> bool:
    """Whether the averaged weights are the better ones, by `weights_by_distance`."""
    return weights["average"] <= weights["last"]


def far(
    made: peers.Contender,
    net: nn.Module,
    real: Statistics,
    calls: int,
    averaged: bool,
    sampler: str = "",
) -> float:
    """The distance of images, as many as `real` are of, drawn in one way."""
    images = drawn(made, real.n, calls, averaged, sampler)[0]
    parts = torch.from_numpy(mended(images)[0]).split(64)
    return frechet(statistics(net, parts, real.n, "generated lenses"), real)


def image_seconds() -> float:
    """Seconds that the recipe `ours`, trained for as long, takes for an image here."""
    plan = PUBLISHED[OURS].recipe
    net = plan.denoiser().to(best_device(), memory_format=torch.channels_last)
    x = torch.randn(16, 1, plan.pixels, plan.pixels, device=best_device())
    with torch.no_grad():
        return plan.sampling.calls * cost.seconds(lambda: net(x, 1.0)) / len(x)


def quality(
    name: str, how: str, out: Path, work: Path, updates: int | None = None, n: int = SCORED
) -> dict:
    """Train one peer, if it isn't yet, and score what it draws in one of `WAYS`."""
    torch.manual_seed(0)
    pixels = torch.from_numpy(np.array(lenses("train", SIDE).pixels))
    made = BUILDERS[name](SIDE, True, pixels)
    kind = f"-{best_device()}-{best_precision()}"
    other = "" if kind == "-cpu-bf16" else kind
    version = metadata.version(name)  # another one trains anew
    own = "" if updates is None else f"-{updates}"  # a trial's state is no other run's
    found = train(made, updates, work / f"{name}-{version}{own}{other}.pt")
    call_s = cost.seconds(lambda: made.draw(16, 2, True)) / 32
    found |= {"parameters": made.parameters, "images_seen": found["updates"] * peers.BATCH}
    found |= {"call_s": call_s, "ours_image_s": image_seconds()}
    equal = max(2, round(found["ours_image_s"] / call_s))
    calls = equal if how == EQUAL else LONG
    net = extractor("efficientnet", best_device())
    test = lenses("test", SIDE)
    by_weights = weights_by_distance(made, net, test, calls, min(n, CHOSEN))
    found["distance_by_weights"] = by_weights
    by_sampler = samplers_by_distance(made, net, test, calls, min(n, CHOSEN), by_weights)
    best = min(by_sampler, key=by_sampler.get)
    calls -= calls % made.samplers[best]
    found |= {"distance_by_sampler": by_sampler, "sampler": best}
    images, found["image_s"] = drawn(made, n, calls, better(by_weights), best)
    images, found["constant"] = mended(images)
    place = out / "benchmark" / f"{name}-{how.replace(' ', '-')}{other}.png"
    keep_pictures(place, images[:SHOWN], COLUMNS)
    card = scored(net, images, test, f"{best} in {calls} calls", calls)
    found |= {"picture": place.name, "card": card}
    return {**found, "physics": physics(images, test.pixels[:n], FITTED)}

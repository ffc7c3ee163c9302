"""The trainings of `study choices`: what each tries, its images, its optimiser."""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass, field, replace

import numpy as np

from .. import model as models
from ..data.images import ImageSet, lenses
from ..diffusion.process import LogNormal
from ..errors import ParameterError
from ..lensing.population import rotated
from ..lensing.simulate import simulate
from ..lensing.telescope import min_max
from ..model import Model
from ..runtime import progress
from ..storage import fingerprint_of
from ..training.diffusion import DiffusionTask
from ..training.loop import Run
from ..training.recipe import Recipe
from ..training.recipes import LENS64_LONG, LENS150, TINY
from .muon import Muon

SHIPPED = "lens64-long"
PIXELS = 64
STEPS = 1_000  # updates of 32 images, from random weights
STEPS_ON = 150  # from the weights of the shipped model
COPIES = 3  # of each learnt lens, by other angles; as many others in their place


@dataclass(frozen=True)
class Choice:
    """What a row tries: settings of its training, its images ("own", "rotated", "more")."""

    words: str
    changes: dict = field(default_factory=dict)
    muon: bool = False
    learns: str = "own"
    goes_on: bool = False


CHOICES = {
    "control": Choice("ln σ ~ N(0.6, 1.5²), batch 32, AdamW"),
    "lower": Choice("ln σ ~ N(−1.2, 1.4²)", {"sigmas": LogNormal(-1.2, LENS150.train.sigmas.std)}),
    "balanced": Choice("loss balanced over noise levels", {"balance": True}),
    "batch-16": Choice("batch 16, twice the updates", {"batch": 16, "steps": 2 * STEPS}),
    "muon": Choice("Muon for matrices and convolutions", muon=True),
    "on": Choice("the 9,000 lenses that it knows", goes_on=True),
    "on-balanced": Choice("the same, loss balanced", {"balance": True}, goes_on=True),
    "rotated": Choice("each by three more angles", learns="rotated", goes_on=True),
    "more": Choice("27,000 others beside them", learns="more", goes_on=True),
}


def recipe(name: str, seed: int, steps: int | None = None) -> Recipe:
    """The recipe of a choice: a tiny network from random weights, or the shipped one trained on."""
    choice = CHOICES[name]
    if choice.goes_on:
        changes = {"steps": STEPS_ON, "lr": 4e-4, "warmup_steps": 50, "decay_share": 1.0}
        plan = LENS64_LONG
    else:
        changes = {"steps": STEPS, "lr": 2e-3, "warmup_steps": 50, "ema": 0.995}
        plan = replace(LENS64_LONG, network=TINY.network)
    changes |= {"seed": seed, "learns": (), "held_out_every": 0, **choice.changes}
    if steps is not None:
        changes["steps"] = steps * 32 // changes.get("batch", 32)
    return replace(plan.scaled(**changes), name=f"choices-{name}")


@functools.cache
def images_of(learns: str) -> tuple[ImageSet, tuple[np.ndarray, np.ndarray]]:
    """Noiseless lenses of `PIXELS` a side, and the (train, held-out) rows.

    "own" are those of all recipes; "rotated" has each learnt one in further angles, simulated anew,
    and "more" as many other lenses.
    """
    own = lenses("train", PIXELS, noiseless=True)
    learnt, held = own.split()
    if learns == "own":
        return own, (learnt, held)
    count = COPIES * len(learnt)
    rows = np.concatenate([learnt, len(own) + np.arange(count)])
    if learns == "more":
        return lenses("train", PIXELS, len(own) + count, noiseless=True), (rows, held)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, count)
    truth = rotated(np.tile(own.truth[learnt], COPIES), angles)
    light = np.concatenate(list(simulate(truth, own.unobserved, noiseless=True)))
    every = replace(
        own,
        name=f"{own.name}, and turned",
        pixels=np.concatenate([own.pixels, min_max(light)[:, None]]),
        fingerprint=fingerprint_of([own.fingerprint, "turned", angles.tolist()]),
        folder=None,
        labels=np.concatenate([own.labels, truth["label"]]),
        truth=np.concatenate([own.truth, truth]),
    )
    return every, (rows, held)


def training(choice: Choice, plan: Recipe, shipped: Model) -> Run:
    """The training of a choice, which has not begun; its network may be that of `shipped`."""
    images, rows = images_of(choice.learns)
    denoiser = shipped.denoiser if choice.goes_on else plan.denoiser()
    task = DiffusionTask(denoiser, images, plan.train, shipped.stretch, rows)
    found = Run(task, plan.train.settings(denoiser.precision))
    if choice.muon and found.accelerator.scaler is not None:
        cure = "Set LENSDIFF_PRECISION to fp32"
        raise ParameterError(f"Muon is not scaled for fp16, as this device has it. {cure}.")
    if choice.muon:
        found.optimizer = Muon(denoiser.net, ("stem", "exit"), plan.train.lr)
    return found


def trained(name: str, seed: int, args: argparse.Namespace) -> Model:
    """The model of a choice, from its folder where it lies there already, made of the same."""
    folder = args.work / f"{name}-{seed}"
    choice = CHOICES[name]
    plan = recipe(name, seed, args.steps)
    shipped = models.load(SHIPPED)
    data = images_of(choice.learns)[0].as_dict()
    what = [plan.as_dict(), choice.muon, choice.goes_on, data, shipped.spec["sha256"]]
    made_of = fingerprint_of(what)
    if folder.exists():
        model = models.load(folder)
        if model.spec.get("made_of") == made_of:
            return model
    steps = training(choice, plan, shipped).steps()
    *_, last = progress(steps, plan.train.steps, f"training {plan.name}")
    kept = {key: shipped.spec[key] for key in ("telescope", "sampling", "classes")}
    about = {"recipe": plan.as_dict(), "seconds": round(last.seconds)}
    about |= {"made_of": made_of, "data": data}
    about |= {"images_seen": last.images_seen, "curve": [], "stages": []}
    network = shipped.spec["network"]["arguments"] if choice.goes_on else plan.network
    given = (folder, last.ema, network, shipped.stretch, PIXELS)
    return models.load(models.save(*given, **kept, **about))

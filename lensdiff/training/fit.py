"""From a recipe and images to a model.

It is the one way that the notebooks, the command line and the studies take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from .. import model as models
from ..data.images import ImageSet, Stretch
from ..data.labels import check_classes
from ..diffusion.process import Denoiser
from ..errors import CheckpointError, DataError
from ..lensing.telescope import Telescope
from ..networks.classifier import LensClassifier
from ..runtime import processor, progress
from .classifier import fit_classifier
from .diffusion import train
from .loop import Step
from .recipes import ClassifierRecipe, Recipe
from .state import Curve, stages_of
from .transfer import copy_weights, transplant

HELD_OUT = 1 / 30  # of a classifier's training images: for its curve and its temperature


def _check_labels(
    recipe: Recipe, images: ImageSet, start: models.Model | None, unbalanced: bool
) -> None:
    """Hold the classes of the images against those of the recipe and of the start.

    Raises DataError where they can't be learnt, CheckpointError where the start knows others.
    """
    count = recipe.network.get("classes", 0)
    names = images.classes
    if not count:
        return
    if names and len(names) != count:
        cure = f'Take a recipe with network={{..., "classes": {len(names)}}}, or other folders.'
        counts = f"{len(names)} classes ({', '.join(names)}), {recipe.name} is for {count}"
        raise DataError(f"{images.name} has {counts}. {cure}")
    check_classes(images, names or tuple(f"class {k}" for k in range(count)), unbalanced)
    known = names
    if start and start.denoiser.net.classes:
        known = tuple(start.spec.get("classes", ()))
    if known != names:
        differs = f"it knows the classes {known}, not {names}"
        raise CheckpointError(f"{start.folder}: {differs}. Start from a model without classes.")


def _begin(
    recipe: Recipe, images: ImageSet, start: models.Model | None
) -> tuple[Denoiser, Stretch]:
    """The denoiser that training begins with, and its stretch."""
    denoiser = recipe.denoiser()
    if start is None:
        return denoiser, Stretch.of(images.pixels)
    if start.denoiser.net.unshuffle < denoiser.net.unshuffle:
        transplant(start.denoiser, denoiser)
        return denoiser, Stretch.of(images.pixels)
    copy_weights(start, denoiser)
    # the sky of noiseless images is 0, that of observed ones is not
    same_kind = (start.telescope is None) == (images.unobserved is None)
    return denoiser, start.stretch if same_kind else Stretch.of(images.pixels)


def _telescope(recipe: Recipe, images: ImageSet) -> Telescope:
    """What adds the survey's noise to the images of a model that learns noiseless ones."""
    if images.unobserved is None:
        cure = "Take ld.lenses(..., noiseless=True), or set noiseless=False in the recipe."
        needs = f"{recipe.name} learns noiseless images, which only a simulation has"
        raise DataError(f"{images.name}: {needs}. {cure}")
    return Telescope.of(images.truth, images.unobserved)


def fit(
    recipe: Recipe | ClassifierRecipe,
    images: ImageSet,
    folder: Path | str,
    state: Path | str | None = None,
    each: Callable[[Step], object] | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    start: models.Model | Path | str | None = None,
    unbalanced: bool = False,
) -> models.Model | LensClassifier:
    """Train a recipe on images and save the model in `folder`; `each` is called after every update.

    With `state`, a folder, the run can be killed and called again. `rows` are the (train, held-out)
    indices, by default the set's own split. With `start`, a model or the name of one, training goes
    on from its weights, with a fresh optimiser: a new stage, and recorded so. Returns the model as
    it was saved. Raises DataError where the images don't suit the recipe, CheckpointError where the
    start doesn't, TrainingError where training fails.
    """
    if isinstance(recipe, ClassifierRecipe):
        return _fit_classifier(recipe, images, folder, state, each, rows, start, unbalanced)
    if isinstance(start, str | Path):
        start = models.load(start)
    if isinstance(start, LensClassifier):
        raise CheckpointError(f"{recipe.name} can't start from a classifier. Take a denoiser.")
    return _fit_denoiser(recipe, images, Path(folder), state, each, rows, start, unbalanced)


def _fit_classifier(
    recipe: ClassifierRecipe,
    images: ImageSet,
    folder: Path | str,
    state: Path | str | None,
    each: Callable[[Step], object] | None,
    rows: tuple[np.ndarray, np.ndarray] | None,
    start: Path | str | None,
    unbalanced: bool,
) -> LensClassifier:
    """A classifier of the recipe; a new stage trains the whole network from its first update."""
    if start is not None and not isinstance(start, str | Path):
        needs = "starts from a classifier's folder or its name"
        raise CheckpointError(f"{recipe.name} {needs}, not from a {type(start).__name__}.")
    config = recipe.train
    if start is not None:
        start = models.find(start)
        config = replace(config, frozen_steps=0)
    rows = rows or images.split(HELD_OUT)
    torch.manual_seed(config.seed)
    net = LensClassifier(**recipe.model)
    return fit_classifier(net, images, config, folder, rows, state, each, unbalanced, start)


def _fit_denoiser(
    recipe: Recipe,
    images: ImageSet,
    folder: Path,
    state: Path | str | None,
    each: Callable[[Step], object] | None,
    rows: tuple[np.ndarray, np.ndarray] | None,
    start: models.Model | None,
    unbalanced: bool,
) -> models.Model:
    """A diffusion model, saved with the average of its weights."""
    channels, height, width = images.pixels.shape[1:]
    if height != width:
        raise DataError(
            f"{images.name}: images of {width} x {height} pixels are not square. Crop them."
        )
    _check_labels(recipe, images, start, unbalanced)
    more = {"telescope": _telescope(recipe, images).as_dict()} if recipe.noiseless else {}
    recipe = replace(recipe, network={**recipe.network, "image_channels": channels})
    denoiser, stretch = _begin(recipe, images, start)
    curve = Curve(state)
    steps = train(denoiser, images, recipe.train, stretch, rows, state)
    for step in progress(steps, recipe.train.steps, f"training {recipe.name}"):
        curve.add(step)
        if each is not None:
            each(step)
    more["recipe"] = recipe.as_dict()
    more["sampling"] = asdict(recipe.sampling)
    more["curve"] = curve.rows
    more["classes"] = list(images.classes)
    more["data"] = images.as_dict()
    more["images_seen"] = step.images_seen
    more["seconds"] = round(step.seconds)
    more["stages"] = stages_of(start.spec if start else None, "recipe")
    more["machine"] = processor()
    models.save(folder, step.ema, recipe.network, stretch, height, **more)
    return models.load(folder)

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
from ..data.images import CHOSEN, ImageSet, Stretch, split_rows
from ..data.labels import check_classes
from ..diffusion.process import Denoiser
from ..errors import CheckpointError, DataError, ParameterError
from ..lensing.population import KINDS
from ..lensing.telescope import Telescope
from ..networks import latent
from ..networks.classifier import LensClassifier
from ..networks.latent import Latent
from ..networks.unet import UNet
from ..runtime import once, processor
from .autoencoder import fit_autoencoder
from .checks import check_apart, check_places
from .classifier import fit_classifier
from .diffusion import train
from .latents import encoded, expanded
from .loop import Step
from .recipe import AutoencoderRecipe, ClassifierRecipe, Recipe, sampling_fields
from .state import Curve, stages_of
from .transfer import copy_weights, transplant

PEAKS = 10_000  # lenses, at most, whose brightest pixels a telescope knows
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
    folders = KINDS if count == len(KINDS) else tuple(f"class {k}" for k in range(count))
    check_classes(images, names or folders, unbalanced)
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
    nets = (start.denoiser.net, denoiser.net)
    _check_widths(recipe, start)
    if all(isinstance(net, UNet) for net in nets) and nets[0].unshuffle != nets[1].unshuffle:
        _check_field(recipe.name, nets[1].unshuffle, images, start)
        try:
            transplant(start.denoiser, denoiser)
        except CheckpointError as error:
            raise CheckpointError(f"{start.folder}: {error}") from error
        return denoiser, Stretch.of(images.pixels)
    copy_weights(start, denoiser)
    # the sky of noiseless images is 0, that of observed ones is not; other images differ in light
    same_kind = (start.telescope is None) == (images.unobserved is None)
    learnt = (start.spec.get("data") or {}).get("name", images.name)
    same_kind &= images.name.removesuffix(", as latents") == learnt
    return denoiser, start.stretch if same_kind else Stretch.of(images.pixels)


def _check_field(name: str, fold: int, images: ImageSet, start: models.Model) -> None:
    """Raise CheckpointError for coarser pixels than the start's that can't be of the same field.

    Both networks fold their pixels into cells, which then are about as many.
    """
    known = start.denoiser.net.unshuffle
    side = images.pixels.shape[-1]
    cells = -(-side // fold)
    has = -(-start.denoised_shape[-1] // known)
    if fold < known and not 0.8 <= cells / has <= 1.25:
        reason = f"it folds its images into {has} x {has} cells, {name} into {cells}"
        cure = f"Take a recipe that folds {side} pixels as it does, or its own"
        raise CheckpointError(f"{start.folder}: {reason} x {cells}. {cure}.")


def _check_widths(recipe: Recipe, start: models.Model) -> None:
    """Raise CheckpointError for a start of other channels than the recipe's."""
    has = start.spec["network"]["arguments"].get("channels")
    wants = recipe.network.get("channels")
    if has and wants and tuple(has) != tuple(wants):
        same = not has[0] % 16 and [*recipe.widened(has[0]).network["channels"]] == [*has]
        cure = f"Take --width {has[0]}, or a start as wide" if same else "Take a start as wide"
        raise CheckpointError(f"{start.folder} has channels {(*has,)}, not {(*wants,)}. {cure}.")


def _telescope(recipe: Recipe, images: ImageSet) -> Telescope:
    """What adds the survey's noise to the images of a model that learns noiseless ones."""
    if images.unobserved is None:
        cure = "Take ld.lenses(..., noiseless=True), or set noiseless=False in the recipe."
        needs = f"{recipe.name} learns noiseless images, which only a simulation has"
        raise DataError(f"{images.name}: {needs}. {cure}")
    return Telescope.of(images.truth[:: -(-len(images) // PEAKS)], images.unobserved)


def _autoencoder(
    recipe: Recipe, given: Latent | Path | str | None, start: models.Model | None
) -> Latent | None:
    """The autoencoder whose latents are learnt: the one given, else the recipe's; None for pixels.

    Raises CheckpointError where the start learnt those of another, ParameterError where turned
    latents are to have lens parameters.
    """
    given = given or recipe.autoencoder
    found = given if isinstance(given, Latent) else latent.load(given) if given else None
    if start is not None:
        before = start.autoencoder and start.autoencoder.sha256
        if before != (found and found.sha256):
            other = "pixels, or latents of another autoencoder"
            raise CheckpointError(f"{start.folder} learnt {other}. Start from a model of the same.")
    if recipe.network.get("conditions") and tuple(recipe.elements) != (0,):
        reason = "lens parameters do not turn with latents"
        raise ParameterError(f"{recipe.name}: {reason}. Set elements=(0,) in the recipe.")
    return found


def fit(
    recipe: Recipe | ClassifierRecipe | AutoencoderRecipe,
    images: ImageSet,
    folder: Path | str,
    state: Path | str | None = None,
    each: Callable[[Step], object] | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    start: models.Model | Path | str | None = None,
    unbalanced: bool = False,
    autoencoder: Latent | Path | str | None = None,
) -> models.Model | LensClassifier | Latent:
    """Train a recipe on images and save the model in `folder`; `each` is called after every update.

    With `state`, a folder, the run can be killed and called again. `rows` are the (train, held-out)
    indices, by default the set's own split. With `start`, a model or the name of one, training goes
    on from its weights, with a fresh optimiser: a new stage, and recorded so. With `autoencoder`, a
    folder, in place of the recipe's, a diffusion model learns its latents. Returns the model as it
    was saved. Raises DataError where the images don't suit the recipe, CheckpointError where the
    start or the autoencoder doesn't, TrainingError where training fails, StorageError where
    `folder` holds something else than a model or can't be written, ParameterError where `state`
    lies in `folder`, or `folder` in the autoencoder's, where there are no rows, where turned
    latents are to have lens parameters, or where only some weights are to learn and there is no
    start.
    """
    check_places(folder, state)
    if isinstance(recipe, AutoencoderRecipe):
        return _fit_autoencoder(recipe, images, folder, state, each, rows, start)
    _check_square(images)
    if isinstance(recipe, ClassifierRecipe):
        return _fit_classifier(recipe, images, folder, state, each, rows, start, unbalanced)
    start = _started(recipe, start)
    _check_labels(recipe, images, start, unbalanced)
    found = _autoencoder(recipe, autoencoder, start)
    check_apart(folder, None if found is None else found.folder)
    return _fit_denoiser(recipe, images, Path(folder), state, each, rows, start, found)


def _started(recipe: Recipe, start: models.Model | Path | str | None) -> models.Model | None:
    """The model that training goes on from.

    Raises CheckpointError for a model of another kind, ParameterError where there is none, and only
    some weights are to learn.
    """
    if isinstance(start, str | Path):
        start = models.load(start)
    if start is not None and not isinstance(start, models.Model):
        kind = "a classifier" if isinstance(start, LensClassifier) else "an autoencoder"
        raise CheckpointError(f"{recipe.name} can't start from {kind}. Take a denoiser.")
    if recipe.train.learns and start is None:
        reason = f"{recipe.name} lets only some weights learn, and the others would stay random"
        raise ParameterError(f"{reason}. Give a `start` (--start).")
    return start


def _check_square(images: ImageSet) -> None:
    height, width = images.pixels.shape[-2:]
    if height != width:
        raise DataError(
            f"{images.name}: images of {width} x {height} pixels are not square. Crop them."
        )


def _fit_autoencoder(
    recipe: AutoencoderRecipe,
    images: ImageSet,
    folder: Path | str,
    state: Path | str | None,
    each: Callable[[Step], object] | None,
    rows: tuple[np.ndarray, np.ndarray] | None,
    start: object,
) -> Latent:
    """An autoencoder, for images of their own channels, mean and std."""
    if start is not None:
        raise CheckpointError(f"{recipe.name}: autoencoders start anew. Leave `start` out.")
    if images.symmetries == 8 and recipe.train.augment:
        _check_square(images)  # quarter turns need it
    stretch = Stretch.of(images.pixels)
    own = {"image_channels": images.pixels.shape[1], "image_mean": stretch.mean}
    recipe = replace(recipe, network={**recipe.network, **own, "image_std": stretch.std})
    more = {"name": recipe.name, "recipe": asdict(recipe)}
    arguments = recipe.network
    net = recipe.net()
    return fit_autoencoder(net, images, recipe.train, folder, arguments, rows, state, each, **more)


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
    autoencoder: Latent | None,
) -> models.Model:
    """A diffusion model of images or their latents, saved with the average of its weights."""
    size = images.pixels.shape[-1]
    more = {"data": images.as_dict(), "classes": list(images.classes)}
    if rows is not None and np.isin(split_rows(len(images))[1], rows[0]).any():
        more["data"] |= {"rows": CHOSEN}  # `ImageSet.unseen` can't know the others
    more |= {"telescope": _telescope(recipe, images).as_dict()} if recipe.noiseless else {}
    if autoencoder is not None:
        rows = expanded(rows or images.split(), len(images), recipe.elements)
        images = encoded(images, autoencoder, recipe.elements)
    channels = images.pixels.shape[1]
    recipe = replace(recipe, network={**recipe.network, "image_channels": channels})
    denoiser, stretch = _begin(recipe, images, start)
    curve = Curve(state)
    # without a start the stretch is that of the images, which a state knows already
    begun = {} if start is None else {"stretch": stretch, "start": start.spec["sha256"]}
    steps = train(denoiser, images, recipe.train, rows=rows, state=state, **begun)
    for step in curve.watch(steps, recipe.train.steps, f"training {recipe.name}"):
        if each is not None:
            each(step)
    more["recipe"] = recipe.as_dict()
    more["sampling"] = sampling_fields(recipe.sampling)
    more["curve"] = curve.rows
    more["images_seen"] = step.images_seen
    more["seconds"] = round(step.seconds)
    more["stages"] = stages_of(start.spec if start else None, "recipe")
    more["machine"] = processor()
    given = (folder, step.ema, recipe.network, stretch, size, autoencoder)
    once(lambda: models.save(*given, **more))
    return models.load(folder)

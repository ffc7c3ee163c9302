"""Recipes: everything that decides a model, in one frozen object, and the way from a recipe and
images to a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from .. import model as checkpoint
from ..data.images import TEST_IMAGES, TEST_SEED, TRAIN_SEED, ImageSet, Stretch, simulated
from ..diffusion.process import Denoiser, LogNormal
from ..diffusion.sampling import Sampling
from ..errors import CheckpointError, DataError
from ..lensing.parameters import SPINS
from ..lensing.survey import Survey, diverse, model_i
from ..lensing.telescope import Telescope
from ..networks.unet import UNet
from ..runtime import best_precision, processor, progress
from ..storage import write_json
from .classifier import ClassifierConfig, checked
from .diffusion import Step, TrainConfig, train
from .transfer import transplant

JUDGE_SEED = 4  # of the lenses that judge64 learns from: those of data/sample have 3


@dataclass(frozen=True)
class Recipe:
    """Network, prediction, training and sampling of a model.

    `network` holds arguments of `networks.UNet`.
    """

    name: str
    train: TrainConfig
    network: dict = field(default_factory=dict)
    prediction: str = "edm"
    sampling: Sampling = field(default_factory=Sampling)
    # of the simulated lenses it is meant for; other square images are taken as they are
    pixels: int = 64
    # learns the simulation's light alone; the telescope's noise is added to what it draws
    noiseless: bool = False

    def denoiser(self, precision: str | None = None) -> Denoiser:
        """A fresh denoiser, its weights drawn from the training seed."""
        torch.manual_seed(self.train.seed)
        return Denoiser(
            UNet(**self.network), self.prediction, precision=precision or best_precision()
        )

    def as_dict(self) -> dict:
        """The recipe for a JSON file; the last two fields are left out where they have their
        defaults, as in files older than they.
        """
        standard = {"pixels": 64, "noiseless": False}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in standard or value != standard[name]
        }


LENS64 = Recipe(
    name="lens64",
    network={"channels": (48, 96, 144), "blocks": 2, "attention_levels": (2,), "unshuffle": 2},
    train=TrainConfig(
        steps=4_300,
        batch=32,
        lr=6e-4,
        ema=0.999,
        sigmas=LogNormal(-1.0, 1.4),
        held_out_every=250,
        save_every=250,
    ),
    # the last guess takes away what the network adds to the survey's own noise of about 0.03
    sampling=Sampling(steps=28, low=0.018),
)
LENS150 = Recipe(
    name="lens150",
    # inside, the grid of lens64
    network={"channels": (48, 96, 144), "blocks": 2, "attention_levels": (2,), "unshuffle": 5},
    train=TrainConfig(
        steps=3_200,
        batch=32,
        lr=6e-4,
        ema=0.999,
        decay_share=0.5,
        sigmas=LogNormal(-0.3, 1.4),
        weight="edm",
        held_out_every=250,
        save_every=250,
    ),
    # smooth, as noiseless lenses are: 25 folded pixels of noise need not pass through 48 channels
    prediction="x0",
    # many pixels see one shape together: only such noise hides it
    sampling=Sampling(steps=20, high=160.0, low=0.06),
    pixels=150,
    noiseless=True,
)
TINY = Recipe(
    name="tiny",
    network={"channels": (32, 64, 96), "blocks": 1, "attention_levels": (2,), "unshuffle": 4},
    train=TrainConfig(
        minutes=2, batch=32, lr=2e-3, ema=0.99, warmup_steps=20, sigmas=LogNormal(-1.0, 1.4)
    ),
    sampling=Sampling(steps=20),
)
# a new stage of lens64, told the class: `fit(..., start=load(shipped("lens64")))`
CLASSES64_FIRST = Recipe(
    name="classes64-first",
    network={**LENS64.network, "classes": 3},
    train=TrainConfig(
        steps=2_400,
        batch=32,
        lr=4e-4,
        ema=0.999,
        decay_share=0.6,
        sigmas=LogNormal(-1.0, 1.4),
        held_out_every=200,
        save_every=200,
    ),
    sampling=Sampling(steps=20, high=80.0, low=0.03),
    # substructure shows in small features of the light; the telescope's noise would hide them from
    # the loss
    noiseless=True,
)
# and one of that, at the noise where the class decides most: below sigma = 0.5
CLASSES64 = replace(
    CLASSES64_FIRST,
    name="classes64",
    train=replace(CLASSES64_FIRST.train, steps=3_200, lr=6e-4, sigmas=LogNormal(-1.5, 1.4)),
)
# a new stage of classes64-first, told seven lens parameters in place of the class
FIRST64 = replace(
    CLASSES64_FIRST,
    name="parameters64-first",
    train=replace(CLASSES64_FIRST.train, steps=1_200, lr=6e-4),
    network={**LENS64.network, "conditions": 7, "spins": SPINS},
)
# and one of that: what is told decides the whole lens, and so at high noise, which the first stage
# hardly saw
PARAMETERS64 = replace(
    FIRST64,
    name="parameters64",
    train=replace(
        FIRST64.train, steps=900, warmup_steps=50, decay_share=0.7, sigmas=LogNormal(1.0, 1.4)
    ),
)
RECIPES = {
    recipe.name: recipe
    for recipe in (LENS64, LENS150, TINY, CLASSES64_FIRST, CLASSES64, FIRST64, PARAMETERS64)
}


@dataclass(frozen=True)
class ClassifierRecipe:
    """Network, training and data of a lens classifier.

    `model` holds arguments of `classify.LensClassifier`.
    """

    name: str
    train: ClassifierConfig
    survey: Survey
    model: dict = field(default_factory=dict)
    n_train: int = 30_000
    n_test: int = 7_500
    train_seed: int = TRAIN_SEED

    def images(self, cache: Path | str | None = None) -> tuple[ImageSet, ImageSet]:
        """The simulated images to train on, and those to test on."""
        sizes = (self.n_train, self.train_seed), (self.n_test, TEST_SEED)
        return tuple(simulated(self.survey, n, seed, cache=cache) for n, seed in sizes)


# Common Test I: Model I at 150 pixels, of which the central 100 hold all the light
LENSNET = ClassifierRecipe(
    name="lensnet",
    model={"size": 100},
    train=ClassifierConfig(
        steps=3_700,
        frozen_steps=100,
        lr=8e-4,
        warmup_steps=100,
        elements=(0, 2),
        held_out_every=300,
        save_every=300,
        # element 2, half a turn, is Model I's own symmetry: its lens and its source have two axes
        # each,
        # and nothing else is fixed
    ),
    survey=model_i(),
)
# of drawn lenses: it learns the population of the conditional models, from lenses that they never
# saw
JUDGE64 = ClassifierRecipe(
    name="judge64",
    # 64 pixels, enlarged: the backbone folds by 32, and would leave a map of 2 x 2
    model={"size": 96, "view": "resize"},
    train=ClassifierConfig(
        steps=1_600, frozen_steps=100, lr=8e-4, warmup_steps=100, held_out_every=300, save_every=300
    ),
    survey=diverse(64),
    n_test=TEST_IMAGES,
    train_seed=JUDGE_SEED,
)
CLASSIFIERS = {recipe.name: recipe for recipe in (LENSNET, JUDGE64)}

# arguments of UNet: the shipped one, and what published solutions to the same task took
NETWORKS = {
    "lens64": LENS64.network,
    "openai_small": {
        "channels": (64, 128, 192, 256),
        "blocks": 2,
        "attention_levels": (2, 3),
        "unshuffle": 1,
    },
    "four_levels": {
        "channels": (32, 64, 128, 256),
        "blocks": 2,
        "attention_levels": (),
        "unshuffle": 1,
        "embedding": "add",
    },
    "four_levels_expanded": {
        "channels": (64, 128, 256, 512),
        "blocks": 2,
        "attention_levels": (),
        "unshuffle": 1,
        "embedding": "add",
    },
    "four_levels_twice_expanded": {
        "channels": (128, 256, 512, 1024),
        "blocks": 2,
        "attention_levels": (),
        "unshuffle": 1,
        "embedding": "add",
    },
    "five_levels": {
        "channels": (64, 128, 128, 256, 512),
        "blocks": 2,
        "attention_levels": (3,),
        "unshuffle": 1,
        "embedding": "add",
    },
}


def scaled(recipe: Recipe, **changes) -> Recipe:
    """The recipe with other training settings (fields of TrainConfig);

    `steps` and `minutes` replace each other.
    """
    if "steps" in changes or "minutes" in changes:
        changes = {"steps": None, "minutes": None, **changes}
    return replace(recipe, train=replace(recipe.train, **changes))


def widened(recipe: Recipe, width: int) -> Recipe:
    """The recipe with `width` channels at its first level, and the others in proportion, each a
    multiple of 16.

    Raises ValueError below 16.
    """
    if width < 16:
        raise ParameterError(f"width must be 16 or more, got {width}.")
    first, *_ = channels = recipe.network["channels"]
    return replace(
        recipe,
        network={
            **recipe.network,
            "channels": tuple(16 * round(c * width / first / 16) for c in channels),
        },
    )


class _Curve:
    """Train and held-out loss as they fall; kept beside the state, so that a resumed run has all
    of it.
    """

    def __init__(self, state: Path | str | None):
        self.path = Path(state) / "curve.json" if state else None
        self.rows = json.loads(self.path.read_text()) if self.path and self.path.exists() else []
        self.losses: list[float] = []

    def add(self, step: Step) -> None:
        self.losses.append(step.loss)
        if step.held_out is None:
            return
        row = {
            "update": step.number,
            "images_seen": step.images_seen,
            "loss": sum(self.losses) / len(self.losses),
        }
        row |= {"held_out": step.held_out, "seconds": round(step.seconds, 1)}
        self.rows = [*(r for r in self.rows if r["update"] < step.number), row]
        self.losses = []
        if self.path:
            write_json(self.path, self.rows)


def _stages(start: checkpoint.Checkpoint | None) -> list[dict]:
    """The stages before this one, each with its recipe, what it saw, and the SHA-256 of the
    weights it ended with.
    """
    if start is None:
        return []
    names = ("recipe", "data", "images_seen", "seconds", "machine", "sha256", "curve")
    return [*start.spec.get("stages", []), {name: start.spec.get(name) for name in names}]


def _telescope(recipe: Recipe, images: ImageSet) -> Telescope:
    if images.unobserved is None:
        cure = "Take data.lenses(..., noiseless=True), or set noiseless=False in the recipe."
        raise DataError(
            f"{images.name}: {recipe.name} learns noiseless images, which only a simulation "
            f"has. {cure}"
        )
    return Telescope.of(images.truth, images.unobserved)


def _check_classes(
    recipe: Recipe, images: ImageSet, start: checkpoint.Checkpoint | None, unbalanced: bool
) -> None:
    """Raises DataError or CheckpointError where a network told classes can't learn these, or the
    start was told other ones.
    """
    count = recipe.network.get("classes", 0)
    names = images.classes
    if not count:
        return
    if names and len(names) != count:
        cure = f'Take a recipe with network={{..., "classes": {len(names)}}}, or other folders.'
        raise DataError(
            f"{images.name} has {len(names)} classes ({', '.join(names)}), {recipe.name} is "
            f"told {count}. {cure}"
        )
    checked(images, names or tuple(f"class {k}" for k in range(count)), unbalanced)
    known = tuple(start.spec.get("classes", ())) if start and start.denoiser.net.classes else names
    if known != names:
        raise CheckpointError(
            f"{start.folder}: it knows the classes {known}, not {names}. Start from a model "
            "without classes."
        )


def _begin(
    recipe: Recipe, images: ImageSet, start: checkpoint.Checkpoint | None
) -> tuple[Denoiser, Stretch]:
    """The denoiser that training begins with, and its stretch."""
    denoiser = recipe.denoiser()
    if start is None:
        return denoiser, Stretch.of(images.pixels)
    if start.denoiser.net.unshuffle < denoiser.net.unshuffle:
        transplant(start.denoiser, denoiser)
        return denoiser, Stretch.of(images.pixels)
    checkpoint.copy_weights(start, denoiser)
    # the sky of noiseless images is 0, that of observed ones is not
    same_kind = (start.telescope is None) == (images.unobserved is None)
    return denoiser, start.stretch if same_kind else Stretch.of(images.pixels)


def fit(
    recipe: Recipe,
    images: ImageSet,
    folder: Path | str,
    state: Path | str | None = None,
    each: Callable[[Step], object] | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    start: checkpoint.Checkpoint | None = None,
    unbalanced: bool = False,
) -> checkpoint.Checkpoint:
    """Train a recipe on images and save the EMA's weights in `folder`, with its curve;

    `each` is called after every update.

    With `state`, a folder, the run can be killed and called again. `rows` are the (train, held-out)
    indices, by default the set's own split. With `start`, training goes on from a checkpoint's
    weights and stretch, with a fresh optimiser: a new stage, and recorded so. A start that folds
    fewer pixels is transplanted, and the stretch is then that of `images`. Raises DataError where
    the images are not square, observed ones though the recipe needs noiseless ones, or in classes
    that a network told classes can't learn (a missing one, or, without `unbalanced`, unequal ones);
    CheckpointError where the start has another network or knows other classes.
    """
    channels, height, width = images.pixels.shape[1:]
    if height != width:
        raise DataError(
            f"{images.name}: images of {width} x {height} pixels are not square. Crop them."
        )
    _check_classes(recipe, images, start, unbalanced)
    telescope = {"telescope": _telescope(recipe, images).as_dict()} if recipe.noiseless else {}
    recipe = replace(recipe, network={**recipe.network, "image_channels": channels})
    denoiser, stretch = _begin(recipe, images, start)
    curve = _Curve(state)
    updates = train(denoiser, images, recipe.train, stretch, rows, state)
    for step in progress(updates, recipe.train.steps, f"training {recipe.name}"):
        curve.add(step)
        if each is not None:
            each(step)
    checkpoint.save(
        folder,
        step.ema,
        recipe.network,
        stretch,
        height,
        recipe=recipe.as_dict(),
        sampling=asdict(recipe.sampling),
        curve=curve.rows,
        classes=list(images.classes),
        data={"name": images.name, "fingerprint": images.fingerprint, "images": len(images)},
        images_seen=step.images_seen,
        seconds=round(step.seconds),
        stages=_stages(start),
        machine=processor(),
        **telescope,
    )
    return checkpoint.load(folder)

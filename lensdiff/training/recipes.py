"""Recipes: everything that decides a model, in one frozen object."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from ..data.images import TEST_IMAGES, TEST_SEED, TRAIN_SEED, ImageSet, lenses, simulated
from ..diffusion.process import Denoiser, LogNormal
from ..errors import ParameterError
from ..lensing.parameters import SPINS
from ..lensing.survey import Survey, diverse, model_i
from ..model import Sampling
from ..networks.unet import UNet
from ..runtime import best_precision
from .classifier import ClassifierConfig
from .diffusion import TrainConfig

JUDGE_SEED = 4  # of the lenses that judge64 learns from: those of data/sample have 3


@dataclass(frozen=True)
class Recipe:
    """Network, prediction, training and sampling of a diffusion model.

    - `network`: arguments of `networks.unet.UNet`
    - `pixels`: of the simulated lenses it is meant for; other square images are taken as they are
    - `noiseless`: it learns the simulation's light alone; a telescope adds the noise to its images
    """

    name: str
    train: TrainConfig
    network: dict = field(default_factory=dict)
    prediction: str = "edm"
    sampling: Sampling = field(default_factory=Sampling)
    pixels: int = 64
    noiseless: bool = False

    def denoiser(self, precision: str | None = None) -> Denoiser:
        """A fresh denoiser; the training seed decides its weights."""
        torch.manual_seed(self.train.seed)
        precision = precision or best_precision()
        return Denoiser(UNet(**self.network), self.prediction, precision=precision)

    def images(self, split: str = "train", cache: Path | str | None = None) -> ImageSet:
        """The default lenses of its size, with or without noise as it learns them."""
        return lenses(split, self.pixels, cache=cache, noiseless=self.noiseless)

    def scaled(self, **changes: object) -> Recipe:
        """The recipe with other training settings (fields of TrainConfig).

        `steps` and `minutes` replace each other. Raises ParameterError for values out of range.
        """
        if "steps" in changes or "minutes" in changes:
            changes = {"steps": None, "minutes": None, **changes}
        return replace(self, train=replace(self.train, **changes))

    def widened(self, width: int) -> Recipe:
        """The recipe with `width` channels at its first level, and the others in proportion.

        Each is a multiple of 16. Raises ParameterError below 16.
        """
        if width < 16:
            raise ParameterError(f"width must be 16 or more, got {width}.")
        channels = self.network["channels"]
        wider = tuple(16 * round(c * width / channels[0] / 16) for c in channels)
        return replace(self, network={**self.network, "channels": wider})

    def as_dict(self) -> dict:
        """The recipe for a JSON file.

        The last two fields are left out where they have their defaults, as in older files.
        """
        standard = {"pixels": 64, "noiseless": False}
        fields = asdict(self)
        for name, value in standard.items():
            if fields[name] == value:
                del fields[name]
        return fields


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
    # the last estimate takes away what the network adds to the survey's own noise of about 0.03
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
# A second stage of lens150, at the noise where the shape of a lens is decided: most of what was
# missing came from above sigma = 5, which 9 % of the first stage's draws had.
LENS150_LONG = replace(
    LENS150,
    name="lens150-long",
    train=replace(
        LENS150.train,
        steps=7_400,
        batch=128,
        lr=8e-4,
        decay_share=0.6,
        sigmas=LogNormal(1.5, 1.5),
        held_out_every=500,
        save_every=500,
    ),
)
TINY = Recipe(
    name="tiny",
    network={"channels": (32, 64, 96), "blocks": 1, "attention_levels": (2,), "unshuffle": 4},
    train=TrainConfig(
        minutes=2, batch=32, lr=2e-3, ema=0.99, warmup_steps=20, sigmas=LogNormal(-1.0, 1.4)
    ),
    sampling=Sampling(steps=20),
)
# A new stage of lens64, with the class as its condition: `fit(..., start="lens64")`.
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
    noiseless=True,  # the telescope's noise would hide substructure from the loss
)
# And one of that, at the noise where the class decides most: below sigma = 0.5.
CLASSES64 = replace(
    CLASSES64_FIRST,
    name="classes64",
    train=replace(CLASSES64_FIRST.train, steps=3_200, lr=6e-4, sigmas=LogNormal(-1.5, 1.4)),
)
# A new stage of classes64-first, with seven lens parameters as its condition in place of the class.
PARAMETERS64_FIRST = replace(
    CLASSES64_FIRST,
    name="parameters64-first",
    train=replace(CLASSES64_FIRST.train, steps=1_200, lr=6e-4),
    network={**LENS64.network, "conditions": 7, "spins": SPINS},
)
# And one of that: the parameters decide the whole lens, and so at high noise, which came rarely.
PARAMETERS64 = replace(
    PARAMETERS64_FIRST,
    name="parameters64",
    train=replace(
        PARAMETERS64_FIRST.train,
        steps=900,
        warmup_steps=50,
        decay_share=0.7,
        sigmas=LogNormal(1.0, 1.4),
    ),
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        LENS64,
        LENS150,
        LENS150_LONG,
        TINY,
        CLASSES64_FIRST,
        CLASSES64,
        PARAMETERS64_FIRST,
        PARAMETERS64,
    )
}


@dataclass(frozen=True)
class ClassifierRecipe:
    """Network, training and data of a lens classifier.

    `model` holds arguments of `networks.classifier.LensClassifier`.
    """

    name: str
    train: ClassifierConfig
    survey: Survey
    model: dict = field(default_factory=dict)
    n_train: int = 30_000
    n_test: int = 7_500
    train_seed: int = TRAIN_SEED

    def images(self, split: str = "train", cache: Path | str | None = None) -> ImageSet:
        """The simulated images to train on, or those to test on (`split` "test")."""
        if split == "test":
            return simulated(self.survey, self.n_test, TEST_SEED, cache=cache)
        return simulated(self.survey, self.n_train, self.train_seed, cache=cache)

    def scaled(self, **changes: object) -> ClassifierRecipe:
        """The recipe with other training settings (fields of ClassifierConfig)."""
        return replace(self, train=replace(self.train, **changes))


# Common Test I: Model I at 150 pixels, of which the central 100 hold all the light. Element 2, half
# a turn, is Model I's own symmetry: lens and source have two axes each, and nothing else is fixed.
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
    ),
    survey=model_i(),
)
# The judge of conditional models: it learns their population, from lenses that they never saw.
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


def _published(channels: tuple[int, ...], attention_levels: tuple[int, ...] = ()) -> dict:
    """Arguments of a UNet as solutions with a plain DDPM had it: no folding, embeddings added."""
    return {
        "channels": channels,
        "blocks": 2,
        "attention_levels": attention_levels,
        "unshuffle": 1,
        "embedding": "add",
    }


# Arguments of UNet: the shipped one, and what published solutions to the same task took.
NETWORKS = {
    "lens64": LENS64.network,
    "openai_small": {
        "channels": (64, 128, 192, 256),
        "blocks": 2,
        "attention_levels": (2, 3),
        "unshuffle": 1,
    },
    "four_levels": _published((32, 64, 128, 256)),
    "four_levels_expanded": _published((64, 128, 256, 512)),
    "four_levels_twice_expanded": _published((128, 256, 512, 1024)),
    "five_levels": _published((64, 128, 128, 256, 512), attention_levels=(3,)),
}

"""What a recipe is: of a diffusion model, of an autoencoder, and of a classifier."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import torch

from ..data.colour import colour_lenses
from ..data.digits import digits
from ..data.folders import common_test, folder, pictures
from ..data.images import TEST_SEED, TRAIN_SEED, ImageSet, lenses, share_of, simulated
from ..data.parts import parts_of, simulated_parts
from ..diffusion.process import Denoiser
from ..errors import ParameterError
from ..lensing.survey import Survey, diverse
from ..model import NETWORKS, Sampling
from ..networks.autoencoder import AUTOENCODERS, Autoencoder
from ..runtime import best_precision
from .autoencoder import AutoencoderConfig
from .classifier import ClassifierConfig
from .diffusion import TrainConfig

DATA = ("lenses", "colour", "digits")
NOISE_LEVEL = 0.018  # the lowest level of `lens64`, which draws the survey's noise itself


def _images(
    data: str,
    split: str,
    pixels: int,
    noiseless: bool,
    cache: Path | str | None,
    n: int | None,
) -> ImageSet:
    """The default images of a recipe, or `n` of its lenses. Raises ParameterError for others."""
    if data not in DATA:
        raise ParameterError(f"data must be one of {DATA}, not {data!r}.")
    if n is not None and (n < 1 or data != "lenses"):
        raise ParameterError(f"{n} images can't be had: only lenses are simulated, one or more.")
    if data == "digits":
        return digits(split, cache=cache)
    if data == "colour":
        return colour_lenses(split, pixels, cache=cache)
    if n is not None and len(parts_of(n)) > 1:
        _, seed = share_of(split, n, n)
        return simulated_parts(diverse(pixels), n, seed, cache=cache, noiseless=noiseless)
    more = {} if n is None else {"n": n}
    return lenses(split, pixels, cache=cache, noiseless=noiseless, **more)


class _OfImages:
    """What recipes share that learn images: which, and other training settings."""

    def images(
        self, split: str = "train", cache: Path | str | None = None, n: int | None = None
    ) -> ImageSet:
        """Digits, or the default lenses of its size, with or without noise as it learns them.

        `n` lenses in place of the default number; many of them in parts (`data.parts`).
        """
        return _images(self.data, split, self.pixels, self.noiseless, cache, n)

    def scaled(self, **changes: object) -> Self:
        """The recipe with other training settings (fields of its configuration).

        `steps` and `minutes` replace each other. Raises ParameterError for values out of range.
        """
        if "steps" in changes or "minutes" in changes:
            changes = {"steps": None, "minutes": None, **changes}
        return replace(self, train=replace(self.train, **changes))


@dataclass(frozen=True)
class Recipe(_OfImages):
    """Network, prediction, training and sampling of a diffusion model.

    - `kind`: "UNet" or "DiT"; `network`: its arguments (`networks.unet`, `networks.transformer`)
    - `pixels`: of the simulated lenses it is meant for; other square images are taken as they are
    - `noiseless`: it learns the simulation's light alone; a telescope adds the noise to its images
    - `data`: "lenses", "colour" or "digits", what it is meant for
    - `autoencoder`: folder or shipped name of the one whose latents it learns; "": it learns pixels
    - `elements`: of the eight flips and turns, those in which it learns an image's latents, which
      do not turn with it
    """

    name: str
    train: TrainConfig
    network: dict = field(default_factory=dict)
    prediction: str = "edm"
    sampling: Sampling = field(default_factory=Sampling)
    pixels: int = 64
    noiseless: bool = False
    data: str = "lenses"
    autoencoder: str = ""
    elements: tuple[int, ...] = (0,)
    kind: str = "UNet"

    def __post_init__(self) -> None:
        if self.kind not in NETWORKS:
            raise ParameterError(f"kind must be one of {tuple(NETWORKS)}, not {self.kind!r}.")

    def denoiser(self, precision: str | None = None) -> Denoiser:
        """A fresh denoiser; the training seed decides its weights."""
        torch.manual_seed(self.train.seed)
        precision = precision or best_precision()
        return Denoiser(NETWORKS[self.kind](**self.network), self.prediction, precision=precision)

    def as_observed(self) -> Recipe:
        """The recipe for images that have noise, as files do: it learns them as they are.

        What it draws has to end with that noise, so that its sampling goes down to `NOISE_LEVEL`;
        that of latents stays, whose noise the decoder draws.
        """
        if not self.noiseless or self.autoencoder:
            return replace(self, noiseless=False)
        low = min(self.sampling.low, NOISE_LEVEL)
        return replace(self, noiseless=False, sampling=replace(self.sampling, low=low))

    def widened(self, width: int) -> Recipe:
        """The recipe with `width` channels at its first level, and the others in proportion.

        Each is a multiple of 16. Raises ParameterError for a width that is none, or where the
        recipe names none.
        """
        if "channels" not in self.network:
            cure = "Take one of a UNet with its `channels`, or give the network a width of its own"
            raise ParameterError(f"{self.name} names no channels to be widened. {cure}.")
        if width < 16:
            raise ParameterError(f"width must be 16 or more, got {width}.")
        if width % 16:
            raise ParameterError(f"width must be a multiple of 16, got {width}.")
        channels = self.network["channels"]
        wider = tuple(16 * round(c * width / channels[0] / 16) for c in channels)
        return replace(self, network={**self.network, "channels": wider})

    def as_dict(self) -> dict:
        """The recipe for a JSON file.

        Later fields are left out where they have their defaults, as in older files.
        """
        standard = {"pixels": 64, "noiseless": False, "data": "lenses", "autoencoder": ""}
        standard |= {"elements": (0,), "kind": "UNet"}
        fields = asdict(self)
        for name, value in standard.items():
            if fields[name] == value:
                del fields[name]
        for name in ("learns", "balance"):
            if not fields["train"][name]:
                del fields["train"][name]
        fields["sampling"] = sampling_fields(self.sampling)
        return fields


def sampling_fields(sampling: Sampling) -> dict:
    """A sampling for a JSON file; later fields as in `Recipe.as_dict`."""
    fields = asdict(sampling)
    for name in ("T", "rescale"):
        if fields[name] == getattr(Sampling, name):
            del fields[name]
    return fields


@dataclass(frozen=True)
class AutoencoderRecipe(_OfImages):
    """Network, training and data of an autoencoder.

    - `kind`: "VQVAE" or "KLVAE"; `network`: its arguments (`networks.autoencoder`)
    - `pixels`, `noiseless`, `data`: as of a `Recipe`
    """

    name: str
    train: AutoencoderConfig
    kind: str = "VQVAE"
    network: dict = field(default_factory=dict)
    pixels: int = 64
    noiseless: bool = False
    data: str = "lenses"

    def __post_init__(self) -> None:
        if self.kind not in AUTOENCODERS:
            raise ParameterError(f"kind must be one of {tuple(AUTOENCODERS)}, not {self.kind!r}.")

    def net(self) -> Autoencoder:
        """A fresh network; the training seed decides its weights."""
        torch.manual_seed(self.train.seed)
        return AUTOENCODERS[self.kind](**self.network)


@dataclass(frozen=True)
class ClassifierRecipe:
    """Network, training and data of a classifier of lenses, or without a `survey` of digits.

    `model` holds arguments of `networks.classifier.LensClassifier`.
    """

    name: str
    train: ClassifierConfig
    survey: Survey | None
    model: dict = field(default_factory=dict)
    n_train: int = 30_000
    n_test: int = 7_500
    train_seed: int = TRAIN_SEED

    @property
    def data(self) -> str:
        """What it is meant for: "lenses" or "digits"."""
        return "lenses" if self.survey else "digits"

    def images(self, split: str = "train", cache: Path | str | None = None) -> ImageSet:
        """The simulated images, or digits, to train on, or to test on (`split` "test")."""
        if self.survey is None:
            return digits(split, cache=cache)
        if split == "test":
            return simulated(self.survey, self.n_test, TEST_SEED, cache=cache)
        return simulated(self.survey, self.n_train, self.train_seed, cache=cache)

    def scaled(self, **changes: object) -> ClassifierRecipe:
        """The recipe with other training settings (fields of ClassifierConfig)."""
        return replace(self, train=replace(self.train, **changes))


def images_of(
    recipe: Recipe | AutoencoderRecipe | ClassifierRecipe,
    data: Path | str | None = None,
    symmetries: int = 1,
    n: int | None = None,
) -> ImageSet:
    """The images that a recipe learns: its own, `n` of them, or those of the folder `data`.

    It holds MNIST's own files for a recipe of digits, pictures for one of lenses in colour, Common
    Test I for a classifier of lenses, and DeepLense files for others; `symmetries` are these
    files'. Raises DataError as the readers, ParameterError for `n` of a folder or a classifier.
    """
    if n is not None and isinstance(recipe, ClassifierRecipe):
        raise ParameterError("A classifier's set is of its recipe: leave `n` out.")
    if not data:
        return recipe.images("train") if n is None else recipe.images("train", n=n)
    if n is not None:
        raise ParameterError("A folder is learnt as a whole: leave --images out.")
    if recipe.data == "digits":
        return digits(source=data)
    if recipe.data == "colour":
        return pictures(data, recipe.pixels, symmetries=symmetries)
    if isinstance(recipe, ClassifierRecipe):
        return common_test(data)[0]
    return folder(data, symmetries)

"""Recipes: everything that decides a model, in one frozen object; here those of shipped models."""

from __future__ import annotations

from dataclasses import replace

from ..diffusion.process import LogNormal
from ..lensing.parameters import SPINS
from ..model import Sampling
from . import published
from .autoencoder import AutoencoderConfig
from .classifier_recipes import (  # noqa: F401
    CLASSIFIERS,
    JUDGE64,
    JUDGE_DIGITS,
    JUDGE_SEED,
    LENSNET,
)
from .diffusion import TrainConfig
from .recipe import AutoencoderRecipe, ClassifierRecipe, Recipe

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
# lens150 in one stage of the minutes that latent150 and its autoencoder take together, to be
# compared with it; its noise lies between that of lens150 and that of lens150-long.
LENS150_HOUR = replace(
    LENS150,
    name="lens150-hour",
    train=replace(LENS150.train, steps=5_900, sigmas=LogNormal(1.0, 1.6)),
)
# One more stage after lens150, at the noise where the shape of a lens is decided: most of what was
# missing came from above sigma = 5, which 9 % of the draws of lens150 had.
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
# The network of lens150-long for 64 pixels: its finest level and what the noise level scales learn;
# the rest stays, which has seen nine times as many lenses as lens64.
LENS64_LONG = Recipe(
    name="lens64-long",
    network=LENS64.network,
    train=TrainConfig(
        steps=6_000,
        lr=8e-4,
        decay_share=0.6,
        sigmas=LogNormal(0.6, 1.5),  # those of lens150-long, for pixels of 2.3 times its side
        weight="edm",
        held_out_every=250,
        save_every=250,
        learns=("stem", "exit", "noise", "down.0", "down.1", "down.2", "up.8", "up.9", "up.10"),
    ),
    prediction="x0",
    sampling=Sampling(steps=20, high=64.0, low=0.024),
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
# The same numbers for the network of lens64-long, which has seen ten times the images of lens64, at
# the noise of parameters64 with a loss that is even over it. Not shipped.
PARAMETERS64_LONG = replace(
    LENS64_LONG,
    name="parameters64-long",
    train=replace(
        LENS64_LONG.train,
        steps=3_000,
        lr=6e-4,
        sigmas=PARAMETERS64.train.sigmas,
        balance=True,
        learns=(),
    ),
    network=PARAMETERS64.network,
    sampling=PARAMETERS64.sampling,
)
# The class for the network of lens64-long, too: each level of noise counts alike, since a class is
# lost at low noise and at high. Not shipped.
CLASSES64_LONG = replace(
    PARAMETERS64_LONG,
    name="classes64-long",
    train=replace(PARAMETERS64_LONG.train, steps=4_000, sigmas=LogNormal(-0.3, 1.7)),
    network=CLASSES64.network,
    sampling=CLASSES64.sampling,
)
# Handwritten digits as 7 x 7 latents of four numbers, each the nearest of 256 codes.
DIGITS_VQ = AutoencoderRecipe(
    name="digits-vq",
    kind="VQVAE",
    network={"channels": (32, 64), "blocks": 1, "unshuffle": 2, "latent_channels": 4, "codes": 256},
    train=AutoencoderConfig(steps=2_000, batch=64, lr=2e-3, held_out_every=250, save_every=250),
    data="digits",
)
# The same latents without a codebook.
DIGITS_KL = AutoencoderRecipe(
    name="digits-kl",
    kind="KLVAE",
    network={"channels": (32, 64), "blocks": 1, "unshuffle": 2, "latent_channels": 4},
    train=DIGITS_VQ.train,
    data="digits",
)
# Diffusion on the former, with the digit as its condition.
LATENT_DIGITS = Recipe(
    name="latent-digits",
    network={
        "channels": (64, 128),
        "blocks": 2,
        "attention_levels": (1,),
        "unshuffle": 1,
        "classes": 10,
    },
    train=TrainConfig(
        steps=4_000,
        batch=64,
        lr=1e-3,
        ema=0.999,
        sigmas=LogNormal(-0.8, 1.4),
        held_out_every=250,
        save_every=250,
    ),
    sampling=Sampling(steps=20, high=20.0, low=0.02, clamp=False),
    data="digits",
    autoencoder="digits-vq",
)
# Noiseless lenses of 150 pixels as 15 x 15 latents of eight numbers; the telescope comes after.
LENS150_KL = AutoencoderRecipe(
    name="lens150-kl",
    kind="KLVAE",
    # most of a lens is sky, which needs no number: kl = 1e-3 leaves a posterior std of 0.6, and a
    # decoder that misses the noise where it is given means
    network={"channels": (48, 96), "blocks": 1, "unshuffle": 5, "latent_channels": 8, "kl": 3e-5},
    train=AutoencoderConfig(
        steps=2_500, batch=32, lr=1e-3, warmup_steps=100, held_out_every=250, save_every=250
    ),
    pixels=150,
    noiseless=True,
)
# Diffusion on the former. Latents do not turn with their lens: each is learnt in all eight ways.
LATENT150 = Recipe(
    name="latent150",
    network={"channels": (80, 160), "blocks": 2, "attention_levels": (1,), "unshuffle": 1},
    train=TrainConfig(
        steps=7_500,
        batch=32,
        lr=8e-4,
        ema=0.999,
        sigmas=LogNormal(0.0, 1.4),
        held_out_every=250,
        save_every=250,
    ),
    sampling=Sampling(steps=20, high=160.0, low=0.06, clamp=False),
    pixels=150,
    noiseless=True,
    autoencoder="lens150-kl",
    elements=tuple(range(8)),
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        LENS64,
        LENS150,
        LENS150_HOUR,
        LENS150_LONG,
        LENS64_LONG,
        TINY,
        CLASSES64_FIRST,
        CLASSES64,
        PARAMETERS64_FIRST,
        PARAMETERS64,
        PARAMETERS64_LONG,
        CLASSES64_LONG,
        LATENT_DIGITS,
        LATENT150,
    )
}
AUTOENCODERS = {recipe.name: recipe for recipe in (DIGITS_VQ, DIGITS_KL, LENS150_KL)}
PUBLISHED = published.PUBLISHED

# Arguments of UNet: the shipped one, and what published solutions to the same task took.
NETWORKS = {"lens64": LENS64.network, **published.NETWORKS}


def every() -> dict[str, Recipe | ClassifierRecipe | AutoencoderRecipe]:
    """All recipes by name, published solutions as they are published among them."""
    whole = {solution.whole.name: solution.whole for solution in PUBLISHED.values()}
    small = {solution.name: solution.recipe for solution in PUBLISHED.values()}
    autoencoders = {published.LENS64_VQ.name: published.LENS64_VQ, **AUTOENCODERS}
    return {**RECIPES, **CLASSIFIERS, **autoencoders, **small, **whole}

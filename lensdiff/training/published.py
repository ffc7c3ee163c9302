"""Five published solutions as recipes, and ours beside them.

Each is there twice. `recipe` is as published but for the size of the work: the source's network,
schedule, loss, optimiser and sampler, on lenses of 64 x 64, for the updates that fill thirty
minutes of two CPU cores with bfloat16. `whole` is as published, at its own resolution and for as
many images as a GPU takes in hours; it was not run here.

What a source says of itself stands in `says`. What it does not say is filled in as in Ho et al.
2020: Adam with a rate of 2e-4, T = 1000, noise predicted, EMA 0.9999. All share what belongs to the
loop: Adam's second decay of 0.99, an EMA that begins short (`loop.ema_average`), the lenses' eight
flips and turns, noise levels spread evenly over a batch.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..diffusion.process import LogNormal, Uniform
from ..model import Sampling
from .autoencoder import AutoencoderConfig
from .diffusion import TrainConfig
from .recipe import AutoencoderRecipe, Recipe
from .solution import Published, Says, table_of

WHOLE_IMAGES = 1_000_000  # a hundred epochs of DeepLense's 10,000
OURS = "ours"
EVERY_TURN = tuple(range(8))
# Updates that fill thirty minutes of two x86-64 cores with bfloat16, by `study recipes --time`;
# of those of latents, what the autoencoder leaves of them.
UPDATES = {
    "ddpm": 700,
    "ddpm-cosine": 700,
    "ddpm-wide": 210,
    "sigmoid-ddim": 690,
    "cosine-l1": 275,
    "faces": 700,
    "faces-T200": 700,
    "faces-wide": 190,
    "faces-colour": 300,
    "vq-latents": 2_750,
    "vq-latents-T200": 2_750,
    "ours": 3_100,
    "ours-observed": 3_100,
    "ours-colour": 2_350,
}


def _plain(channels: tuple[int, ...], attention_levels: tuple[int, ...] = ()) -> dict:
    """Arguments of a UNet as solutions with a plain DDPM had it: no folding, embeddings added."""
    return {
        "channels": channels,
        "blocks": 2,
        "attention_levels": attention_levels,
        "unshuffle": 1,
        "embedding": "add",
    }


ATTENTION_AT_16 = _plain((64, 128, 256, 256), attention_levels=(2,))  # of images of 64 pixels
NETWORKS = {
    "openai_small": {
        "channels": (64, 128, 192, 256),
        "blocks": 2,
        "attention_levels": (2, 3),
        "unshuffle": 1,
    },
    "four_levels": _plain((32, 64, 128, 256)),
    "four_levels_expanded": _plain((64, 128, 256, 512)),
    "four_levels_twice_expanded": _plain((128, 256, 512, 1024)),
    "five_levels": _plain((64, 128, 128, 256, 512), attention_levels=(3,)),
}


def _recipe(name: str, network: dict, sigmas: Uniform, **changes: object) -> Recipe:
    """A recipe of thirty minutes; `changes` are fields of TrainConfig."""
    plain = {"batch": 32, "lr": 2e-4, "ema": 0.9999, "decay_share": 0.0, "warmup_steps": 0}
    steps = UPDATES[name]
    looks = {"held_out_every": -(-steps // 8), "held_out_images": 64, "save_every": -(-steps // 4)}
    # no level that it never learnt; rounded inwards, since processors differ in the last digit
    table = table_of(sigmas)
    low = max(0.018, math.ceil(1e6 * float(table[0])) / 1e6)
    high = min(40.0, math.floor(1e6 * float(table[-1])) / 1e6)
    return Recipe(
        name=name,
        network=network,
        train=TrainConfig(sigmas=sigmas, steps=steps, **{**plain, **looks, **changes}),
        prediction="eps",
        sampling=Sampling(steps=20, low=low, high=high),
    )


def _whole(recipe: Recipe, pixels: int, steps: int, eta: float) -> Recipe:
    """The recipe at its source's resolution, for `WHOLE_IMAGES` images, with its own sampler.

    It draws what its source draws: at 28 pixels digits, at 128 in colour (so that `faces` is
    `faces-colour` then). Attention at 16 x 16 lies one level deeper in images of twice the side.
    """
    updates = WHOLE_IMAGES // recipe.train.batch
    longer = recipe.scaled(
        steps=updates, held_out_every=1_000, held_out_images=256, save_every=1_000
    )
    sigmas = recipe.train.sigmas
    own = {"levels": sigmas.schedule, "T": sigmas.T, "rescale": sigmas.rescale}
    sampling = replace(recipe.sampling, sampler="ddim", steps=steps, eta=eta, **own)
    network = dict(recipe.network)
    if pixels > recipe.pixels and network["attention_levels"] == (2,):
        network["attention_levels"] = (3,)
    data = {28: "digits", 128: "colour"}.get(pixels, recipe.data)
    return replace(
        longer,
        name=f"{recipe.name}-whole",
        pixels=pixels,
        network=network,
        sampling=sampling,
        data=data,
        autoencoder="digits-vq" if data == "digits" else recipe.autoencoder,
        elements=(0,) if data == "digits" else recipe.elements,
    )


def _latents(name: str, T: int) -> Recipe:
    """A recipe of latents, with T steps of beta unchanged; a guess of a latent has no range."""
    plain = _recipe(
        name, _plain((64, 128), (1,)), Uniform("linear", T, rescale=False), batch=64, lr=1e-3
    )
    return replace(
        plain,
        sampling=replace(plain.sampling, clamp=False),
        autoencoder="lens64-vq",  # the one below; a recipe takes it from a folder of that name
        elements=EVERY_TURN,
    )


# What each source says of itself in numbers; none gives its number of weights.
# 1: T = 1,000, linear beta, attention at 16 x 16, group norms, MSE, on 150 x 150 files; it has no
# score, and proposes a cosine schedule and twice the width.
_DDPM = _recipe("ddpm", ATTENTION_AT_16, Uniform("linear"))
_COSINE = _recipe("ddpm-cosine", ATTENTION_AT_16, Uniform("cosine"))
_WIDE = _recipe("ddpm-wide", _plain((128, 256, 512, 512), (2,)), Uniform("linear"))
# 2: DDIM in 250 calls, FID 12.4 over 2,000 images; later, by the same author, 3.53 over 2,500.
_SIGMOID = _recipe("sigmoid-ddim", NETWORKS["openai_small"], Uniform("sigmoid"))
# 3: 144 x 144, four levels, channels doubled twice, cosine, L1, batch 16, the formulation of Karras
# et al.; FID 6.0 over 3,040 images; 16 images in 1,000 calls take 15 s on a GPU without a name.
_L1 = replace(
    _recipe(
        "cosine-l1",
        NETWORKS["four_levels_twice_expanded"],
        Uniform("cosine"),
        batch=16,
        criterion="l1",
    ),
    prediction="edm",
)
# 4: 128 x 128 in colour, five levels from 128 to 8, base 64 (and 128), multipliers 1, 2, 2, 4, 8,
# EMA 0.9999, rate 3e-5, batch 20 in four parts, 90:10 split; T = 1,000, and 200, beta unchanged.
_SLOW = {"batch": 20, "accumulation": 4, "lr": 3e-5}
_FIVE = {**NETWORKS["five_levels"], "attention_levels": (2,)}  # 16 x 16 of 64 pixels
_FACES = _recipe("faces", _FIVE, Uniform("linear"), **_SLOW)
_FIVE_WIDE = _plain((128, 256, 256, 512, 1024), attention_levels=(2,))
_FACES_WIDE = _recipe("faces-wide", _FIVE_WIDE, Uniform("linear"), **_SLOW)
_SHORT = _recipe("faces-T200", _FIVE, Uniform("linear", 200, rescale=False), **_SLOW)
_COLOUR = replace(
    _recipe("faces-colour", NETWORKS["five_levels"], Uniform("linear"), **_SLOW),
    pixels=128,
    data="colour",
)
# 5: MNIST in a VQ-VAE's latents; T = 200 sampled in 50, 100 and 200 calls; T = 300 is far better.
# Here its network sees latents of 16 x 16; batch and rate are those of our other latent models.
_VQ = _latents("vq-latents", 300)
_VQ_SHORT = _latents("vq-latents-T200", 200)
LENS64_VQ = AutoencoderRecipe(
    name="lens64-vq",
    kind="VQVAE",
    network={"channels": (48, 96), "blocks": 1, "unshuffle": 2, "latent_channels": 4, "codes": 256},
    train=AutoencoderConfig(steps=1_500, batch=64, lr=2e-3, held_out_every=250, save_every=250),
)
# Ours: a folding stem, x0 predicted under EDM's weight on the light alone, log-normal noise levels
# that are high enough for a lens's shape, a rate that falls over half of the run.
_OURS = Recipe(
    name="ours",
    network={"channels": (48, 96, 144), "blocks": 2, "attention_levels": (2,), "unshuffle": 2},
    train=TrainConfig(
        steps=UPDATES["ours"],
        batch=32,
        lr=8e-4,
        ema=0.999,
        decay_share=0.5,
        sigmas=LogNormal(0.3, 1.6),
        weight="edm",
        held_out_every=UPDATES["ours"] // 8,
        held_out_images=64,
        save_every=500,
    ),
    prediction="x0",
    noiseless=True,
    sampling=Sampling(steps=20, high=80.0, low=0.04),
)
# Without the telescope's help: it learns lenses as they are observed, noise and all. EDM's own
# prediction then, without a weight, and a lower last level.
_OURS_OBSERVED = replace(
    _OURS.scaled(weight="none"),
    name="ours-observed",
    prediction="edm",
    noiseless=False,
    sampling=Sampling(steps=20, high=80.0, low=0.018),
)
_OURS_COLOUR = Recipe(
    name="ours-colour",
    network={"channels": (64, 128, 192), "blocks": 2, "attention_levels": (2,), "unshuffle": 4},
    train=replace(
        _OURS_OBSERVED.train,
        steps=UPDATES["ours-colour"],
        held_out_every=UPDATES["ours-colour"] // 8,
        sigmas=LogNormal(0.0, 1.6),
    ),
    pixels=128,
    data="colour",
    sampling=Sampling(steps=20, high=80.0, low=0.03),
)


def _published(
    recipe: Recipe,
    pixels: int,
    steps: int,
    eta: float,
    text: str,
    fid: float | None = None,
    n: int | None = None,
    autoencoder: AutoencoderRecipe | None = None,
) -> Published:
    """A solution whose source has `pixels`, and a sampler of `steps`."""
    says = Says(text, pixels, fid, n, steps)
    whole = _whole(recipe, pixels, steps, eta)
    return Published(recipe, whole, says, steps, eta, autoencoder)


_FACES_SAYS = "faces in colour, five levels, EMA on and off; T = 200 is far worse"
PUBLISHED = {
    solution.name: solution
    for solution in (
        _published(_DDPM, 150, 1000, 1.0, "linear schedule, MSE, attention at 16 x 16"),
        _published(_COSINE, 150, 1000, 1.0, "the same with a cosine schedule, as it proposes"),
        _published(_WIDE, 150, 1000, 1.0, "the same, twice as wide, as it proposes"),
        _published(
            _SIGMOID,
            150,
            250,
            0.0,
            "sigmoid schedule, DDIM, EMA; later FID 3.53 of 2,500",
            12.4,
            2_000,
        ),
        _published(
            _L1,
            144,
            1000,
            1.0,
            "cosine, L1, EDM's formulation; 16 images in 15 s on a GPU",
            6.0,
            3_040,
        ),
        _published(_FACES, 128, 1000, 1.0, _FACES_SAYS),
        _published(_SHORT, 128, 200, 1.0, "the same with T = 200, beta unchanged"),
        _published(_FACES_WIDE, 128, 1000, 1.0, "the same at its other width, base 128"),
        _published(_COLOUR, 128, 1000, 1.0, "the same, on lenses in colour"),
        _published(
            _VQ,
            28,
            200,
            0.0,
            "MNIST in a VQ-VAE's latents, T = 200, then 300",
            autoencoder=LENS64_VQ,
        ),
        _published(_VQ_SHORT, 28, 200, 0.0, "the same with T = 200", autoencoder=LENS64_VQ),
        Published(_OURS, _OURS, Says("this series", 64, steps=20), 20),
        Published(_OURS_OBSERVED, _OURS_OBSERVED, Says("lenses as observed", 64, steps=20), 20),
        Published(_OURS_COLOUR, _OURS_COLOUR, Says("this series", 128, steps=20), 20),
    )
}

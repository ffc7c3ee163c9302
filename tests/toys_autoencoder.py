"""What the tests of autoencoders share: small ones, their images, and a latent model's two ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from toys import perturb

from lensdiff.data.images import ImageSet
from lensdiff.model import Sampling
from lensdiff.networks import latent
from lensdiff.networks.autoencoder import AUTOENCODERS, Autoencoder
from lensdiff.networks.latent import Latent
from lensdiff.training.autoencoder import AutoencoderConfig
from lensdiff.training.diffusion import TrainConfig
from lensdiff.training.recipe import AutoencoderRecipe, Recipe

NETWORK = {"channels": (16, 16), "unshuffle": 2, "latent_channels": 3}
KINDS = tuple(AUTOENCODERS)
SMALL = AutoencoderRecipe(
    name="small",
    kind="VQVAE",
    network={**NETWORK, "codes": 16},
    train=AutoencoderConfig(steps=6, batch=8, lr=3e-3, warmup_steps=2, ema=0.9, decay_share=0.0),
)
DIFFUSION = Recipe(
    name="small-latent",
    network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 1},
    train=TrainConfig(steps=4, batch=4, warmup_steps=1, held_out_every=2, held_out_images=4),
    sampling=Sampling(steps=3),
)


def recipe(kind: str = "VQVAE", **changes: object) -> AutoencoderRecipe:
    """The small recipe, of this kind, with other training settings."""
    network = {**NETWORK, "codes": 16} if kind == "VQVAE" else NETWORK
    return replace(SMALL.scaled(**changes), kind=kind, network=network)


def small_autoencoder(kind: str = "VQVAE", **arguments: object) -> Autoencoder:
    """An autoencoder whose every path carries a signal, the same on every call."""
    torch.manual_seed(0)
    return perturb(AUTOENCODERS[kind](**{**NETWORK, **arguments}), scale=0.05).eval()


def blobs(n: int = 48, side: int = 14, channels: int = 1, seed: int = 0) -> ImageSet:
    """Round spots of one colour each at random places, in three classes of size."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    x, y = rng.uniform(3, side - 3, (2, n, 1, 1))
    rows, columns = np.mgrid[:side, :side]
    distance = (rows - y) ** 2 + (columns - x) ** 2
    spots = np.exp(-distance / (1.0 + labels[:, None, None]) ** 2)
    colours = rng.uniform(0.5, 1, (n, channels, 1, 1))
    pixels = (spots[:, None] * colours).astype(np.float32)
    return ImageSet("blobs", pixels, f"{seed}" * 64, ("small", "middle", "large"), labels, None, 8)


def saved(folder: Path, kind: str = "VQVAE", size: int = 14, **arguments: object) -> Latent:
    """A small autoencoder of `blobs`, saved untrained and loaded on the CPU."""
    net = small_autoencoder(kind, **arguments)
    with torch.no_grad():
        images = torch.from_numpy(blobs(side=size, channels=net.image_channels).pixels)
        net.measure(net.central(net.raw(images)))
    latent.save(folder, net, {**NETWORK, **arguments}, (size, size), name=folder.name)
    return latent.load(folder, "cpu")

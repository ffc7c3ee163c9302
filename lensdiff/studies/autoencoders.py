"""What autoencoders lose: error, distance, power and substructure, of VQ and KL, by their fold.

All are trained for as many updates; the shipped ones stand beside them. Noiseless lenses are
observed after decoding, with one seed an image, so that two sets differ in their light alone.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import model as models
from ..data.digits import digits
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..lensing import measure
from ..lensing.telescope import Telescope
from ..networks import classifier, latent
from ..networks.autoencoder import KLVAE, VQVAE, code_use
from ..networks.classifier import LensClassifier, predict
from ..networks.latent import Latent
from ..runtime import best_device
from ..scores.distances import frechet
from ..scores.features import extractor
from ..scores.jackknife import standard_error, without_groups
from ..scores.statistics import Statistics, as_stored, statistics
from ..storage import studies_folder
from ..training.fit import fit
from ..training.recipe import AutoencoderRecipe
from ..training.recipes import DIGITS_VQ, LENS150_KL
from .table import Table

EXAMPLE = "python -m lensdiff study autoencoders"
FILE = "autoencoders.json"
UPDATES = 600
SPECTRA = 256  # test images whose power spectrum is averaged
DIGITS = 500  # test digits a side of the distance; of lenses there are 2,048
LENSES = 2_048
PIXELS = {"digits": 28, "lens64": 64, "lens150": 150}
JUDGES = {"digits": "judge-digits", "lens64": "judge64"}  # at 150 pixels no classifier is shipped
NAMES = ("data", "kind", "fold", "noiseless", "kl")  # of a variant, in the table
SHIPPED = (("digits", "digits-vq"), ("digits", "digits-kl"), ("lens150", "lens150-kl"))
NETWORKS = {
    ("digits", 4): {"channels": (32, 64), "unshuffle": 2, "latent_channels": 4},
    ("digits", 2): {"channels": (64,), "unshuffle": 2, "latent_channels": 1},
    ("lens64", 4): {"channels": (32, 64), "unshuffle": 2, "latent_channels": 4},
    ("lens64", 8): {"channels": (32, 64), "unshuffle": 4, "latent_channels": 16},
    ("lens150", 10): {"channels": (48, 96), "unshuffle": 5, "latent_channels": 8},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("--updates", type=int, default=UPDATES, help="of each autoencoder")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


@dataclass(frozen=True)
class Variant:
    """An autoencoder of the study: what it learns, its kind, and its fold.

    With `noiseless`, lenses lose their noise before it and get it back behind the decoder; `kl` is
    the weight of a KL-VAE's penalty.
    """

    data: str
    kind: str
    fold: int
    noiseless: bool = False
    kl: float | None = None

    def recipe(self, updates: int) -> AutoencoderRecipe:
        """How it is trained, for a number of updates."""
        base = DIGITS_VQ if self.data == "digits" else LENS150_KL
        plan = base.scaled(steps=updates, held_out_every=0)
        network = {"blocks": 1, **NETWORKS[self.data, self.fold]}
        network |= {} if self.kl is None else {"kl": self.kl}
        data = "digits" if self.data == "digits" else "lenses"
        made = replace(plan, name=f"{self.data}-{self.kind}-{self.fold}", data=data)
        about = {"kind": self.kind, "noiseless": self.noiseless}
        return replace(made, network=network, pixels=PIXELS[self.data], **about)


LIGHT = LENS150_KL.network["kl"]
STRONG = 1e-3
VARIANTS = (
    Variant("digits", "VQVAE", 4),
    Variant("digits", "KLVAE", 4, kl=STRONG),
    Variant("digits", "VQVAE", 2),
    Variant("digits", "KLVAE", 2, kl=STRONG),
    Variant("lens64", "VQVAE", 4, noiseless=True),
    Variant("lens64", "KLVAE", 4, noiseless=True, kl=LIGHT),
    Variant("lens64", "KLVAE", 4, noiseless=True, kl=STRONG),
    Variant("lens64", "KLVAE", 8, noiseless=True, kl=LIGHT),
    Variant("lens64", "KLVAE", 4, kl=LIGHT),
    Variant("lens150", "KLVAE", 10, noiseless=True, kl=LIGHT),
    Variant("lens150", "KLVAE", 10, kl=LIGHT),
)


@dataclass(frozen=True)
class Bench:
    """What reconstructions are held against.

    - `test`: images as the autoencoder takes them; the second `n` of them are reconstructed
    - `reference`: features of the first `n`, as they are observed
    - `telescope`: adds noise to noiseless images, and to what becomes of them
    """

    test: ImageSet
    net: nn.Module
    judge: LensClassifier | None
    telescope: Telescope | None
    reference: Statistics
    n: int

    @classmethod
    def of(cls, data: str, noiseless: bool) -> Bench:
        """The test images of "digits", "lens64" or "lens150" and their scores."""
        judge = JUDGES.get(data)
        folder = models.find(judge) if judge else None
        if data == "digits":
            test = digits("test")
            mixed = np.random.default_rng(0).permutation(len(test))  # they come in order of class
            test = observed = test.subset(mixed, "mixed")
            net = extractor("lensnet", best_device(), path=folder)
        else:
            test = lenses("test", PIXELS[data], noiseless=noiseless)
            observed = lenses("test", PIXELS[data])
            net = extractor("efficientnet", best_device())
        n = DIGITS if data == "digits" else LENSES
        telescope = Telescope.of(test.truth, test.unobserved) if noiseless else None
        known = classifier.load(folder, classes=test.classes) if judge else None
        first = statistics(net, _batches(np.array(observed.pixels[:n])), n, "reference")
        return cls(test, net, known, telescope, first, n)

    @property
    def images(self) -> np.ndarray:
        """The images that are reconstructed, (n, C, H, W)."""
        return np.array(self.test.pixels[self.n : 2 * self.n])

    def seen(self, images: np.ndarray) -> np.ndarray:
        """Images as they are observed and kept, uint8 / 255."""
        if self.telescope is not None:
            seeds = range(len(images))
            images = self.telescope.observe(torch.from_numpy(images), seeds).numpy()
        return as_stored(images)

    def row(self, autoencoder: Latent) -> dict:
        """All scores of an autoencoder."""
        images = self.images
        latents = autoencoder.encode(images)
        height, width = images.shape[-2:]
        back = autoencoder.decode(latents, size=(height, width)).numpy()
        found = {"n": self.n, "numbers": int(np.prod(latents.shape[1:])), **_errors(images, back)}
        found |= _rate(autoencoder, latents) | _posterior(autoencoder, images)
        found |= self._distance(self.seen(images), self.seen(back))
        found["power"] = _power(images, back)
        if self.judge is not None:
            labels = self.test.labels[self.n : 2 * self.n]
            found |= self._judged(self.seen(images), self.seen(back), labels)
        return found

    def _distance(self, images: np.ndarray, back: np.ndarray) -> dict:
        """Frechet distance of the reconstructions and of the images, to the reference.

        They are pairs, so that the error of the difference leaves out what both share.
        """
        mine = statistics(self.net, _batches(back), self.n, "reconstructions")
        floor = statistics(self.net, _batches(images), self.n, "images")
        distance = frechet(mine, self.reference)
        least = frechet(floor, self.reference)
        pairs = [without_groups(one, self.reference) for one in (mine, floor)]
        error = float(standard_error((pairs[0] - pairs[1])[:, None])[0])
        return {"distance": distance, "floor": least, "excess_error": error}

    def _judged(self, images: np.ndarray, back: np.ndarray, labels: np.ndarray) -> dict:
        """Accuracy on images and reconstructions, and the standard error of their difference."""
        before = predict(self.judge, images).argmax(1) == labels
        after = predict(self.judge, back).argmax(1) == labels
        change = after.astype(float) - before
        error = float(change.std(ddof=1) / np.sqrt(len(change)))
        accuracy = {"accuracy": float(before.mean()), "accuracy_after": float(after.mean())}
        return {**accuracy, "accuracy_change_error": error}


def _batches(images: np.ndarray) -> tuple[torch.Tensor, ...]:
    return torch.from_numpy(np.ascontiguousarray(images)).split(64)


def _errors(images: np.ndarray, back: np.ndarray) -> dict:
    """Mean squared error over the pixels' variance, and its root in pixel values."""
    squares = float(((back - images) ** 2).mean())
    return {"error": squares / float(images.var()), "rms": squares**0.5}


def _rate(autoencoder: Latent, latents: torch.Tensor) -> dict:
    """Of a codebook: its use, and the bits of an image where a code has log2(perplexity)."""
    net = autoencoder.net
    if not isinstance(net, VQVAE):
        return {}
    numbers = net.nearest(net.unscaled(latents.to(net.mean.device))).flatten().cpu()
    use = code_use(torch.bincount(numbers, minlength=len(net.codes)))
    places = latents[0, 0].numel()
    return {**use, "bits": places * float(np.log2(use["perplexity"]))}


@torch.no_grad()
def _posterior(autoencoder: Latent, images: np.ndarray) -> dict:
    """Of a KL-VAE: the mean std of its Gaussians, and the error where latents are drawn of them.

    `bits` is the divergence from the unit Gaussian, summed over an image's numbers: no more can
    pass the noise of its Gaussians (Kingma & Welling 2014, eq. 3).
    """
    net = autoencoder.net
    if not isinstance(net, KLVAE):
        return {}
    torch.manual_seed(0)
    spreads = []
    squares = []
    nats = []
    for part in torch.from_numpy(images[:SPECTRA]).to(net.mean.device).split(64):
        mean, log_variance = net.raw(part).chunk(2, 1)
        spread = (0.5 * log_variance).exp()
        back = net.render(mean + spread * torch.randn_like(mean), *part.shape[-2:]).clamp(0, 1)
        nats.append((0.5 * (mean**2 + spread**2 - 1 - log_variance)).sum((1, 2, 3)))
        spreads.append(spread.mean())
        squares.append((back - part).square().mean((1, 2, 3)))
    sampled = float(torch.cat(squares).mean()) / float(images.var())
    bits = float(torch.cat(nats).mean() / np.log(2))
    spread = float(torch.stack(spreads).mean())
    return {"posterior_std": spread, "error_sampled": sampled, "bits": bits}


def _power(images: np.ndarray, back: np.ndarray) -> dict:
    """Mean power by frequency in cycles a pixel, of images, reconstructions and what is lost."""
    some = slice(0, SPECTRA)
    frequency, before = measure.power_spectrum(images[some], 1.0)
    _, after = measure.power_spectrum(back[some], 1.0)
    _, lost = measure.power_spectrum(back[some] - images[some], 1.0)
    rows = {"before": before.mean(0), "after": after.mean(0), "lost": lost.mean(0)}
    return {"frequency": frequency.round(5).tolist(), **{k: v.tolist() for k, v in rows.items()}}


def trained(variant: Variant, updates: int, bench: Bench) -> dict:
    """A row of the table: train the variant, and score it."""
    plan = variant.recipe(updates)
    with tempfile.TemporaryDirectory() as folder:
        made = fit(plan, plan.images(), Path(folder) / "autoencoder")
        return {"seconds": made.spec["seconds"], **bench.row(made)}


def run(args: argparse.Namespace) -> None:
    """Compute what is missing, and keep the table after each row."""
    if args.updates < 1:
        raise ParameterError(f"--updates must be 1 or more, got {args.updates}.")
    table = Table(args.out / FILE, {"updates": args.updates})
    known: dict[tuple[str, bool], Bench] = {}

    def bench(data: str, noiseless: bool) -> Bench:
        if (data, noiseless) not in known:
            known[data, noiseless] = Bench.of(data, noiseless)
        return known[data, noiseless]

    for variant in VARIANTS:
        key = {name: getattr(variant, name) for name in NAMES}
        table.row(
            key,
            lambda v=variant: trained(v, args.updates, bench(v.data, v.noiseless)),
            _describe,
        )
    for data, name in SHIPPED:
        made = latent.load(name)
        key = {"data": data, "name": name, "sha256": made.sha256}
        noiseless = data != "digits"
        table.row(key, lambda d=data, q=noiseless, m=made: bench(d, q).row(m), _describe)


def _describe(row: dict) -> str:
    return f"error {row['error']:.4f}, distance {row['distance']:.2f} (floor {row['floor']:.2f})"

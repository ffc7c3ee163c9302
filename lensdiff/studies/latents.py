"""Digits as latents: are they recognised, and the published experiment again.

A published solution learnt the latents of digits with T = 200 levels of DDPM's linear schedule,
sampled in 50, 100 and 200 steps, and drew far better digits after training with T = 300. Here it is
run with beta unchanged, as there, and rescaled to end in noise for every T. Apart from training, a
trained model is started from pure noise at the levels where the unchanged schedules end.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from .. import model as models
from ..data.digits import digits
from ..data.images import ImageSet
from ..diffusion.process import ScheduleWarning, Uniform
from ..errors import ParameterError
from ..model import Model
from ..networks import classifier
from ..networks.classifier import LensClassifier, predict
from ..scores import distances
from ..scores.card import FIRST_SEED
from ..scores.classification import report
from ..scores.conditional import classes_in_turn
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, statistics
from ..storage import studies_folder
from ..training.fit import fit
from ..training.recipe import Recipe
from ..training.recipes import LATENT_DIGITS
from ..training.solution import table_of
from .ablations import generate_by_table, keep_pictures
from .table import Table

EXAMPLE = "python -m lensdiff study latents"
FILE = "latents.json"
GUIDANCE = (1.0, 1.5, 2.0)
RUNS = [(T, rescale) for rescale in (False, True) for T in (200, 300)]
STEPS = (50, 100, 200)  # DDIM steps through a run's own levels
DRAWN = 1_000
LOOKED = 400  # of each number of steps
SHOWN = 40
SURE = 0.9  # the probability from which an answer of the judge is called sure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("--model", default="latent-digits", help="a shipped name, or a folder")
    parser.add_argument("--judge", default="judge-digits", help="a shipped name, or a folder")
    parser.add_argument("--updates", type=int, default=1_200, help="of each schedule's training")
    parser.add_argument("--seeds", type=int, default=3, help="of each schedule")
    parser.add_argument("--drawn", type=int, default=DRAWN, help="digits of each guidance")
    parser.add_argument("--looked", type=int, default=LOOKED, help="digits of each schedule's look")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


@dataclass(frozen=True)
class Scorer:
    """What generated digits are held against: a classifier of digits, and features of test digits.

    `net` is that classifier as an extractor (`features.LensNet`).
    """

    judge: LensClassifier
    net: nn.Module
    test: Statistics

    @classmethod
    def of(cls, folder: Path, test: ImageSet) -> Scorer:
        """A scorer with the classifier in `folder`, and all digits of `test` as its reference.

        Raises CheckpointError where the classifier can't be read, or knows other classes.
        """
        net = extractor("lensnet", path=folder)
        judge = classifier.load(folder, test.classes, device="cpu")
        pixels = torch.from_numpy(np.array(test.pixels))
        return cls(judge, net, statistics(net, pixels.split(64), len(pixels), test.name))

    def likeness(self, images: Tensor | np.ndarray) -> dict:
        """Of images (n, 1, H, W) in [0, 1]: distance and KID to test digits, and `sure`.

        `sure` is the share of which the classifier is sure, a probability above `SURE`.
        """
        pixels = as_stored(images)
        found = statistics(self.net, torch.from_numpy(pixels).split(64), len(pixels), "digits")
        odds = softmax(predict(self.judge, pixels), 1)
        sure = float((odds.max(1) > SURE).mean())
        return {**distances.compared(found, self.test), "sure": sure}

    def recognised(self, images: Tensor | np.ndarray, labels: np.ndarray) -> dict:
        """The classifier's `report` on images that are to show `labels` (n,), and `likeness`."""
        found = report(predict(self.judge, as_stored(images)), labels, self.judge.classes)
        return {**found, **self.likeness(images)}


def recipe(T: int, rescale: bool, seed: int, updates: int) -> Recipe:
    """Unconditional noise prediction on the latents, with T levels of the linear schedule."""
    network = {name: value for name, value in LATENT_DIGITS.network.items() if name != "classes"}
    plan = replace(LATENT_DIGITS, name=name_of(T, rescale), network=network, prediction="eps")
    sigmas = Uniform("linear", T, rescale)
    return plan.scaled(steps=updates, seed=seed, sigmas=sigmas, held_out_every=0)


def name_of(T: int, rescale: bool) -> str:
    """A run's name, as "T200-rescaled"."""
    return f"T{T}-rescaled" if rescale else f"T{T}"


def signal_left(sigma: float) -> float:
    """The factor of x0 at a level, where the sum of signal and noise has unit variance."""
    return float((1 + sigma**2) ** -0.5)


def starts(model: Model) -> list[float]:
    """Noise levels to start from: where beta unchanged ends with T levels, and the model's own."""
    ends = [float(table_of(Uniform("linear", *one))[-1]) for one in RUNS if not one[1]]
    return [*(round(sigma, 4) for sigma in ends), model.sampling.high]


@dataclass(frozen=True)
class Study:
    """The rows of the table, each computed on demand; images of some are kept beside it."""

    scorer: Scorer
    model: Model
    train: ImageSet
    out: Path
    updates: int
    drawn: int
    looked: int

    def real(self, n: int) -> dict:
        """`n` training digits, as many as are generated: the floor of each score."""
        rows = np.random.default_rng(0).permutation(len(self.train))[:n]
        return self.scorer.recognised(self.train.pixels[rows], self.train.labels[rows])

    def reconstructed(self) -> dict:
        """The same digits as the autoencoder gives them back: what no model on them can pass."""
        rows = np.random.default_rng(0).permutation(len(self.train))[: self.drawn]
        back = self.model.autoencoder.reconstruct(np.array(self.train.pixels[rows]))
        return self.scorer.recognised(back, self.train.labels[rows])

    def guided(self, guidance: float) -> dict:
        """Digits that were asked for in turn, at a scale of guidance."""
        labels = classes_in_turn(self.drawn, len(self.train.classes))
        images = self.model.draw(self.drawn, FIRST_SEED, labels, guidance)
        self._keep(f"guidance-{guidance:g}", images)
        return self.scorer.recognised(images, labels)

    def schedule(self, T: int, rescale: bool, seed: int) -> dict:
        """Train on one schedule, and score what it draws with each number of `STEPS`."""
        plan = recipe(T, rescale, seed, self.updates)
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore", ScheduleWarning)  # where it ends is what is studied
            made = fit(plan, self.train, Path(folder) / "m", autoencoder=self.model.autoencoder)
        levels = table_of(plan.train.sigmas)
        seeds = range(FIRST_SEED, FIRST_SEED + self.looked)
        looks = []
        for steps in STEPS:
            images = torch.cat(list(generate_by_table(made, levels, seeds, steps, 0.0)))
            looks.append({"steps": steps, **self.scorer.likeness(images)})
            if seed == 0:
                self._keep(f"{plan.name}-{steps}", images)
        signal = signal_left(float(levels[-1]))
        return {"signal_left": signal, "seconds": made.spec["seconds"], "looks": looks}

    def started(self, sigma: float, seed: int) -> dict:
        """Digits that were asked for in turn, from pure noise of `sigma` on, without guidance.

        The model learnt every level. What is wrong at a low one is the start: the signal that
        latents still have there is missing.
        """
        labels = classes_in_turn(self.drawn, len(self.train.classes))
        sampling = replace(self.model.sampling, high=sigma)
        first = FIRST_SEED + seed * self.drawn
        images = self.model.draw(self.drawn, first, labels, sampling=sampling)
        return {"signal_left": signal_left(sigma), **self.scorer.recognised(images, labels)}

    def _keep(self, name: str, images: Tensor) -> None:
        (self.out / "latents").mkdir(parents=True, exist_ok=True)
        keep_pictures(self.out / "latents" / f"{name}.png", images[:SHOWN])


def run(args: argparse.Namespace) -> None:
    """Compute what is missing, and keep the table after each row."""
    model = models.load(args.model)
    if not isinstance(model, Model) or model.autoencoder is None:
        raise ParameterError(f"{args.model} draws no latents. Take a model that does.")
    judge = models.find(args.judge)
    scorer = Scorer.of(judge, digits("test"))
    study = Study(scorer, model, digits(), args.out, args.updates, args.drawn, args.looked)
    about = {
        "model_sha256": model.spec["sha256"],
        "judge_sha256": scorer.net.sha256,
        "updates": args.updates,
        "drawn": args.drawn,
        "looked": args.looked,
    }
    table = Table(args.out / FILE, about)
    table.row({"role": "real"}, lambda: study.real(args.drawn), _describe)
    table.row({"role": "reconstructed"}, study.reconstructed, _describe)
    few = {"role": "real", "few": args.looked}
    table.row(few, lambda: study.real(args.looked), _describe)
    for guidance in GUIDANCE:
        key = {"role": "guided", "guidance": guidance}
        table.row(key, lambda g=guidance: study.guided(g), _describe)
    for seed in range(args.seeds):
        for sigma in starts(model):
            key = {"role": "start", "sigma": sigma, "seed": seed}
            table.row(key, lambda x=sigma, s=seed: study.started(x, s), _describe)
    for T, rescale, seed in [(*one, seed) for seed in range(args.seeds) for one in RUNS]:
        key = {"role": "schedule", "T": T, "rescale": rescale, "seed": seed}
        table.row(key, lambda T=T, r=rescale, s=seed: study.schedule(T, r, s), _describe_looks)


def _describe(row: dict) -> str:
    return f"{100 * row['accuracy']:.1f} % recognised, distance {row['distance']:.2f}"


def _describe_looks(row: dict) -> str:
    return ", ".join(f"{one['steps']} steps {one['distance']:.1f}" for one in row["looks"])

"""Small fair comparisons: runs that differ from one basis in one thing, see as many images, and are
scored alike.

`scripts/compare.py NAME` trains, scores and stores one, with its recipe, in data/comparisons;
notebook 03 reads them there.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import rotate
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..data.images import ImageSet, lenses
from ..diffusion.process import LogNormal, ScheduleWarning, Uniform, schedule
from ..diffusion.sampling import Sampling, draw, table_levels
from ..errors import DataError
from ..model import Checkpoint
from ..notebook import plots
from ..runtime import progress
from ..scores import distances as metrics
from ..scores.card import FIRST_SEED
from ..storage import atomic, fingerprint_of, root, write_json
from ..training import recipes
from ..training.diffusion import Step, ema_average
from ..training.recipes import TINY, Recipe, scaled

STEPS = 1_000
OWN_STEPS = 50
SCORED = 512
SHOWN = 16


@dataclass(frozen=True)
class Run:
    """One row of a comparison:

    `family` is what is compared, `says` what this row has; images turned by up to `turned_deg` if
    not 0.

    `emas` are decays of further averages of the same run's weights, each scored too.
    """

    recipe: Recipe
    family: str
    says: str
    turned_deg: float = 0.0
    emas: tuple[float, ...] = ()

    @property
    def table(self) -> Tensor | None:
        """The levels of the run's own schedule, ascending, or None where sigma is continuous in
        training.
        """
        sigmas = self.recipe.train.sigmas
        if not isinstance(sigmas, Uniform):
            return None
        with warnings.catch_warnings():
            # T = 200 with unchanged beta is here to be seen
            warnings.simplefilter("ignore", ScheduleWarning)
            return schedule(sigmas.schedule, sigmas.T, sigmas.rescale)


BASIS = replace(
    scaled(TINY, steps=STEPS, ema=0.995, warmup_steps=50, held_out_every=100),
    name="basis",
    sampling=Sampling(steps=28, low=0.018),
)


def _run(
    name: str,
    family: str,
    says: str,
    turned_deg: float = 0.0,
    network: dict | None = None,
    prediction: str = "edm",
    noiseless: bool = False,
    emas: tuple[float, ...] = (),
    **changes,
) -> Run:
    network = {**BASIS.network, **(network or {})}
    plan = replace(
        scaled(BASIS, **changes),
        name=name,
        network=network,
        prediction=prediction,
        noiseless=noiseless,
    )
    return Run(plan, family, says, turned_deg, emas)


RUNS = {
    run.recipe.name: run
    for run in (
        _run("basis", "basis", "EDM, L2, log-normal σ, width 32"),
        _run("basis-again", "basis", "the same with another seed", seed=1),
        _run("eps", "prediction", "eps", prediction="eps"),
        _run("x0", "prediction", "x0", prediction="x0"),
        _run("v", "prediction", "v", prediction="v"),
        _run("l1", "criterion", "L1", criterion="l1"),
        _run("linear", "schedule", "linear", sigmas=Uniform("linear")),
        _run("cosine", "schedule", "cosine", sigmas=Uniform("cosine")),
        _run("sigmoid", "schedule", "sigmoid", sigmas=Uniform("sigmoid")),
        _run("turned", "rotation", "turned by up to 20°, corners black", turned_deg=20.0),
        _run("T1000", "T", "T = 1000", prediction="v", sigmas=Uniform("linear", 1000)),
        _run(
            "T200",
            "T",
            "T = 200, beta unchanged",
            prediction="v",
            sigmas=Uniform("linear", 200, rescale=False),
        ),
        _run(
            "T200-rescaled",
            "T",
            "T = 200, beta rescaled",
            prediction="v",
            sigmas=Uniform("linear", 200),
        ),
        _run("narrow", "width", "width 16", network={"channels": (16, 32, 48)}),
        _run("wide", "width", "width 64", network={"channels": (64, 128, 192)}),
        _run("lower", "noise", "ln σ ~ N(−2, 1.4²)", sigmas=LogNormal(-2.0, 1.4)),
        _run("min-snr", "weight", "weight min(SNR, 5)", weight="min_snr"),
        _run("fold-8", "fold", "8 × 8 pixels folded", network={"unshuffle": 8}),
        _run("unturned", "symmetries", "no flips, no turns", augment=False),
        _run("averages", "ema", "EMA 0.995, and others", emas=(0.9, 0.98, 0.999)),
        _run("noiseless", "noiseless", "noiseless images, and a telescope", noiseless=True),
        _run(
            "noiseless-x0",
            "noiseless",
            "the same, x0 with EDM's weight",
            noiseless=True,
            prediction="x0",
            weight="edm",
        ),
    )
}


def turned(images: ImageSet, degrees: float, seed: int = 0) -> ImageSet:
    """Every image turned by an angle of its own, uniform in ±`degrees`, bilinear; corners that
    nothing fills are black (0).
    """
    angles = np.random.default_rng(seed).uniform(-degrees, degrees, len(images))
    pixels = np.empty(images.pixels.shape, np.float32)
    for i, angle in enumerate(progress(angles, what=f"turning by up to {degrees:g} degrees")):
        rotate(
            images.pixels[i], angle, axes=(2, 1), reshape=False, order=1, cval=0.0, output=pixels[i]
        )
    name = f"{images.name}, turned by up to {degrees:g} degrees, corners black"
    return replace(
        images,
        name=name,
        pixels=pixels,
        fingerprint=fingerprint_of([images.fingerprint, degrees, seed]),
        folder=None,
    )


class Averages:
    """Further averages of a run's weights, one for each of `decays`: call it with every step."""

    def __init__(self, decays: tuple[float, ...]):
        self.decays = decays
        self.models = {}

    def __call__(self, step: Step) -> None:
        for decay in self.decays:
            if decay not in self.models:
                self.models[decay] = (
                    AveragedModel(step.model, multi_avg_fn=ema_average(decay))
                    .eval()
                    .requires_grad_(False)
                )
            self.models[decay].update_parameters(step.model)

    def of(self, model: Checkpoint) -> dict[float, Checkpoint]:
        """The checkpoint with each average's weights in place of its own."""
        return {
            decay: replace(model, denoiser=averaged.module)
            for decay, averaged in self.models.items()
        }


def train_run(
    run: Run, images: ImageSet, folder: Path | str, state: Path | str | None = None, each=None
) -> Checkpoint:
    """Train one run on the training rows of `images`; the split is that of the set before any
    turning.

    A run of noiseless images takes the same default lenses without their noise, whatever `images`
    hold.
    """
    rows = images.split()
    own = turned(images, run.turned_deg) if run.turned_deg else images
    if run.recipe.noiseless:
        own = lenses("train", images.pixels.shape[-1], len(images), noiseless=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)
        return recipes.fit(run.recipe, own, folder, state, each, rows)


def drawn_from_own_table(model: Checkpoint, table: Tensor, seeds: range, steps: int, eta: float):
    """Yield images in [0, 1] on the CPU, drawn by DDIM or (eta = 1) ancestral steps through a
    schedule's own levels, guesses clamped.
    """
    device = next(model.denoiser.parameters()).device
    denoise = model.guess(Sampling(clamp=True))
    levels = table_levels(table, steps)
    return (
        model.stretch.inverse(x).clamp(0, 1).cpu()
        for x in draw(denoise, model.shape, seeds, levels, "ddim", device=device, eta=eta)
    )


def score_run(
    run: Run, model: Checkpoint, net: nn.Module, test: ImageSet, n: int = SCORED
) -> list[dict]:
    """The run's cards: by the sampler that all runs share, and through its own schedule's levels
    where it has one.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + n)
    found = []
    ways = []
    if run.family != "T":
        ways.append((str(model.sampling), model.sampling.calls, lambda: model.generate(seeds)))
    if run.table is not None:
        says = f"ddim, eta 0, {OWN_STEPS} steps, its own {run.recipe.train.sigmas.schedule} levels, clamped"
        ways.append(
            (says, OWN_STEPS, lambda: drawn_from_own_table(model, run.table, seeds, OWN_STEPS, 0.0))
        )
    for says, calls, images in ways:
        statistics = metrics.statistics(net, images(), n, f"{run.recipe.name} drawn")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", metrics.SampleSizeWarning)
            found.append(metrics.card(net, statistics, test, says, calls, FIRST_SEED, n).as_dict())
    return found


def pictures(run: Run, model: Checkpoint, n: int = SHOWN) -> Tensor:
    """`n` images (n, C, H, W) from the first seeds: ancestral through all T steps in the family
    "T", else by the shared sampler.
    """
    if run.family == "T":
        return torch.cat(
            list(drawn_from_own_table(model, run.table, range(n), len(run.table), 1.0))
        )
    return torch.cat(list(model.generate(range(n))))


def store(folder: Path, run: Run, model: Checkpoint, cards: list[dict], images: Tensor) -> None:
    """Write `folder`/NAME.json (recipe, curve, cards) and NAME.png (the pictures side by side),
    the picture first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = run.recipe.name
    strip = np.concatenate(list(plots.to_array(metrics.to_uint8(images))), 1)
    with atomic(folder / f"{name}.png") as part:
        Image.fromarray(strip).save(part, optimize=True)
    kept = ("recipe", "data", "images_seen", "seconds", "machine", "sha256", "curve")
    about = {
        "name": name,
        "family": run.family,
        "says": run.says,
        "turned_deg": run.turned_deg,
        "cards": cards,
    }
    about |= {
        "weights": sum(p.numel() for p in model.denoiser.parameters()),
        **{key: model.spec[key] for key in kept},
    }
    write_json(folder / f"{name}.json", about)


def stored(folder: Path | str | None = None) -> dict[str, dict]:
    """The stored runs by name, in the order of `RUNS`, each with its `pictures` (n, H, W) in [0,
    1]. Raises DataError for damaged files.
    """
    folder = Path(folder or root() / "data" / "comparisons")
    found = {}
    for name in RUNS:
        path = folder / f"{name}.json"
        try:
            about = json.loads(path.read_text())
            strip = np.asarray(Image.open(path.with_suffix(".png")), np.float32) / 255
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: can't be read ({error}). Run it again: python scripts/compare.py {name}"
            ) from error
        found[name] = {
            **about,
            "pictures": strip.reshape(len(strip), -1, len(strip)).swapaxes(0, 1),
        }
    return found

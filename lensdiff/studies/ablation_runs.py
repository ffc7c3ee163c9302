"""The runs of the ablations: one basis, and what differs from it, mostly in one thing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from ..diffusion.process import LogNormal, Uniform
from ..errors import ParameterError
from ..model import Sampling
from ..training.recipes import TINY, Recipe
from ..training.solution import table_of

STEPS = 1_000
SEEDS = (0, 1, 2)
# Added to the study after the others: a stored table may lack them.
LATER = ("flow", "eps-weighted", "plateau", "few")
AVERAGES = (0.0, 0.9, 0.98, 0.999)  # decays; 0 is the raw weights


@dataclass(frozen=True)
class Run:
    """One row: `family` is what is compared, `description` what this row has.

    Images are turned by up to `turned_deg`, if not 0. `emas` are decays of further averages of the
    same run's weights, each scored too; 0 is the raw weights. `images` limits the training images,
    if not 0.
    """

    recipe: Recipe
    family: str
    description: str
    turned_deg: float = 0.0
    emas: tuple[float, ...] = ()
    images: int = 0

    def with_seed(self, seed: int) -> Run:
        """The run with another training seed: weights, order of the images, noise; same name."""
        return replace(self, recipe=self.recipe.scaled(seed=seed))

    @property
    def cost(self) -> float:
        """About how long it takes, in units of the basis: to share runs out evenly."""
        width = self.recipe.network["channels"][0] / BASIS.network["channels"][0]
        ways = 1 + len(self.emas) + (self.table is not None)
        return 0.7 * self.recipe.train.steps / STEPS * max(1.0, width) + 0.3 * ways

    @property
    def table(self) -> Tensor | None:
        """The levels of the run's own schedule, ascending; None where sigma is continuous."""
        sigmas = self.recipe.train.sigmas
        return table_of(sigmas) if isinstance(sigmas, Uniform) else None


BASIS = replace(
    TINY.scaled(steps=STEPS, ema=0.995, warmup_steps=50, held_out_every=100),
    name="basis",
    sampling=Sampling(steps=28, low=0.018),
)


def _run(
    name: str,
    family: str,
    description: str,
    turned_deg: float = 0.0,
    network: dict | None = None,
    prediction: str = "edm",
    noiseless: bool = False,
    emas: tuple[float, ...] = (),
    images: int = 0,
    **changes,
) -> Run:
    network = {**BASIS.network, **(network or {})}
    plan = replace(
        BASIS.scaled(**changes),
        name=name,
        network=network,
        prediction=prediction,
        noiseless=noiseless,
    )
    return Run(plan, family, description, turned_deg, emas, images)


RUNS = {
    run.recipe.name: run
    for run in (
        _run("basis", "basis", "EDM, L2, log-normal σ, width 32"),
        _run("eps", "prediction", "eps", prediction="eps"),
        _run("x0", "prediction", "x0", prediction="x0"),
        _run("v", "prediction", "v", prediction="v"),
        _run("l1", "criterion", "L1", criterion="l1"),
        _run("linear", "schedule", "linear schedule", sigmas=Uniform("linear")),
        _run("cosine", "schedule", "cosine schedule", sigmas=Uniform("cosine")),
        _run("sigmoid", "schedule", "sigmoid schedule", sigmas=Uniform("sigmoid")),
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
        _run("averages", "ema", "EMA 0.995, and others", emas=AVERAGES),
        _run("noiseless", "noiseless", "noiseless images, and a telescope", noiseless=True),
        _run(
            "noiseless-x0",
            "noiseless",
            "noiseless images, telescope, x0, EDM's weight",
            noiseless=True,
            prediction="x0",
            weight="edm",
        ),
        _run("flow", "prediction", "flow", prediction="flow"),
        _run("eps-weighted", "weight", "eps with EDM's weight", prediction="eps", weight="edm"),
        _run("plateau", "ema", "learning rate never lowered", decay_share=0.0, emas=AVERAGES),
        _run(
            "few",
            "few",
            "200 noiseless images, no flips, 4,000 updates",
            noiseless=True,
            images=200,
            steps=4 * STEPS,
            augment=False,
        ),
    )
}


def jobs(names: Iterable[str], seeds: Iterable[int], shard: str = "1/1") -> list[tuple[str, int]]:
    """The (name, seed) to compute, in order; of `shard` "K/M" every M-th, from the K-th.

    Further seeds of the basis and of the first runs come first, then the later runs, then seed 0 of
    the first ones; among these the longest first, so that M processes end at about the same time.
    Raises ParameterError for an unknown name, or a shard that is not K/M with K from 1 to M.
    """
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        raise ParameterError(f"There is no run {unknown[0]!r}; there are {', '.join(RUNS)}.")
    part = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not part or not 1 <= int(part[1]) <= int(part[2]):
        raise ParameterError(f"shard must be K/M with K from 1 to M, as 1/4; got {shard!r}.")

    def place(job: tuple[str, int]) -> tuple[int, float]:
        name, seed = job
        if name == "basis" and seed:
            return -1, 0.0  # all others are held against it
        turn = 1 if name in LATER else 2 * (seed == 0)
        return turn, -RUNS[name].cost

    every = sorted(((name, seed) for seed in dict.fromkeys(seeds) for name in names), key=place)
    return every[int(part[1]) - 1 :: int(part[2])]

"""The runs of the ablations: one basis, and what differs from it in one thing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

from torch import Tensor

from ..diffusion.process import LogNormal, ScheduleWarning, Uniform, schedule
from ..model import Sampling
from ..training.recipes import TINY, Recipe

STEPS = 1_000


@dataclass(frozen=True)
class Run:
    """One row: `family` is what is compared, `description` what this row has.

    Images are turned by up to `turned_deg`, if not 0. `emas` are decays of further averages of the
    same run's weights, each scored too.
    """

    recipe: Recipe
    family: str
    description: str
    turned_deg: float = 0.0
    emas: tuple[float, ...] = ()

    @property
    def table(self) -> Tensor | None:
        """The levels of the run's own schedule, ascending; None where sigma is continuous."""
        sigmas = self.recipe.train.sigmas
        if not isinstance(sigmas, Uniform):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScheduleWarning)  # T = 200 with unchanged beta is shown
            return schedule(sigmas.schedule, sigmas.T, sigmas.rescale)


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
    return Run(plan, family, description, turned_deg, emas)


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

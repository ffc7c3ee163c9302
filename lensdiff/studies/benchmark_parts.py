"""What the benchmark measures, a row at a time: each function takes the number of rounds."""

from __future__ import annotations

import functools
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .. import model as models
from ..data.folders import folder
from ..data.images import Stretch, lenses
from ..diffusion.process import Denoiser
from ..lensing.population import sample_params
from ..lensing.simulate import render
from ..lensing.survey import diverse
from ..model import Sampling
from ..networks.unet import UNet
from ..runtime import best_device, best_precision
from ..scores.distances import frechet, frechet_error
from ..scores.features import extractor
from ..scores.statistics import Statistics, reference
from ..training import recipes
from ..training.diffusion import Batches, TrainConfig, train
from . import cost, peers, samplers
from .benchmark_memory import MODEL, peak_bytes
from .paired import alternate
from .peer_files import Files
from .peer_lenses import Lenstronomy

SIDES = (64, 128, 150)
ROWS = (2_500, 10_000)  # images a side of a distance
WIDTH = 2_048  # of features, as Inception's
LARGEST = "lens150-long"
SCORED = 512
SLOW_CALLS = 250  # of DDIM, beside which the model's own sampler is held
DRAWN = 4  # lenses at once, of a timing
CALLS = (5, 8, 12, 16, 20, 28, 40)
BATCHES = (1, 4, 16, 64)
FILES = 1_000
SIMULATED = 24  # lenses
GROWING = {"side": (32, 64, 128, 256), "batch": (2, 8, 32, 64), "width": (32, 48, 96)}


def rounded(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Seconds to five digits."""
    return {name: [cost.significant(x) for x in found] for name, found in seconds.items()}


# ---- training ------------------------------------------------------------------------------------


def timed(made: dict[str, peers.Contender], rounds: int) -> dict:
    """Seconds of an update of each contender, in turn, and its number of weights."""
    seconds = alternate({k: lambda v=v: next(v.updates) for k, v in made.items()}, rounds)
    parameters = {name: one.parameters for name, one in made.items()}
    return {"batch": peers.BATCH, "seconds": rounded(seconds), "parameters": parameters}


def training(side: int, rounds: int, memory: bool = True) -> dict:
    """Updates of every contender in turn, at one batch, and the memory of each."""
    made = {name: peers.contender(name, side) for name in peers.CONTENDERS}
    found = timed(made, rounds)
    made.clear()  # the processes below need the room
    torch.cuda.empty_cache()
    peak = {name: peak_bytes(name, side) for name in peers.CONTENDERS} if memory else {}
    return {**found, "peak_bytes": peak}


def folding(side: int, rounds: int) -> dict:
    """Updates of ours, and of each peer with as many pixels folded into channels, in turn."""
    made = {"ours": peers.contender("ours", side)}
    made |= {name: peers.folded(name, side) for name in peers.BUILDERS}
    return timed(made, rounds)


# ---- scores --------------------------------------------------------------------------------------


def features(n: int, seed: int, width: int) -> np.ndarray:
    """Random features (n, width) whose variances fall as those of a real extractor do."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(0).standard_normal((width, width)) / width**0.5
    scale = 1 / np.arange(1, width + 1) ** 0.5
    return rng.standard_normal((n, width)) * scale @ mixed + 0.01 * seed


def frechet_distance(n: int, rounds: int, width: int = WIDTH) -> dict:
    """Our distance and pytorch-fid's of the same means and covariances; and our error bar."""
    theirs = peers.library("pytorch_fid.fid_score").calculate_frechet_distance
    a, b = (Statistics.of(features(n, seed, width)) for seed in (1, 2))
    moments = (a.mean, a.covariance, b.mean, b.covariance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its sqrtm call, gone in SciPy 1.18
        works = {"ours": lambda: frechet(a, b), "pytorch-fid": lambda: theirs(*moments)}
        seconds = alternate(works, max(3, rounds - 2))
        values = {name: float(work()) for name, work in works.items()}
    error_s = cost.seconds(lambda: frechet_error(a, b), repeats=1)
    return {
        "seconds": rounded(seconds),
        "distances": values,
        "error_s": cost.significant(error_s, 3),
    }


# ---- data ----------------------------------------------------------------------------------------


def simulation(kind: str, rounds: int) -> dict:
    """The same noiseless lenses of one class at 150 pixels: ours at once, lenstronomy's in turn.

    On one thread each, since lenstronomy has one.
    """
    survey = diverse(150, use_lenstronomy_k=True)
    oracle = Lenstronomy(survey)
    rows = sample_params(SIMULATED, kind, 5, survey)
    works = {"ours": lambda: render(rows, survey), "lenstronomy": lambda: [*map(oracle, rows)]}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = rounded(alternate(works, rounds))
    finally:
        torch.set_num_threads(threads)
    return {"seconds": seconds, "lenses": dict.fromkeys(works, SIMULATED), "threads": 1}


def reading(rounds: int, files: int = FILES) -> dict:
    """An epoch of .npy files of 150 pixels, read, scaled and turned: ours, and a DataLoader's."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "files"
        root.mkdir()
        for i, image in enumerate(lenses("test", 150, files).pixels):
            np.save(root / f"{i:05}.npy", image)
        filled = cost.seconds(lambda: folder(root, 8, Path(tempfile.mkdtemp(dir=work))), 1)
        images = folder(root, 8, Path(work) / "cache")
        config = TrainConfig(steps=1, batch=32)
        batches = Batches(images, np.arange(files), Stretch.of(images.pixels), config)
        count = files // config.batch

        def ours() -> None:
            for update in range(count):
                batches(update)

        workers = {"num_workers": 2, "persistent_workers": True}
        loader = torch.utils.data.DataLoader(
            Files(root), config.batch, shuffle=True, drop_last=True, **workers
        )

        def theirs() -> None:
            for batch in loader:
                torch.randn_like(batch)

        works = {"ours": ours, "DataLoader": theirs}
        seconds = alternate(works, rounds)
    return {"files": files, "first_s": cost.significant(filled, 3), "seconds": rounded(seconds)}


# ---- sampling ------------------------------------------------------------------------------------


def ways(model: models.Model, steps: tuple[int, ...], slow: int) -> list[Sampling]:
    """The model's own sampler in several numbers of calls, and DDIM in `slow`, at its levels."""
    own = model.sampling
    chosen = Sampling("ddim", slow, own.levels, own.high, own.low, clamp=own.clamp)
    return [replace(own, steps=few) for few in steps] + [chosen]


def calls(
    rounds: int, n: int = SCORED, steps: tuple[int, ...] = CALLS, slow: int = SLOW_CALLS
) -> dict:
    """Distances of one model at several numbers of calls, and by DDIM at many; seconds of each."""
    model = models.load(MODEL)
    net = extractor("efficientnet", best_device())
    real = reference(net, lenses("test", model.shape[-1]), range(n))
    found = []
    for sampling in ways(model, steps, slow):
        row = samplers.score(model, sampling, net, real, n)
        found.append({"sampler": sampling.sampler, **row})
    x = torch.randn(16, *model.shape, device=next(model.denoiser.parameters()).device)
    with torch.no_grad():
        call = cost.seconds(lambda: model.denoiser(x, 1.0), rounds) / len(x)
    return {"n": n, "call_s": cost.significant(call, 4), "samplers": found}


def drawing(
    rounds: int, n: int = DRAWN, steps: tuple[int, ...] = CALLS, slow: int = SLOW_CALLS
) -> dict:
    """Seconds in which one model draws `n` lenses in each number of calls, in turn."""
    model = models.load(MODEL)
    works = {
        f"{one.sampler}, {one.calls}": functools.partial(model.draw, n, 0, sampling=one)
        for one in ways(model, steps, slow)
    }
    return {"lenses": n, "seconds": rounded(alternate(works, rounds))}


def sixteen(rounds: int, n: int = 16) -> dict:
    """Seconds in which the largest model draws `n` lenses as it is shipped, in each precision."""
    works = {}
    for precision in dict.fromkeys(("fp32", best_precision())):
        model = models.load(LARGEST, precision=precision)
        works[precision] = functools.partial(model.draw, n)
    return {"lenses": n, "seconds": rounded(alternate(works, rounds))}


def batches(rounds: int, sizes: tuple[int, ...] = BATCHES) -> dict:
    """Seconds of a network call of batches of several sizes, in each precision there is."""
    works = {}
    for precision in dict.fromkeys(("fp32", best_precision())):
        denoiser = models.load(MODEL, precision=precision).denoiser
        device = next(denoiser.parameters()).device
        for n in sizes:
            x = torch.randn(n, 1, 64, 64, device=device)
            works[f"{precision}, {n}"] = functools.partial(
                denoiser, x, torch.ones(n, device=device)
            )
    with torch.no_grad():
        return {"seconds": rounded(alternate(works, rounds))}


# ---- growth --------------------------------------------------------------------------------------


def growth(what: str, rounds: int, values: tuple[int, ...] = ()) -> dict:
    """Update, call and memory of a training step of `lens64`'s network, with one thing changed.

    All values take turns, in both.
    """
    recipe = recipes.every()[MODEL]
    updates = {}
    calls = {}
    found = []
    for value in values or GROWING[what]:
        side = value if what == "side" else 64
        plan = recipe.widened(value) if what == "width" else recipe
        batch = value if what == "batch" else 8
        denoiser = Denoiser(UNet(**plan.network), "edm", precision=best_precision())
        denoiser = denoiser.to(best_device(), memory_format=torch.channels_last)
        x = torch.randn(batch, 1, side, side, device=best_device())
        config = TrainConfig(steps=10**6, batch=batch)
        updates[value] = train(denoiser, peers.random_images(side, max(64, 2 * batch)), config)
        calls[value] = functools.partial(denoiser, x, torch.ones(batch, device=x.device))
        kept = cost.bytes_kept_by(denoiser, x)
        denoiser.requires_grad_(True)
        found.append({"value": value, "kept_bytes": kept, "parameters": peers.count(denoiser)})
    with torch.no_grad():
        call_s = rounded(alternate(calls, rounds))
    works = {value: lambda one=one: next(one) for value, one in updates.items()}
    update_s = rounded(alternate(works, rounds))
    for row in found:
        row["call_s"] = call_s[row["value"]]
        row["update_s"] = update_s[row["value"]]
    return {"batch": 8, "measured": found}

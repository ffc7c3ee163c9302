"""Reflow: a model learns the straight lines from noise to what another model makes of it.

Noise and images that are drawn apart are joined by paths that cross, and the ODE bends to avoid
that. A trained model joins them without crossings; learnt again along straight lines between its
own pairs, the paths become straighter, and fewer steps follow them (Liu et al. 2022, section 2.2).
"""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import model as models
from ..data.images import ImageSet, split_rows
from ..diffusion.sampling import SAMPLERS, noise
from ..errors import CheckpointError, ParameterError
from ..model import Model, Sampling
from ..runtime import once, processor, progress
from ..storage import fingerprint_of, write_arrays
from .checks import check_apart, check_places
from .diffusion import Batches, DiffusionTask, TrainConfig, run_fingerprint
from .loop import Run
from .recipe import sampling_fields
from .state import Curve, stages_of


@torch.no_grad()
def pairs(
    model: Model, n: int, seed: int = 0, sampling: Sampling | None = None, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Noise (n, C, H, W), standard normal, and what the model makes of it, in its own units.

    Pair i has the seed `seed` + i. The second is not clamped, and no telescope has seen it. Raises
    ParameterError for fewer than two pairs, or a sampling with noise of its own.
    """
    sampling = sampling or model.sampling
    if n < 2 or sampling.eta > 0:
        raise ParameterError("Reflow needs two pairs or more, and a sampling with eta = 0.")
    denoise = model.denoise(replace(sampling, clamp=False))
    device = next(model.denoiser.parameters()).device
    sigmas = sampling.sigmas()
    begun = []
    made = []
    for start in progress(range(0, n, batch), what="pairs of noise and image"):
        seeds = range(seed + start, seed + min(n, start + batch))
        eps = noise(seeds, model.denoised_shape, device)
        for x in SAMPLERS[sampling.sampler](denoise, eps * float(sigmas[0]), sigmas):
            state = x
        begun.append(eps.cpu().numpy())
        made.append(state.float().cpu().numpy())
    return np.concatenate(begun), np.concatenate(made)


def _kept_pairs(
    model: Model,
    n: int,
    seed: int,
    sampling: Sampling,
    state: Path | str | None,
    identity: str,
) -> tuple[np.ndarray, np.ndarray]:
    """`pairs`, or those that an earlier call kept beside `state`.

    Raises CheckpointError where these are of another call: they took long to draw.
    """
    path = None if state is None else Path(state) / "pairs.npz"
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["identity"]) == identity:
                return saved["eps"], saved["x0"]
        reason = "these pairs are of another run (model, number, seed or sampling differ)"
        raise CheckpointError(f"{path}: {reason}. Give `state` another folder.")
    eps, x0 = pairs(model, n, seed, sampling)
    if path is not None:
        write_arrays(path, eps=eps, x0=x0, identity=identity)
    return eps, x0


class PairBatches(Batches):
    """Batches in which image and noise belong together: `x0` (n, C, H, W) was made of `eps`.

    Sampling began at x = high * eps, where `high` is its first level. The straight line from x0 to
    there is x0 + sigma * noise with the noise eps - x0 / high.
    """

    def __init__(self, x0: np.ndarray, eps: np.ndarray, high: float, *rest: object, **more: object):
        super().__init__(*rest, **more)
        self.x0 = x0
        self.lines = eps - x0 / np.float32(high)

    def __call__(self, update: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        rows = self.shuffle(update)
        _, sigma, _, label = super().__call__(update)
        given = (torch.from_numpy(array[rows]) for array in (self.x0, self.lines))
        x0, eps = (x.to(self.device, memory_format=torch.channels_last) for x in given)
        return x0, sigma, eps, label


def _check(model: Model, config: TrainConfig) -> None:
    """Raises ParameterError for a conditional model, or settings with held-out losses."""
    net = model.denoiser.net
    if net.classes or net.conditions:
        raise ParameterError(f"{model.folder.name} is conditional: reflow is for models without.")
    if config.held_out_every:
        reason = "a held-out loss would be that of noise and images that are drawn apart"
        raise ParameterError(f"Reflow takes none, since {reason}. Set held_out_every=0.")


def _run(
    model: Model,
    config: TrainConfig,
    images: ImageSet,
    x0: np.ndarray,
    eps: np.ndarray,
    high: float,
) -> Run:
    """The training of a copy of the model on its pairs, which are `images` as well."""
    denoiser = copy.deepcopy(model.denoiser).requires_grad_(True)
    rows = split_rows(len(x0))
    task = DiffusionTask(denoiser, images, config, model.stretch, rows)
    given = (images, rows[0], model.stretch, config)
    task.batches = PairBatches(x0, eps, high, *given, net=denoiser.net)
    fingerprint = run_fingerprint(denoiser, images, rows[0], config)
    return Run(task, config.settings(denoiser.precision), fingerprint)


def reflow(
    model: Model,
    config: TrainConfig,
    folder: Path | str,
    n: int = 4_096,
    sampling: Sampling | None = None,
    state: Path | str | None = None,
    seed: int = 0,
) -> Model:
    """Train a copy of an unconditional `model` on `n` of its own pairs, and save it in `folder`.

    As of any set, a tenth of them is kept back from learning. With `state`, a folder, the run can
    be killed and called again. Raises ParameterError for a conditional model, for held-out losses,
    and as `pairs`; CheckpointError where `state` is of another run; and as `checks.check_places`
    and `checks.check_apart`.
    """
    _check(model, config)
    check_places(folder, state)
    check_apart(folder, None if model.autoencoder is None else model.autoencoder.folder)
    sampling = sampling or model.sampling
    identity = fingerprint_of([model.spec["sha256"], str(sampling), n, seed])
    eps, x0 = _kept_pairs(model, n, seed, sampling, state, identity)
    images = ImageSet(f"pairs of {model.folder.name}", model.stretch.inverse(x0), identity)
    run = _run(model, config, images, x0, eps, float(sampling.sigmas()[0]))
    curve = Curve(state)
    *_, step = curve.watch(run.steps(state), config.steps, f"reflow of {model.folder.name}")
    about = {key: model.spec[key] for key in ("telescope", "classes") if key in model.spec}
    later = ("learns", "balance")  # fields that are left out where they have their defaults
    settings = {name: x for name, x in asdict(config).items() if name not in later or x}
    about |= {"data": images.as_dict(), "reflow": settings, "sampling": sampling_fields(sampling)}
    about |= {"curve": curve.rows, "images_seen": step.images_seen, "machine": processor()}
    about |= {"seconds": round(step.seconds), "stages": stages_of(model.spec, "recipe")}
    arguments = model.spec["network"]["arguments"]
    size = model.spec["image_size"]
    given = (folder, step.ema, arguments, model.stretch, size, model.autoencoder)
    once(lambda: models.save(*given, **about))
    return models.load(folder, precision=model.denoiser.precision)

"""A diffusion model as it is shipped: load it, draw images with it, save it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data.images import Stretch
from .data.labels import check_labels, wanted_labels
from .diffusion.process import SCHEDULES, Denoiser, schedule
from .diffusion.sampling import (
    Denoise,
    calls,
    clamped,
    draw,
    flow_levels,
    guided,
    karras_levels,
    log_levels,
    table_levels,
)
from .errors import CheckpointError, SamplingError
from .lensing.telescope import Telescope
from .networks import classifier, latent
from .networks.latent import SPEC, WEIGHTS, Latent
from .networks.transformer import DiT
from .networks.unet import UNet
from .runtime import best_device, best_precision, progress
from .storage import FORMAT, half_precision, read_folder, write_folder
from .storage.checkpoints import find

NETWORKS = {"UNet": UNet, "DiT": DiT}
CURE = "Take another copy of the folder, or train the model again."


@dataclass(frozen=True)
class Sampling:
    """How to sample: a sampler, its levels, and whether each E[x0 | x] is clamped to real pixels.

    `levels` is 'karras' or 'log' (from `high` to `low`), 'flow' (from `high`), or a DDPM schedule's
    name, whose own entries are taken, with its `T` and `rescale` (`process.alpha_bar`).
    """

    sampler: str = "dpmpp_2m"
    steps: int = 34
    levels: str = "log"
    high: float = 40.0
    low: float = 0.002
    eta: float = 0.0
    clamp: bool = True
    T: int = 1000
    rescale: bool = True

    def sigmas(self) -> Tensor:
        """The levels, (steps + 1,), float64, down to 0. Raises SamplingError for another name."""
        spaced = {"karras": karras_levels, "log": log_levels}
        spaced["flow"] = lambda steps, high, _: flow_levels(steps, high)
        if self.levels in spaced:
            return spaced[self.levels](self.steps, self.high, self.low)
        if self.levels in SCHEDULES:
            return table_levels(schedule(self.levels, self.T, self.rescale), self.steps)
        raise SamplingError(f"levels must be one of {(*spaced, *SCHEDULES)}, not {self.levels!r}.")

    @property
    def calls(self) -> int:
        """Network calls a sample costs."""
        return calls(self.sampler, self.steps)

    def options(self) -> dict[str, float]:
        """Keyword arguments for the sampler."""
        return {"eta": self.eta} if self.sampler == "ddim" else {}

    def __str__(self) -> str:
        eta = f", eta {self.eta:g}" if self.sampler == "ddim" else ""
        span = f" {self.high:g} to {0.0 if self.levels == 'flow' else self.low:g}"
        if self.levels in SCHEDULES:
            span = "" if self.T == 1000 else f" of T = {self.T}" + ", rescaled" * self.rescale
        clamp = ", clamped" if self.clamp else ""
        return f"{self.sampler}{eta}, {self.steps} steps, {self.levels} levels{span}{clamp}"


@dataclass(frozen=True)
class Model:
    """A denoiser with all that drawing images needs.

    `spec` is its spec.json: network, prediction, stretch, image_size, classes, recipe, data,
    images_seen, sampling, sha256. Where there is an `autoencoder`, what is denoised are its
    latents, which it decodes (Rombach et al. 2022, section 3).
    """

    denoiser: Denoiser
    stretch: Stretch
    spec: dict
    folder: Path
    autoencoder: Latent | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, H, W) of the images it draws."""
        return self.denoised_shape if self.autoencoder is None else self.autoencoder.image_shape

    @property
    def denoised_shape(self) -> tuple[int, int, int]:
        """(channels, h, w) of what its network denoises: its images, or their latents."""
        if self.autoencoder is not None:
            return self.autoencoder.shape
        size = self.spec["image_size"]
        channels = self.spec["network"]["arguments"].get("image_channels", 1)
        return channels, size, size

    @property
    def sampling(self) -> Sampling:
        """The sampling it is shipped with."""
        return Sampling(**self.spec.get("sampling", {}))

    @property
    def telescope(self) -> Telescope | None:
        """What adds the survey's noise to its images, where it was trained on noiseless ones."""
        about = self.spec.get("telescope")
        return None if about is None else Telescope.from_dict(about)

    def denoise(self, sampling: Sampling | None = None, guidance: float = 1.0) -> Denoise:
        """The denoiser (x, sigma, label) -> E[x0 | x] as the samplers use it.

        It is guided where `guidance` is not 1, and its answers are clamped to the limits of real
        pixels where the sampling says so. Latents have no limits: they are never clamped.
        """
        denoise = guided(self.denoiser, guidance)
        if self.autoencoder is not None or not (sampling or self.sampling).clamp:
            return denoise
        low, high = self.stretch.limits
        return clamped(denoise, low, high)

    def labels(self, wanted: Sequence[str | int] | np.ndarray) -> Tensor:
        """Labels as the network takes them, one for each entry of `wanted`.

        These are names or numbers of classes, or lens parameters; see `data.labels.wanted_labels`,
        whose SamplingError it raises.
        """
        names = self.spec.get("classes", [])
        return wanted_labels(self.denoiser.net, names, wanted, self.folder.name)

    def generate(
        self,
        seeds: Iterable[int],
        sampling: Sampling | None = None,
        label: Tensor | None = None,
        batch: int = 64,
        observed: bool = True,
        guidance: float = 1.0,
    ) -> Iterator[Tensor]:
        """Yield images in [0, 1] on the CPU, (<= batch, C, H, W), one for each seed.

        `label`, one for each seed, comes from `labels`; `guidance` is the scale of classifier-free
        guidance (`sampling.guided`). Where the model has a telescope, images are what it records;
        with `observed=False`, the light as it arrives. Raises SamplingError where the labels don't
        match the seeds, and for guidance without them.
        """
        if label is None and guidance != 1:
            raise SamplingError("Guidance leads to what a label asks for: give one, or leave it 1.")
        if label is not None:
            check_labels(self.denoiser.net, label, self.folder.name)
        sampling = sampling or self.sampling
        seeds = list(seeds)
        samples = draw(
            self.denoise(sampling, guidance),
            self.denoised_shape,
            seeds,
            sampling.sigmas(),
            sampling.sampler,
            label,
            batch,
            next(self.denoiser.parameters()).device,
            **sampling.options(),
        )
        telescope = self.telescope if observed else None
        for start, x in zip(range(0, len(seeds), max(1, batch)), samples, strict=True):
            images = self.images_of(x)
            if telescope is not None:
                images = telescope.observe(images, seeds[start : start + batch])
            yield images

    def images_of(self, x: Tensor) -> Tensor:
        """Images in [0, 1], (n, C, H, W), on the CPU, of what the samplers give: (n, c, h, w)."""
        values = self.stretch.inverse(x)
        if self.autoencoder is not None:
            return self.autoencoder.decode(values.float())
        return values.clamp(0, 1).cpu()

    def draw(
        self,
        n: int,
        seed: int = 0,
        label: str | int | Sequence[str | int] | np.ndarray | None = None,
        guidance: float = 1.0,
        sampling: Sampling | None = None,
        observed: bool = True,
    ) -> Tensor:
        """Draw `n` images, (n, C, H, W), values in [0, 1]; image i has the seed `seed` + i.

        `label` is a class for all images or one for each, or lens parameters, (7,) or (n, 7), see
        `labels`; `guidance` and `observed` as in `generate`. Raises SamplingError for no images, or
        labels that the network can't take.
        """
        if n < 1:
            raise SamplingError(f"{n} images: draw one or more.")
        given = None if label is None else self.labels(self._one_for_each(label, n))
        found = torch.empty((n, *self.shape))  # parts that are joined would take twice the room
        parts = self.generate(range(seed, seed + n), sampling, given, 64, observed, guidance)
        with progress(total=n, what="drawing") as bar:
            for start, images in zip(range(0, n, 64), parts, strict=True):
                found[start : start + len(images)] = images
                bar.update(len(images))
        return found

    def _one_for_each(self, label: object, n: int) -> Sequence[str | int] | np.ndarray:
        """`label` repeated where it is one for all `n` images."""
        try:
            depth = np.ndim(label)
        except ValueError as error:
            raise SamplingError(f"label: its rows are not equally long ({error}).") from error
        if depth == 0:
            return [label] * n
        single = self.denoiser.net.conditions and depth == 1
        return np.repeat(np.asarray(label)[None], n, 0) if single else label


def save(
    folder: Path | str,
    denoiser: Denoiser,
    arguments: dict,
    stretch: Stretch,
    image_size: int,
    autoencoder: Latent | None = None,
    **spec: object,
) -> Path:
    """Write a checkpoint: the weights in fp16, and what is needed to use and to repeat them.

    `arguments` are those the network was made with; `spec` holds what else there is to say: recipe,
    data fingerprint, images_seen, scores. An `autoencoder` is named by its SHA-256, and copied into
    the folder. Raises CheckpointError for weights not finite, StorageError as `write_folder`.
    """
    folder = Path(folder)
    about = {
        "format": FORMAT,
        "network": {"name": type(denoiser.net).__name__, "arguments": arguments},
        "prediction": denoiser.scaling.name,
        "data_std": denoiser.data_std,
        "stretch": {"mean": stretch.mean, "std": stretch.std},
        "image_size": image_size,
        **spec,
    }
    inside = {}
    if autoencoder is not None:
        name = autoencoder.spec.get("name", autoencoder.folder.name)
        about["autoencoder"] = {"name": name, "sha256": autoencoder.sha256}
        inside[latent.INSIDE] = autoencoder.folder
    write_folder(folder, half_precision(folder, denoiser.net), WEIGHTS, SPEC, about, inside)
    return folder


def load(
    name: Path | str, device: torch.device | str | None = None, precision: str | None = None
) -> Model | classifier.LensClassifier | Latent:
    """Read a shipped model by its name, or a folder: a `Model`, `LensClassifier` or `Latent`.

    `device`: the GPU where there is one; `precision` of a denoiser: see `runtime.best_precision`.
    Raises ParameterError for another, CheckpointError for a missing, damaged or foreign folder.
    """
    folder = find(name)
    weights, spec = read_folder(folder, WEIGHTS, SPEC, CURE)
    if spec.get("kind") == "classifier":
        return classifier.load(folder, device=device)
    if spec.get("kind") == "autoencoder":
        return latent.load(folder, device)
    autoencoder = latent.belonging(folder, spec.get("autoencoder"), device)
    precision = best_precision(best_device(device), precision)
    try:
        network = spec["network"]
        net = NETWORKS[network["name"]](**network["arguments"])
        net.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        stretch = Stretch(**spec["stretch"])
        denoiser = Denoiser(net, spec["prediction"], spec["data_std"], precision)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = f"its spec.json and its weights don't agree ({error})"
        raise CheckpointError(f"{folder}: {reason}. Take another copy of the folder.") from error
    denoiser.to(best_device(device), memory_format=torch.channels_last)
    denoiser.eval().requires_grad_(False)
    return Model(denoiser, stretch, spec, folder, autoencoder)

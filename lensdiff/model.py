"""Checkpoints that describe themselves: a folder of `weights.safetensors` (fp16) and `spec.json`;
and the full state of a run.

Nothing is ever unpickled, folders are written under a temporary name and renamed when they are
whole, and what is read is held against its SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data.images import Stretch
from .diffusion.process import Denoiser
from .diffusion.sampling import Denoise, Sampling, clamped, draw, guided
from .errors import CheckpointError, SamplingError
from .lensing import parameters as conditions
from .lensing.telescope import Telescope
from .networks.unet import UNet
from .runtime import best_device, best_precision
from .storage import FORMAT, half_precision, read_folder, write_folder

NETWORKS = {"UNet": UNet}


@dataclass(frozen=True)
class Checkpoint:
    """A model as it is shipped.

    `spec` has: network, prediction, stretch, image_size, classes, recipe, data, images_seen,
    sha256.
    """

    denoiser: Denoiser
    stretch: Stretch
    spec: dict
    folder: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, H, W) of the images it draws."""
        size = self.spec["image_size"]
        return self.spec["network"]["arguments"].get("image_channels", 1), size, size

    @property
    def sampling(self) -> Sampling:
        """The sampling it is shipped with."""
        return Sampling(**self.spec.get("sampling", {}))

    @property
    def telescope(self) -> Telescope | None:
        """What adds the survey's noise to its images, where it was trained on noiseless ones."""
        return Telescope.from_dict(self.spec["telescope"]) if "telescope" in self.spec else None

    def guess(self, sampling: Sampling | None = None, guidance: float = 1.0) -> Denoise:
        """The denoiser, guided where asked, its guesses clamped to the limits of real pixels
        where the sampling says so.
        """
        denoise = guided(self.denoiser, guidance)
        return (
            clamped(denoise, *self.stretch.limits) if (sampling or self.sampling).clamp else denoise
        )

    def labels(self, asked: Sequence[str | int] | np.ndarray) -> Tensor:
        """What the network takes for what is asked: names or numbers of classes (n,), or values of
        `conditions.NAMES` (n, 7).

        Raises SamplingError for a network without labels, a class that it doesn't know, or values
        that are not finite.
        """
        net = self.denoiser.net
        names = self.spec.get("classes", [])
        if net.conditions:
            values = np.asarray(asked, np.float32)
            if (
                values.ndim != 2
                or values.shape[1] != net.conditions
                or not np.isfinite(values).all()
            ):
                raise SamplingError(
                    f"{self.folder.name} takes {net.conditions} finite numbers an image; got an "
                    f"array of {values.shape}."
                )
            return torch.from_numpy(conditions.encode(values))
        if not net.classes:
            raise SamplingError(
                f"{self.folder.name} has no classes and no conditions: it draws what it likes. "
                "Take a conditional model."
            )
        numbers = [
            names.index(one) if one in names else one
            for one in (x if isinstance(x, str) else int(x) for x in asked)
        ]
        wrong = next(
            (one for one in numbers if isinstance(one, str) or not 0 <= one < net.classes), None
        )
        if wrong is not None:
            raise SamplingError(
                f"{self.folder.name} knows the classes {names}, 0 to {net.classes - 1}; there "
                f"is no {wrong!r}."
            )
        return torch.tensor(numbers, dtype=torch.long)

    def generate(
        self,
        seeds: Iterable[int],
        sampling: Sampling | None = None,
        label: Tensor | None = None,
        batch: int = 64,
        observed: bool = True,
        guidance: float = 1.0,
    ) -> Iterator[Tensor]:
        """Yield images in [0, 1] on the CPU, at most `batch` at a time, (<= batch, C, H, W), one
        for each seed.

        `label`, one for each seed, comes from `labels`; `guidance` is the scale of `sample.guided`.
        Where the model has a telescope, images are what it records; with `observed=False`, the
        light as it arrives. Raises SamplingError where the labels don't match the seeds.
        """
        sampling = sampling or self.sampling
        seeds = list(seeds)
        if label is not None and len(label) != len(seeds):
            raise SamplingError(f"{len(label)} labels for {len(seeds)} seeds: give one for each.")
        device = next(self.denoiser.parameters()).device
        how = (sampling.sigmas(), sampling.sampler, label, batch, device)
        drawn = draw(self.guess(sampling, guidance), self.shape, seeds, *how, **sampling.options())
        images = (self.stretch.inverse(x).clamp(0, 1).cpu() for x in drawn)
        telescope = self.telescope if observed else None
        if telescope is None:
            return images
        return (
            telescope.observe(x, seeds[batch * i : batch * i + len(x)])
            for i, x in enumerate(images)
        )


def save(
    folder: Path | str,
    denoiser: Denoiser,
    arguments: dict,
    stretch: Stretch,
    image_size: int,
    **spec,
) -> Path:
    """Write a checkpoint: the weights in fp16, and what is needed to use and to repeat them.

    `arguments` are those the network was made with; `spec` holds what else there is to say: recipe,
    data fingerprint, images_seen, scores.
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
    write_folder(
        folder, half_precision(folder, denoiser.net), "weights.safetensors", "spec.json", about
    )
    return folder


def load(
    folder: Path | str, device: torch.device | str | None = None, precision: str | None = None
) -> Checkpoint:
    """Read a checkpoint.

    `device` is the GPU where there is one; `precision` of the network is bf16 where the processor
    has it.

    Raises CheckpointError for a missing, damaged or foreign folder.
    """
    folder = Path(folder)
    weights, spec = read_folder(
        folder,
        "weights.safetensors",
        "spec.json",
        "Take another copy of the folder, or train the model again.",
    )
    try:
        network = spec["network"]
        net = NETWORKS[network["name"]](**network["arguments"])
        net.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        stretch = Stretch(**spec["stretch"])
        denoiser = Denoiser(
            net, spec["prediction"], spec["data_std"], precision or best_precision(device)
        )
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: its spec.json and its weights don't agree ({error}). Take another copy "
            "of the folder."
        ) from error
    denoiser.to(device or best_device(), memory_format=torch.channels_last).eval().requires_grad_(
        False
    )
    return Checkpoint(denoiser, stretch, spec, folder)


def _relabelled(old: UNet, new: UNet) -> dict[str, Tensor]:
    """The weights of `old` for a network with other labels, which start as nothing: without a
    label, both do the same.
    """
    weights = {
        name: weight for name, weight in old.state_dict().items() if not name.startswith("label.")
    }
    bias = "noise.layers.2.bias"  # the null label's embedding is added to this layer's output
    if old.label is not None:
        weights[bias] = weights[bias] + old.label(old.null(1, weights[bias].device))[0]
    if new.classes:
        nn.init.zeros_(new.label.weight)
    more = new.stem.in_channels - old.stem.in_channels
    if more > 0:  # planes come behind the image, and say nothing at first
        weights["stem.weight"] = F.pad(weights["stem.weight"], (0, 0, 0, 0, 0, more))
    return weights | {
        name: weight for name, weight in new.state_dict().items() if name.startswith("label.")
    }


@torch.no_grad()
def copy_weights(start: Checkpoint, denoiser: Denoiser) -> None:
    """Give a denoiser the weights of a checkpoint.

    Raises CheckpointError where network or prediction differ.

    Only what they are conditioned on may differ: the denoiser then does at first, whatever its
    label, what the start does without one.
    """
    same = (start.denoiser.scaling.name, start.denoiser.data_std) == (
        denoiser.scaling.name,
        denoiser.data_std,
    )
    old = start.denoiser.net
    new = denoiser.net
    other = (old.classes, old.conditions, old.stem.in_channels) != (
        new.classes,
        new.conditions,
        new.stem.in_channels,
    )
    try:
        if not same:
            raise RuntimeError(
                f"it predicts {start.denoiser.scaling.name}, not {denoiser.scaling.name}"
            )
        new.load_state_dict(_relabelled(old, new) if other else old.state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"{start.folder}: training can't go on from here with this recipe ({error}). Take "
            "its own recipe."
        ) from error

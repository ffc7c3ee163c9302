"""The two ends of a latent model: an autoencoder as it is shipped, to encode and decode with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError, DataError, SamplingError
from ..runtime import best_device, enough_memory, progress
from ..storage import (
    FORMAT,
    SPEC,
    WEIGHTS,
    checkpoints,
    half_precision,
    is_shipped,
    read_folder,
    set_aside,
    write_folder,
)
from .autoencoder import AUTOENCODERS, Autoencoder

INSIDE = "autoencoder"  # the folder in a latent model's own that holds its autoencoder
CURE = "Take another copy of the folder, or train the autoencoder again."
SMALLER = "Give a smaller `batch`, or set LENSDIFF_DEVICE=cpu and load the model again"


@dataclass(frozen=True)
class Latent:
    """An autoencoder with its description, `spec`, and the folder that it was read from."""

    net: Autoencoder
    spec: dict
    folder: Path

    @property
    def sha256(self) -> str:
        """SHA-256 of its weights' file, by which a latent model names it."""
        return self.spec["sha256"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, H, W) of the images that it learnt."""
        height, width = self.spec["image_size"]
        return self.net.image_channels, height, width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(latent_channels, h, w) of the latents of such images."""
        h, w = self.net.grid(*self.spec["image_size"])
        return self.net.latent_channels, h, w

    @torch.no_grad()
    def encode(self, images: Tensor | np.ndarray, batch: int = 64) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to latents (n, latent_channels, h, w), on the CPU.

        Each channel has mean 0 and std 1 over the images that it learnt. Raises DataError for
        images of other channels, smaller than the fold, or with NaN.
        """
        found = [torch.zeros(0, self.net.latent_channels, *self.net.grid(*images.shape[-2:]))]
        for start in progress(range(0, len(images), batch), what="encoding"):
            part = self._part(images, start, batch)
            found.append(self.net.encode(part).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def decode(
        self, latents: Tensor | np.ndarray, batch: int = 64, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Latents (n, latent_channels, h, w) to images (n, C, H, W) in [0, 1], on the CPU.

        `size` is (H, W), by default that of the images that it learnt. Raises DataError for latents
        of another shape, or with NaN, SamplingError for a batch too large for the memory.
        """
        height, width = size or self.spec["image_size"]
        shape = (self.net.latent_channels, *self.net.grid(height, width))
        if tuple(latents.shape[1:]) != shape:
            found = f"{self.folder.name}: latents of shape {tuple(latents.shape[1:])}, not {shape}"
            raise DataError(f"{found}: they are of another autoencoder or of other images.")
        found = [torch.zeros(0, self.net.image_channels, height, width)]
        for start in range(0, len(latents), batch):
            part = self._part(latents, start, batch)
            with enough_memory(SamplingError, f"{len(part)} images", SMALLER, part.device):
                found.append(self.net.decode(part, height, width).clamp(0, 1).cpu())
        return torch.cat(found)

    def reconstruct(self, images: Tensor | np.ndarray, batch: int = 64) -> Tensor:
        """Images (n, C, H, W) in [0, 1] as they come back, on the CPU: decoded as encoded."""
        height, width = images.shape[-2:]
        return self.decode(self.encode(images, batch), batch, (height, width))

    def _part(self, values: Tensor | np.ndarray, start: int, batch: int) -> Tensor:
        """A batch of images or latents on the network's device, all of it finite."""
        part = values[start : start + batch]
        part = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part, np.float32))
        part = part.float()
        wrong = ~part.isfinite().flatten(1).all(1)
        if wrong.any():
            number = start + int(wrong.nonzero()[0])
            raise DataError(f"Number {number} holds NaN or infinity. Take it out, or mend it.")
        return part.to(self.net.mean.device, memory_format=torch.channels_last)


def save(
    folder: Path | str,
    net: Autoencoder,
    arguments: dict,
    image_size: tuple[int, int],
    **spec: object,
) -> Path:
    """Write an autoencoder: its weights in fp16 and its description.

    `arguments` are those the network was made with. Raises CheckpointError where the weights are
    not finite.
    """
    folder = Path(folder)
    about = {
        "format": FORMAT,
        "kind": "autoencoder",
        "network": {"name": type(net).__name__, "arguments": arguments},
        "image_size": list(image_size),
        **spec,
    }
    write_folder(folder, half_precision(folder, net), WEIGHTS, SPEC, about)
    return folder


def load(folder: Path | str, device: torch.device | str | None = None) -> Latent:
    """Read an autoencoder from its folder, or a shipped one by its name.

    Raises CheckpointError for a missing or damaged folder, or of another kind.
    """
    path = Path(folder)
    if path.name == str(folder) and not path.exists():
        path = checkpoints.ensure(path.name) or path
    weights, spec = read_folder(path, WEIGHTS, SPEC, CURE)
    if spec.get("kind") != "autoencoder":
        raise CheckpointError(f"{path}: this is no autoencoder. Take the folder of one.")
    try:
        network = spec["network"]
        net = AUTOENCODERS[network["name"]](**network["arguments"])
        net.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        net.grid(*spec["image_size"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = f"its spec.json and its weights don't agree ({error})"
        raise CheckpointError(f"{path}: {reason}. {CURE}") from error
    net.to(best_device(device), memory_format=torch.channels_last)
    return Latent(net.eval().requires_grad_(False), spec, path)


def _places(folder: Path, name: str) -> Iterator[Path]:
    """Where the autoencoder `name` of the model in `folder` may lie: inside, beside, or shipped."""
    if (folder / INSIDE).is_dir():
        yield folder / INSIDE
        return
    # beside a shipped model lies a shipped one, which may not have been fetched to its end
    beside = folder.parent / name
    if (beside / SPEC).is_file() and not is_shipped(beside):
        yield beside
    ours = checkpoints.ensure(name)
    if ours is not None:
        yield ours


def belonging(
    folder: Path, about: dict | None, device: torch.device | str | None = None
) -> Latent | None:
    """The autoencoder that the latent model in `folder` names as `about`, its name and SHA-256.

    It lies inside, beside the model under its name, or is a shipped one; None where `about` is.
    Raises CheckpointError where it is missing, or where what is there is another one.
    """
    if about is None:
        return None
    if not folder.exists():  # a save was killed between its two renames
        folder = (set_aside(folder) or [folder])[-1]
    wanted = f"the autoencoder with SHA-256 {about['sha256'][:12]}..."
    cure = f"Put {wanted} into {folder / INSIDE}."
    others = []
    for place in _places(folder, about["name"]):
        latent = load(place, device)
        if latent.sha256 == about["sha256"]:
            return latent
        others.append(f"{place} is another one ({latent.sha256[:12]}...)")
    if not others:
        raise CheckpointError(f"{folder}: its autoencoder {about['name']} is missing. {cure}")
    raise CheckpointError(f"{folder} draws latents of {wanted}, and {others[0]}. {cure}")

"""Checkpoints that describe themselves: a folder of `weights.safetensors` (fp16) and `spec.json`; and the full state of a run.

Nothing is ever unpickled, folders are written under a temporary name and renamed when they are whole, and what is read is held against its
SHA-256.
"""
from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import conditions
from .data import Stretch
from .diffusion import Denoiser
from .errors import CheckpointError, SamplingError
from .networks import UNet
from .sample import Denoise, Sampling, clamped, draw, guided
from .telescope import Telescope

FORMAT = "lensdiff-1"
NETWORKS = {"UNet": UNet}


@dataclass(frozen=True)
class Checkpoint:
    """A model as it is shipped. `spec` has: network, prediction, stretch, image_size, classes, recipe, data, images_seen, sha256."""

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
        """The denoiser, guided where asked, its guesses clamped to the limits of real pixels where the sampling says so."""
        denoise = guided(self.denoiser, guidance)
        return clamped(denoise, *self.stretch.limits) if (sampling or self.sampling).clamp else denoise

    def labels(self, asked: Sequence[str | int] | np.ndarray) -> Tensor:
        """What the network takes for what is asked: names or numbers of classes (n,), or values of `conditions.NAMES` (n, 7).

        Raises SamplingError for a network without labels, a class that it doesn't know, or values that are not finite.
        """
        net, names = self.denoiser.net, self.spec.get("classes", [])
        if net.conditions:
            values = np.asarray(asked, np.float32)
            if values.ndim != 2 or values.shape[1] != net.conditions or not np.isfinite(values).all():
                raise SamplingError(f"{self.folder.name} takes {net.conditions} finite numbers an image; got an array of {values.shape}.")
            return torch.from_numpy(conditions.encode(values))
        if not net.classes:
            raise SamplingError(f"{self.folder.name} has no classes and no conditions: it draws what it likes. Take a conditional model.")
        numbers = [names.index(one) if one in names else one for one in (x if isinstance(x, str) else int(x) for x in asked)]
        wrong = next((one for one in numbers if isinstance(one, str) or not 0 <= one < net.classes), None)
        if wrong is not None:
            raise SamplingError(f"{self.folder.name} knows the classes {names}, 0 to {net.classes - 1}; there is no {wrong!r}.")
        return torch.tensor(numbers, dtype=torch.long)

    def generate(
        self, seeds: Iterable[int], sampling: Sampling | None = None, label: Tensor | None = None, batch: int = 64, observed: bool = True,
        guidance: float = 1.0,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Yield images in [0, 1] on the CPU, at most `batch` at a time, (<= batch, C, H, W), one for each seed.

        `label`, one for each seed, comes from `labels`; `guidance` is the scale of `sample.guided`. Where the model has a telescope, images
        are what it records; with `observed=False`, the light as it arrives. Raises SamplingError where the labels don't match the seeds.
        """
        sampling, seeds = sampling or self.sampling, list(seeds)
        if label is not None and len(label) != len(seeds):
            raise SamplingError(f"{len(label)} labels for {len(seeds)} seeds: give one for each.")
        device = next(self.denoiser.parameters()).device
        how = (sampling.sigmas(), sampling.sampler, label, batch, device)
        drawn = draw(self.guess(sampling, guidance), self.shape, seeds, *how, **sampling.options())
        images = (self.stretch.inverse(x).clamp(0, 1).cpu() for x in drawn)
        telescope = self.telescope if observed else None
        if telescope is None:
            return images
        return (telescope.observe(x, seeds[batch * i : batch * i + len(x)]) for i, x in enumerate(images))


def shipped(name: str = "lens64") -> Path:
    """Folder of a checkpoint that comes with the repository, in data/checkpoints."""
    return Path(__file__).resolve().parents[1] / "data" / "checkpoints" / name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spec_sha256(spec: dict) -> str:
    """SHA-256 of a description, without the entry that holds it."""
    rest = {name: value for name, value in spec.items() if name != "spec_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_folder(folder: Path, tensors: dict[str, Tensor], file_name: str, spec_name: str, spec: dict) -> None:
    """Tensors and their description in a folder that appears whole or not at all; one that was there is replaced."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / file_name)
        (part / file_name).chmod(0o644)  # safetensors makes it private
        spec = {**spec, "sha256": _sha256(part / file_name)}
        (part / spec_name).write_text(json.dumps({**spec, "spec_sha256": _spec_sha256(spec)}, indent=1) + "\n")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
        raise
    for left in _set_aside(folder):
        shutil.rmtree(left, ignore_errors=True)


def _set_aside(folder: Path) -> list[Path]:
    """Earlier versions of `folder` that a save has renamed; one stays where it was killed before the new version took its place."""
    return sorted(folder.parent.glob(f"{glob.escape(folder.name)}.*.old"))


def read_folder(folder: Path, file_name: str, spec_name: str, cure: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and description of a folder that `write_folder` wrote. Raises CheckpointError, with the cure, for anything else."""
    if not folder.exists():
        folder = (_set_aside(folder) or [folder])[-1]
    try:
        spec = json.loads((folder / spec_name).read_text())
        found = _sha256(folder / file_name)
        if not isinstance(spec, dict) or spec.get("format") != FORMAT:
            raise CheckpointError(f"{folder}: {spec_name} is not of the format {FORMAT!r}. {cure}")
        if found != spec.get("sha256"):
            expected = str(spec.get("sha256"))[:12]
            raise CheckpointError(f"{folder}: {file_name} has SHA-256 {found[:12]}..., not the {expected}... of {spec_name}. {cure}")
        if _spec_sha256(spec) != spec.get("spec_sha256"):
            raise CheckpointError(f"{folder}: {spec_name} was changed since it was written: its SHA-256 differs. {cure}")
        return load_file(folder / file_name), spec
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: can't be read as a checkpoint ({error}). {cure}") from error


def save(folder: Path | str, denoiser: Denoiser, arguments: dict, stretch: Stretch, image_size: int, **spec) -> Path:
    """Write a checkpoint: the weights in fp16, and what is needed to use and to repeat them.

    `arguments` are those the network was made with; `spec` holds what else there is to say: recipe, data fingerprint, images_seen, scores.
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
    weights = {name: tensor.half() for name, tensor in denoiser.net.state_dict().items()}
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise CheckpointError(f"{folder}: not saved, since the weights hold NaN, infinity, or numbers too large for fp16.")
    write_folder(folder, weights, "weights.safetensors", "spec.json", about)
    return folder


def load(folder: Path | str, device: torch.device | str | None = None, precision: str | None = None) -> Checkpoint:
    """Read a checkpoint. `device` is the GPU where there is one; `precision` of the network is bf16 where the processor has it.

    Raises CheckpointError for a missing, damaged or foreign folder.
    """
    folder = Path(folder)
    weights, spec = read_folder(folder, "weights.safetensors", "spec.json", "Take another copy of the folder, or train the model again.")
    try:
        network = spec["network"]
        net = NETWORKS[network["name"]](**network["arguments"])
        net.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        stretch = Stretch(**spec["stretch"])
        denoiser = Denoiser(net, spec["prediction"], spec["data_std"], precision or best_precision(device))
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder}: its spec.json and its weights don't agree ({error}). Take another copy of the folder.") from error
    denoiser.to(device or best_device(), memory_format=torch.channels_last).eval().requires_grad_(False)
    return Checkpoint(denoiser, stretch, spec, folder)


def _relabelled(old: UNet, new: UNet) -> dict[str, Tensor]:
    """The weights of `old` for a network with other labels, which start as nothing: without a label, both do the same."""
    weights = {name: weight for name, weight in old.state_dict().items() if not name.startswith("label.")}
    bias = "noise.layers.2.bias"  # the null label's embedding is added to this layer's output
    if old.label is not None:
        weights[bias] = weights[bias] + old.label(old.null(1, weights[bias].device))[0]
    if new.classes:
        nn.init.zeros_(new.label.weight)
    more = new.stem.in_channels - old.stem.in_channels
    if more > 0:  # planes come behind the image, and say nothing at first
        weights["stem.weight"] = F.pad(weights["stem.weight"], (0, 0, 0, 0, 0, more))
    return weights | {name: weight for name, weight in new.state_dict().items() if name.startswith("label.")}


@torch.no_grad()
def copy_weights(start: Checkpoint, denoiser: Denoiser) -> None:
    """Give a denoiser the weights of a checkpoint. Raises CheckpointError where network or prediction differ.

    Only what they are conditioned on may differ: the denoiser then does at first, whatever its label, what the start does without one.
    """
    same = (start.denoiser.scaling.name, start.denoiser.data_std) == (denoiser.scaling.name, denoiser.data_std)
    old, new = start.denoiser.net, denoiser.net
    other = (old.classes, old.conditions, old.stem.in_channels) != (new.classes, new.conditions, new.stem.in_channels)
    try:
        if not same:
            raise RuntimeError(f"it predicts {start.denoiser.scaling.name}, not {denoiser.scaling.name}")
        new.load_state_dict(_relabelled(old, new) if other else old.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{start.folder}: training can't go on from here with this recipe ({error}). Take its own recipe.") from error


def best_device() -> str:
    """'cuda' where there is one, else 'cpu'."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: torch.device | str | None = None) -> str:
    """'bf16' where the device computes in it natively, else 'fp32'."""
    if torch.device(device or best_device()).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if has_bf16() else "fp32"


# ---- the state of a run -----------------------------------------------------------------------------------------------------


def save_state(folder: Path | str, identity: str, update: int, seconds: float, parts: dict[str, nn.Module], optimizer, extra: dict) -> None:
    """Write the whole state after `update` updates into `folder`/<update>, then drop the older ones."""
    folder = Path(folder)
    tensors = {f"{part}/{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        tensors |= {f"optimizer/{index}/{name}": value for name, value in optimizer.state[parameter].items()}
    spec = {"format": FORMAT, "identity": identity, "update": update, "seconds": seconds, **extra}
    write_folder(folder / f"{update:08d}", tensors, "state.safetensors", "state.json", spec)
    for left in (*_states(folder)[:-1], *folder.glob("[0-9]*.part")):  # a .part is what a killed save has left
        shutil.rmtree(left, ignore_errors=True)


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def load_state(folder: Path | str, identity: str, parts: dict[str, nn.Module], optimizer) -> dict:
    """Read the newest state under `folder` into modules and optimizer; returns its description, or {} where there is none.

    Raises CheckpointError for a damaged state, or one of another run (configuration, network or data differ).
    """
    folder = Path(folder)
    if not (found := _states(folder)):
        return {}
    newest = found[-1]
    tensors, spec = read_folder(newest, "state.safetensors", "state.json", f"Delete {newest} and start again.")
    if spec["identity"] != identity:
        message = f"{newest}: this state is of another run (configuration, network or data differ)."
        raise CheckpointError(f"{message} Give `state` another folder.")
    for part, module in parts.items():
        own = {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}
        module.load_state_dict(own)
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for name in ("exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][name] = torch.zeros_like(parameter).copy_(tensors[f"optimizer/{index}/{name}"])
        optimizer.state[parameter]["step"] = tensors[f"optimizer/{index}/step"].to(parameter.device)
    return spec

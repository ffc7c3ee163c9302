"""Training that starts from other weights: with other labels, or on other pixels of the same sky.

A U-Net that folds 5 x 5 pixels of 150 has, inside, the grid of one that folds 2 x 2 pixels of 64.
Between stem and exit both do the same task. So all weights there are taken over; stem and exit are
averaged or repeated, and the noise level is shifted, since averaging pixels averages noise. It goes
from coarse pixels to fine ones, and back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.process import Denoiser
from ..errors import CheckpointError
from ..model import Model
from ..networks.embeddings import Conditional

ALIKE = "A transplant needs the same channels and blocks."


def _taken_in(net: Conditional) -> int:
    """Numbers of a folded pixel or a patch that go into a network, planes of labels included."""
    return next(net.stem.parameters()).shape[1]


def _relabelled(old: Conditional, new: Conditional) -> dict[str, Tensor]:
    """The weights of `old` for a network with other labels: without one, both do the same."""
    own = old.state_dict()
    weights = {name: weight for name, weight in own.items() if not name.startswith("label.")}
    bias = "noise.layers.2.bias"  # the null label's embedding is added to this layer's output
    if old.label is not None:
        weights[bias] = weights[bias] + old.label(old.null(1, weights[bias].device))[0]
    if new.classes:
        nn.init.zeros_(new.label.weight)
    more = _taken_in(new) - _taken_in(old)
    # planes come behind the image; their weights are zero at first. A transformer has none
    if more > 0 and "stem.weight" in weights:
        weights["stem.weight"] = F.pad(weights["stem.weight"], (0, 0, 0, 0, 0, more))
    labels = {name: weight for name, weight in new.state_dict().items() if name[:6] == "label."}
    return weights | labels


@torch.no_grad()
def copy_weights(start: Model, denoiser: Denoiser) -> None:
    """Give a denoiser the weights of a model.

    Only what they are conditioned on may differ: the denoiser then does at first, whatever its
    label, what the start does without one. Raises CheckpointError where network or prediction
    differ.
    """
    before = start.denoiser
    old = before.net
    new = denoiser.net
    try:
        if before.scaling.name != denoiser.scaling.name or before.data_std != denoiser.data_std:
            raise RuntimeError(f"it predicts {before.scaling.name}, not {denoiser.scaling.name}")
        if type(old) is not type(new):
            raise RuntimeError(f"its network is a {type(old).__name__}")
        same_labels = old.classes == new.classes and old.conditions == new.conditions
        same_labels &= _taken_in(old) == _taken_in(new)
        spins = [tuple(getattr(getattr(net, "planes", None), "spins", ())) for net in (old, new)]
        if all(spins) and spins[0] != spins[1]:
            raise RuntimeError(f"its numbers turn by other spins: {spins[0]}, not {spins[1]}")
        new.load_state_dict(old.state_dict() if same_labels else _relabelled(old, new))
    except RuntimeError as error:
        reason = f"training can't go on from here with this recipe ({error})"
        raise CheckpointError(f"{start.folder}: {reason}. Take its own recipe.") from error


def overlap(before: int, after: int) -> Tensor:
    """Share of each of `before` parts of a line that each of `after` parts fills.

    Parts are equal; (before, after), rows sum to 1.
    """
    a = torch.arange(before) / before
    b = torch.arange(after) / after
    ends = torch.minimum(a[:, None] + 1 / before, b + 1 / after)
    return (ends - torch.maximum(a[:, None], b)).clamp(min=0) * before


def noise_ratio(before: int, after: int) -> float:
    """Std of white noise in `before` pixels a side, over that in `after`, of the same light.

    Fewer pixels are averages of more.
    """
    if before > after:
        return 1 / noise_ratio(after, before)
    # the root of the product of both directions
    return float(overlap(before, after).square().sum(1).mean())


def _fold(before: int, after: int, image_channels: int) -> Tensor:
    """Folded pixels as averages of others, (image_channels before^2, image_channels after^2).

    Rows and columns are in the order of `pixel_unshuffle`.
    """
    line = overlap(before, after)
    return torch.kron(torch.eye(image_channels), torch.kron(line, line))


def _shifted(weight: Tensor, frequencies: Tensor, shift: float) -> Tensor:
    """The embedding's first layer (width, 64) for an input that is smaller by `shift`.

    A shift of the input rotates each sine with its cosine.
    """
    sin, cos = weight.chunk(2, 1)
    s = (frequencies * shift).sin()
    c = (frequencies * shift).cos()
    return torch.cat([sin * c + cos * s, cos * c - sin * s], 1)


def _check_alike(old: Denoiser, new: Denoiser) -> None:
    """Raise what `transplant` does before the weights are looked at."""
    nets = (old.net, new.net)
    if len({(net.classes, net.conditions) for net in nets}) > 1:
        cure = "First take a recipe of these pixels with the labels that the start has"
        raise CheckpointError(f"Pixels and labels can't both change at once. {cure}.")
    folded = [old.net.image_channels * net.unshuffle**2 for net in nets]
    if [_taken_in(net) for net in nets] != folded:
        raise CheckpointError(f"These networks take in other channels or planes. {ALIKE}")
    predicted = {old.scaling.name, new.scaling.name}
    if len(predicted) > 1 and predicted & {"eps", "flow"}:
        differ = f"One of these networks predicts {old.scaling.name}, the other {new.scaling.name}"
        raise CheckpointError(f"{differ}: a transplant needs the same, or two of x0, v and edm.")


@torch.no_grad()
def transplant(old: Denoiser, new: Denoiser) -> None:
    """Give `new` the weights of `old`, a UNet of the same channels and blocks.

    `old` folds fewer or more pixels (`unshuffle`) of the same field. The new network answers what
    the old one did at the noise level of its pixels, for the averages of the pixels that go in; or,
    where these are coarser, for these repeated, and averages its answer. Noise then goes in
    `noise_ratio` times as large as the old one learnt it, smaller for finer pixels and larger for
    coarser ones, since either is scaled to a std of 1 before, and not after: that, and detail, is
    left to training. Raises CheckpointError where more than `unshuffle` differs, but for a
    prediction among x0, v and edm.
    """
    _check_alike(old, new)
    before = old.net.unshuffle
    after = new.net.unshuffle
    channels = old.net.image_channels
    mine = new.net.state_dict()
    theirs = {name: weight.cpu() for name, weight in old.net.state_dict().items()}
    fold = _fold(before, after, channels)
    far = torch.tensor(1e4)
    # at high noise D is `out` times the network, or else both predict the same
    scale = old.scaling.out(far) / new.scaling.out(far)
    made = {}
    for name, weight in theirs.items():
        if name == "stem.weight":
            weight = torch.einsum("oqhw,qp->ophw", weight, fold)
        elif name.startswith("exit.2."):
            weight = torch.tensordot((fold / fold.sum(0)).T, weight, 1) * scale
        elif name == "noise.layers.0.weight":
            shift = -torch.tensor(noise_ratio(before, after)).log().item() / 4
            weight = _shifted(weight, new.net.noise.frequencies.cpu(), shift)
        made[name] = weight
    shapes = {name: weight.shape for name, weight in made.items()}
    if shapes != {name: weight.shape for name, weight in mine.items()}:
        raise CheckpointError(f"These networks differ in more than the pixels they fold. {ALIKE}")
    new.net.load_state_dict(made)

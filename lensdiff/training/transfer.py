"""Start a network on finer pixels from one that learnt coarser ones of the same field: the same
sky, the same grid of features.

A U-Net that folds 5 x 5 pixels of 150 has, inside, the grid of one that folds 2 x 2 pixels of 64.
Between stem and exit both do the same task. So all weights there are taken over; stem and exit are
refined, and the noise level is shifted, since averaging pixels averages noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.process import Denoiser
from ..errors import CheckpointError


def overlap(coarse: int, fine: int) -> Tensor:
    """Share of each of `coarse` equal parts of a line that each of `fine` equal parts fills:

    (coarse, fine), rows sum to 1.
    """
    a = torch.arange(coarse) / coarse
    b = torch.arange(fine) / fine
    ends = torch.minimum(a[:, None] + 1 / coarse, b + 1 / fine)
    return (ends - torch.maximum(a[:, None], b)).clamp(min=0) * coarse


def noise_ratio(coarse: int, fine: int) -> float:
    """Standard deviation of white noise after averaging from `fine` to `coarse` pixels a side of
    a fold, over that before.
    """
    # the root of the product of both directions
    return float(overlap(coarse, fine).square().sum(1).mean())


def _fold(coarse: int, fine: int, image_channels: int) -> Tensor:
    """Averages of folded pixels, (image_channels * coarse^2, image_channels * fine^2), in the
    order of `pixel_unshuffle`.
    """
    line = overlap(coarse, fine)
    return torch.kron(torch.eye(image_channels), torch.kron(line, line))


def _shifted(weight: Tensor, frequencies: Tensor, shift: float) -> Tensor:
    """The embedding's first layer (width, 64) for an input that is smaller by `shift`: a
    rotation of each sine with its cosine.
    """
    sin, cos = weight.chunk(2, 1)
    s = (frequencies * shift).sin()
    c = (frequencies * shift).cos()
    return torch.cat([sin * c + cos * s, cos * c - sin * s], 1)


@torch.no_grad()
def transplant(old: Denoiser, new: Denoiser) -> None:
    """Give `new` the weights of `old`, a UNet of the same channels and blocks that folds fewer
    pixels (`unshuffle`) of the same field.

    What the old network answered for the averaged image, at the averaged noise, the new one answers
    at high noise from the start; detail is left to training. Raises CheckpointError where more than
    `unshuffle` differs.
    """
    coarse = old.net.unshuffle
    fine = new.net.unshuffle
    channels = old.net.image_channels
    mine = new.net.state_dict()
    theirs = {name: weight.cpu() for name, weight in old.net.state_dict().items()}
    fold = _fold(coarse, fine, channels)
    far = torch.tensor(1e4)
    # at high noise D is `out` times the network, whatever it predicts
    scale = (old.scaling.out(far) / new.scaling.out(far)).abs()
    made = {}
    for name, weight in theirs.items():
        if name == "stem.weight":
            weight = torch.einsum("oqhw,qp->ophw", weight, fold)
        elif name.startswith("exit.2."):
            weight = torch.tensordot((fold / fold.sum(0)).T, weight, 1) * scale
        elif name == "noise.layers.0.weight":
            weight = _shifted(
                weight,
                new.net.noise.frequencies.cpu(),
                -torch.tensor(noise_ratio(coarse, fine)).log().item() / 4,
            )
        made[name] = weight
    if (
        made.keys() != mine.keys()
        or any(made[name].shape != mine[name].shape for name in mine)
        or coarse > fine
    ):
        raise CheckpointError(
            "These networks differ in more than the pixels they fold: a transplant needs the "
            "same channels and blocks."
        )
    new.net.load_state_dict(made)

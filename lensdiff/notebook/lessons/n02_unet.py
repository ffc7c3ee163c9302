"""Notebook 02, the U-Net: its parameters and exercises."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..exercises import Exercise
from ..rules import SEED, Choice, Number

PARAMETERS = {
    "train_seconds": Number(0, 36_000),
    "learning_rate": Number(1e-6, 0.1),
    "sigma": Number(0.01, 40),
    "seed": SEED,
    "image_size": Number(16, 512, whole=True),
    "width": Number(16, 512, whole=True, multiple=16),
    "blocks": Number(1, 8, whole=True),
    "unshuffle": Choice(1, 2, 4),
    "embedding": Choice("scale_shift", "add"),
    "skip_updates": Number(0, 100_000, whole=True),
}


def fold(x: torch.Tensor) -> torch.Tensor:
    """Images (n, 1, H, W) to (n, 4, H/2, W/2), each 2 x 2 block as four channels."""
    corners = [x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]]
    return torch.cat(corners, 1)


def fold_columns_first(x: torch.Tensor) -> torch.Tensor:
    """The corner below before the one to the right."""
    corners = [x[..., 0::2, 0::2], x[..., 1::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 1::2]]
    return torch.cat(corners, 1)


def fold_quarters(x: torch.Tensor) -> torch.Tensor:
    """The quarters of the image, each whole."""
    upper, lower = x.chunk(2, 2)
    return torch.cat([*upper.chunk(2, 3), *lower.chunk(2, 3)], 1)


def fold_mean(x: torch.Tensor) -> torch.Tensor:
    """The mean of each block, one channel."""
    return F.avg_pool2d(x, 2)


def fold_one_corner(x: torch.Tensor) -> torch.Tensor:
    """The upper left pixel of each block, four times."""
    return x[..., 0::2, 0::2].repeat(1, 4, 1, 1)


def fold_backwards(x: torch.Tensor) -> torch.Tensor:
    """The channels from the last to the first."""
    return fold(x).flip(1)


def group_norm(x: torch.Tensor) -> torch.Tensor:
    """Features (n, c, H, W), each image with mean 0 and variance 1 over all else."""
    centred = x - x.mean((1, 2, 3), keepdim=True)
    return centred / centred.std((1, 2, 3), correction=0, keepdim=True)


def norm_over_batch(x: torch.Tensor) -> torch.Tensor:
    """One mean and variance for all images together."""
    return (x - x.mean()) / x.std(correction=0)


def norm_by_channel(x: torch.Tensor) -> torch.Tensor:
    """Mean and variance of each channel."""
    deviation = x.std((2, 3), correction=0, keepdim=True)
    return (x - x.mean((2, 3), keepdim=True)) / deviation


def norm_batch_norm(x: torch.Tensor) -> torch.Tensor:
    """Mean and variance of a channel over all images."""
    deviation = x.std((0, 2, 3), correction=0, keepdim=True)
    return (x - x.mean((0, 2, 3), keepdim=True)) / deviation


def norm_by_variance(x: torch.Tensor) -> torch.Tensor:
    """Divided by the variance."""
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.var((1, 2, 3), correction=0, keepdim=True)


def norm_unbiased(x: torch.Tensor) -> torch.Tensor:
    """Divided by torch's own standard deviation, of the number less one."""
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


def norm_centred(x: torch.Tensor) -> torch.Tensor:
    """The mean taken away, nothing else."""
    return x - x.mean((1, 2, 3), keepdim=True)


def folded(answer: object) -> list[torch.Tensor]:
    """What a fold makes of two images of 8 x 6 pixels, and of three of 4 x 10."""
    shapes = ((2, 1, 8, 6), (3, 1, 4, 10))
    return [answer(torch.arange(float(n * h * w)).reshape(n, c, h, w)) for n, c, h, w in shapes]


def normed(answer: object) -> list[torch.Tensor]:
    """What a norm makes of four images, and of three, whose means and variances differ."""
    drawn = torch.Generator().manual_seed(0)
    made = []
    for shape in ((4, 6, 5, 5), (3, 2, 4, 7)):
        x = torch.randn(shape, generator=drawn)
        scale = torch.arange(1.0, shape[0] + 1)[:, None, None, None]
        made.append(answer(scale * x + torch.arange(float(shape[1]))[:, None, None]))
    return made


EXERCISES = {
    1: Exercise(
        answer=41_568,
        explanation="9 · 48 · 96 weights and one bias for each of the 96 output channels.",
        mistakes=(
            (41_472, "those are the weights; `bias=True` adds one number an output channel."),
            (41_520, "there is one bias for each channel of the output, not of the input."),
            (4_704, "a kernel has 3 × 3 places, each with its own matrix from input to output."),
            (4_608, "a kernel has 3 × 3 places, and each output channel has a bias."),
            (13_920, "a kernel of 3 × 3 has nine places, not three."),
            (528, "each output channel sees all input channels, with a kernel for each of them."),
            (960, "each output channel sees all input channels, with a kernel for each of them."),
        ),
        hint="k² c_in c_out weights, and one bias an output channel.",
        tolerance=1e-6,
    ),
    2: Exercise(
        answer=16,
        explanation="Four times the places ask, and each looks at four times as many.",
        mistakes=(
            (2, "the side doubles; count the places."),
            (4, "that is how the number of places grows; the products go over pairs of places."),
            (8, "both sides of the table of weights grow by the same factor, four."),
            (64, "the number of channels is unchanged; only the places grow."),
            (
                256,
                "that is the number of places of the smaller map; compare pairs of places of both.",
            ),
            (1 / 16, "that is the other way round: the larger map costs more."),
        ),
        hint="count the places of both maps; the products of matrices go over pairs of places.",
    ),
    3: Exercise(
        answer=144,
        explanation="The next multiple of 2 · 2³ = 16: the fold, then three halvings.",
        mistakes=(
            (132, "66 is what the fold leaves of it, and 33 can't be halved."),
            (
                136,
                "that is a multiple of 8: enough for a fold and two halvings, but there are three.",
            ),
            (128, "that is divisible by 16, but cuts the image; the network pads."),
            (256, "a power of two is more than needed: a multiple of one suffices."),
            (160, "four levels have three halvings between them; count the fold once."),
            (140, "that is a multiple of 20, as for the fold of 5 and two halvings of lens150."),
            (133, "an odd side can't even be folded."),
        ),
        hint="the side must be divisible by 2 for the fold, and by 2 for each halving.",
        tolerance=1e-6,
    ),
    4: Exercise(
        answer=fold,
        explanation="A strided slice takes one corner of all blocks; the corners come row by row.",
        mistakes=(
            (fold_columns_first, "after the upper left corner comes its neighbour to the right."),
            (fold_quarters, "those are the quarters of the image; step through it by two instead."),
            (fold_mean, "a mean forgets; each of the four pixels must stay, as a channel."),
            (
                fold_one_corner,
                "the four channels are the four corners, not one of them four times.",
            ),
            (
                fold_backwards,
                "the upper left corner is the first channel, the lower right the last.",
            ),
        ),
        hint="`x[..., 0::2, 0::2]` is the first of four channels, joined along dimension 1.",
        probe=folded,
    ),
    5: Exercise(
        answer=group_norm,
        explanation="Mean and variance go over channels and places, and each image has its own.",
        mistakes=(
            (
                norm_unbiased,
                "nearly: GroupNorm divides by the number, `std` by one less: `correction=0`.",
            ),
            (norm_over_batch, "each image must be normalised alone; leave dimension 0 out."),
            (norm_by_channel, "that is one group a channel; here all channels are one group."),
            (norm_batch_norm, "that is BatchNorm, which mixes the images of a batch."),
            (norm_by_variance, "divide by the square root of the variance."),
            (norm_centred, "the mean is right; now divide by the standard deviation."),
        ),
        hint="mean and variance over dimensions 1, 2, 3 with `keepdim=True`.",
        probe=normed,
    ),
}

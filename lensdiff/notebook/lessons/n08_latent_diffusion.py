"""Notebook 08, latent diffusion: its parameters and exercises."""

from __future__ import annotations

import math

import torch

from ..exercises import Exercise
from ..rules import SEED, Number, Place

PARAMETERS = {
    "digits_model": Place(),
    "lens_model": Place(),
    "digits": Place(),
    "guidance": Number(0, 10),
    "drawn": Number(0, 100_000, whole=True),
    "own_updates": Number(0, 1_000_000, whole=True),
    "seed": SEED,
    "own_codes": Number(2, 65_536, whole=True),
    "own_channels": Number(1, 64, whole=True),
    "decay": Number(0, 0.98),
    "latent_updates": Number(0, 1_000_000, whole=True),
}


def share(losses: torch.Tensor, total: int, processes: int) -> torch.Tensor:
    """What a process minimises, so that the mean of gradients is that of the mean over all."""
    return losses.sum() * processes / total


def share_own_mean(losses: torch.Tensor, total: int, processes: int) -> torch.Tensor:
    """The mean over its own images."""
    return losses.mean()


def share_own_sum(losses: torch.Tensor, total: int, processes: int) -> torch.Tensor:
    """The sum over its own images."""
    return losses.sum()


def share_of_total(losses: torch.Tensor, total: int, processes: int) -> torch.Tensor:
    """The sum over the number of all images."""
    return losses.sum() / total


def share_of_sum(losses: torch.Tensor, total: int, processes: int) -> torch.Tensor:
    """The sum over the processes."""
    return losses.sum() / processes


def share_mean_of_total(losses: torch.Tensor, total: int, processes: int) -> torch.Tensor:
    """The mean times the processes, over the number of all images."""
    return losses.mean() * processes / total


def minimised(answer: object) -> list[float]:
    """What processes minimise: two with five and three images, and the first of three with ten."""
    parts = (torch.tensor([0.1, 0.3, 0.2, 0.5, 0.4]), torch.tensor([0.9, 0.6, 0.3]))
    found = [float(answer(losses, 8, 2)) for losses in parts]
    return [*found, float(answer(parts[0], 10, 3))]


EXERCISES = {
    1: Exercise(
        answer=12.5,
        explanation="22,500 pixels; 15 · 15 places of 8 numbers are 1,800.",
        mistakes=(
            (100.0, "that is how many pixels a place of the latents holds; each has 8 numbers."),
            (1800.0, "that is how many numbers the latents have; the question is for a ratio."),
            (0.08, "that is the inverse."),
            (10.0, "that is the fold along one side."),
            (800.0, "the 8 numbers of a place make the latents larger, not smaller."),
            (225.0, "that is how many places there are."),
        ),
        hint="pixels of the image, over places of the latents times numbers a place.",
    ),
    2: Exercise(
        answer=392.0,
        explanation="49 places, and log2(256) = 8 bits for each.",
        mistakes=(
            (49.0, "that is how many places there are; each says one of 256."),
            (8.0, "that is one place; there are 49."),
            (12544.0, "one of 256 takes log2(256) bits, not 256."),
            (196.0, "how many numbers a code has does not matter: its number in the book is sent."),
            (1568.0, "each place has one code, not four."),
            (271.68, "that is in nats; bits have the logarithm to the base 2."),
        ),
        hint="places times the logarithm to the base 2 of the number of codes.",
    ),
    3: Exercise(
        answer=1.1803,
        explanation="½ (1 + ¼ - 1 - ln ¼) = 0.818 nats, over ln 2.",
        mistakes=(
            (0.8181, "that is in nats; over ln 2 it is in bits."),
            (2.3607, "the divergence has a factor of one half."),
            (0.6803, "the logarithm is that of s², which is twice that of s."),
            (1.3607, "the square of s is wanted in the second term."),
            (1.0, "that is the term of the logarithm alone; μ² + s² − 1 counts as well."),
            (0.459, "that is what it costs with a mean of 0, in bits."),
        ),
        hint="the formula with μ = 1 and s = 0.5, divided by ln 2.",
    ),
    4: Exercise(
        answer=2 * math.sqrt(2),
        explanation="The entropy is 1.5 ln 2, and its exponential 2 to the power 1.5 = 2.83.",
        mistakes=(
            (1.5 * math.log(2), "that is the entropy; the perplexity is its exponential."),
            (1.5, "that is the entropy in bits; 2 to its power is wanted."),
            (3.0, "three codes used equally would give that; here one is taken more often."),
            (4.0, "the fourth code is never taken and adds nothing."),
            (2.0, "that is one over the largest share."),
            (8 / 3, "that is one over the sum of squares; the entropy has a logarithm."),
            (math.exp(1.5), "the entropy in bits goes with powers of 2, not of e."),
        ),
        hint="exp of minus the sum of p ln p.",
    ),
    5: Exercise(
        answer=0.01747,
        explanation="ᾱ = ∏(1 - β) with 400 values from 0.0001 to 0.02: 0.0175, about exp(-4.02).",
        mistakes=(
            (0.1322, "T = 200 leaves that; so does a root, the factor of x₀ in place of ᾱ."),
            (0.0481, "that is what T = 300 leaves."),
            (0.00004, "that is what T = 1000 leaves."),
            (0.9825, "that is what is noise."),
            (0.02, "that is the last β."),
            (1.747, "that is in per cent; a number from 0 to 1 is asked for."),
            (4.02, "that is the sum of β; what is left is about exp of minus that."),
        ),
        hint="the product of (1 - β) over 400 values, evenly spaced from 0.0001 to 0.02.",
        tolerance=0.03,
    ),
    6: Exercise(
        answer=share,
        explanation="The mean over processes divides by their number: sum · processes / total.",
        mistakes=(
            (share_own_mean, "right only if all have equally many images."),
            (share_own_sum, "its size grows with the batch."),
            (share_of_total, "the mean over processes divides once more."),
            (
                share_of_sum,
                "after DDP's mean that is a sum over images: divide by their number.",
            ),
            (share_mean_of_total, "the sum over its own images, not their mean."),
        ),
        hint="DDP takes the mean of the gradients; which loss makes it sum(all) / total?",
        probe=minimised,
    ),
}

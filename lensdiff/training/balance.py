"""A loss that is even over noise levels: each level's is divided by its own running mean."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..diffusion.process import LogNormal, Uniform

PARTS = 16  # of the noise levels, equally likely
MOVES = 0.05  # of the way to an update's mean, at each update


class Balance(nn.Module):
    """Divides each loss by the running mean of the losses at its noise level.

    The levels are cut into parts that are drawn equally often (of a table's levels nearly so). No
    part then drowns another, whatever the weight; Karras et al. 2024 (arXiv:2312.02696) learn such
    a divisor as a function of sigma. The mean over all parts stays what it was, so that learning
    rate and clipping mean the same. `means` is saved with a run, of which it is part. The training
    loss that a run shows is the balanced one; what is held out is not.
    """

    def __init__(self, sigmas: LogNormal | Uniform, parts: int = PARTS):
        super().__init__()
        edges = sigmas.at(torch.arange(1, parts) / parts)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("means", torch.zeros(parts))  # 0: no loss was seen there
        self.register_buffer("sums", torch.zeros(2, parts), persistent=False)  # losses, number

    @torch.no_grad()
    def part_of(self, sigma: Tensor) -> Tensor:
        """The part, from 0, in which each sigma (n,) lies."""
        return torch.bucketize(sigma, self.edges)

    def forward(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """Losses (n,) at sigma (n,), balanced by the updates before; they count at the next."""
        where = self.part_of(sigma)
        self.sums[0].index_add_(0, where, losses.detach().float())
        self.sums[1].index_add_(0, where, torch.ones_like(sigma, dtype=torch.float32))
        seen = self.means > 0
        if not seen.any():
            return losses
        even = torch.where(seen, self.means[seen].mean() / self.means, 1.0)
        return losses * even[where]

    @torch.no_grad()
    def update(self, accelerator: Accelerator) -> None:
        """Take in what the losses of an update were, those of other processes too."""
        total, number = accelerator.reduce(self.sums, "sum")
        now = total / number.clamp(min=1)
        moved = torch.where(self.means > 0, self.means.lerp(now, MOVES), now)
        # a loss that is not finite ends the run elsewhere; here it only must not stay
        self.means.copy_(torch.where((number > 0) & now.isfinite(), moved, self.means))
        self.sums.zero_()

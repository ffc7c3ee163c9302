"""Muon (Jordan et al. 2024) for a network with convolutions: PyTorch's, which takes matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ParameterError

HAS = hasattr(torch.optim, "Muon")


def matrix(weight: Tensor) -> Tensor:
    """A weight (out, ...) as a matrix (out, all others), of the same memory, not a copy.

    A convolution's columns come in the order in which they lie, which Muon doesn't mind.
    """
    if weight.ndim == 4:
        weight = weight.permute(0, 2, 3, 1)  # as `channels_last` lies
    return weight.reshape(len(weight), -1)


class Muon:
    """Muon for matrices and convolutions; AdamW for all else, and for what `others` names.

    Its updates have the size of AdamW's ("match_rms_adamw"), so that one rate serves both. It has
    what the training loop asks of an optimiser, but can't be saved. Raises ParameterError where
    PyTorch has no Muon (before 2.9), or a convolution does not lie in memory as `channels_last`.
    """

    def __init__(self, net: nn.Module, others: tuple[str, ...], lr: float):
        if not HAS:
            raise ParameterError(f"PyTorch {torch.__version__} has no Muon: take 2.9 or later.")
        named = list(net.named_parameters())
        theirs = [w for name, w in named if w.ndim < 2 or name.startswith(others)]
        mine = [w for name, w in named if not any(w is one for one in theirs)]
        self.pairs = [(weight, nn.Parameter(matrix(weight.data))) for weight in mine]
        if any(weight.data_ptr() != flat.data_ptr() for weight, flat in self.pairs):
            raise ParameterError("Put the network into channels_last before its optimiser.")
        self.adam = torch.optim.AdamW(theirs, lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        flat = [one for _, one in self.pairs]
        own = {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
        self.muon = torch.optim.Muon(flat, lr, **own)

    @property
    def param_groups(self) -> list[dict]:
        """Of both."""
        return self.adam.param_groups + self.muon.param_groups

    def zero_grad(self) -> None:
        """Of all weights."""
        self.adam.zero_grad()
        for weight, flat in self.pairs:
            weight.grad = flat.grad = None

    def step(self) -> None:
        """One update of all weights."""
        for weight, flat in self.pairs:
            flat.grad = None if weight.grad is None else matrix(weight.grad)
        self.adam.step()
        self.muon.step()

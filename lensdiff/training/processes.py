"""What several processes do together: means, and batch norms over the batch of all.

The latter on CPUs too: torch's SyncBatchNorm needs GPUs.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..runtime import best_device, processes


def accelerator_for(precision: str) -> Accelerator:
    """An Accelerator with a gradient scaler for fp16 on a GPU; other precisions are the network's.

    The device is that of `best_device` now, whatever an earlier one had.
    """
    mixed = "fp16" if precision == "fp16" else "no"
    cpu = best_device() == "cpu"
    if processes() == 1 and PartialState._shared_state:
        if (PartialState().device.type == "cpu") != cpu:
            AcceleratorState._reset_state(reset_partial_state=True)
    if AcceleratorState._shared_state.get("_mixed_precision", mixed) != mixed:
        AcceleratorState._reset_state()  # else accelerate refuses a second precision in one process
    return Accelerator(cpu=cpu, mixed_precision=mixed)


def leave_out_unused(model: nn.Module, x: Tensor) -> None:
    """Freeze the weights that the output for `x` does not depend on.

    Several processes wait for the gradient of every other one.
    """
    training = model.training
    weights = [weight for weight in model.eval().parameters() if weight.requires_grad]
    found = torch.autograd.grad(model(x).sum(), weights, allow_unused=True)
    for weight, gradient in zip(weights, found, strict=True):
        weight.requires_grad_(gradient is not None)
    model.train(training)


def mean_over(accelerator: Accelerator, value: float) -> float:
    """The mean of a number over all processes."""
    own = torch.tensor(value, device=accelerator.device)
    return float(accelerator.reduce(own, "mean"))


# ---- batch norms ---------------------------------------------------------------------------------


class Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is that of all their losses."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        """The sum of what each process gives."""
        found = x.clone()
        distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        """The sum of the gradients of each process's loss."""
        found = gradient.clone()
        distributed.all_reduce(found)
        return found


def normalised(norm: _BatchNorm, x: Tensor) -> Tensor:
    """x (n, C, ...) by mean and variance over the equal shares of all processes.

    The running statistics move as torch's do (Ioffe & Szegedy 2015, algorithm 1).
    """
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    values = x if x.dtype == torch.float64 else x.float()
    count = processes() * x.numel() // x.shape[1]
    mean = Sum.apply(values.sum(axes)) / count
    # of what is left: a mean of squares would lose it in rounding where the mean is large
    variance = Sum.apply((values - mean.view(shape)).square().sum(axes)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    found = (values - mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)
    return found.to(x.dtype)


class Shared:
    """Put before a batch norm's class: in training it normalises with the other processes."""

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, as the class behind this one has it where it is not training."""
        if not self.training:
            return super().forward(x)
        found = normalised(self, x)
        # timm's norms have the activation in them
        return self.act(self.drop(found)) if hasattr(self, "act") else found


def share_norms(model: nn.Module) -> None:
    """Let the batch norms of a model, in place, see the batch of all processes."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, Shared):
            kind = type(module)
            module.__class__ = type(f"Shared{kind.__name__}", (Shared, kind), {})

"""Muon for convolutions: PyTorch's own, on matrices of the same memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lensdiff.errors import ParameterError
from lensdiff.studies import muon

pytestmark = pytest.mark.skipif(not muon.HAS, reason="this PyTorch has no Muon")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(64, 4))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def step(model: nn.Sequential, optimizer: object) -> None:
    x = torch.randn((5, 3, 6, 6), generator=torch.Generator().manual_seed(1))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_a_convolution_is_updated_as_its_matrix_is() -> None:
    """Whatever the order of the columns: an orthogonal factor has none."""
    model = net()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = muon.Muon(model, ("0",), 1e-2)
    step(model, optimizer)
    for name in ("1.weight", "3.weight"):
        weight = dict(model.named_parameters())[name]
        flat = nn.Parameter(before[name].flatten(1).clone())
        flat.grad = weight.grad.flatten(1).clone()
        own = torch.optim.Muon([flat], 1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        own.step()
        # bfloat16 inside of Muon
        moved = (weight.detach() - before[name]).flatten(1)
        expected = flat.detach() - before[name].flatten(1)
        assert (moved - expected).norm() < 0.02 * expected.norm(), name


def test_vectors_and_what_is_named_are_adams() -> None:
    model = net()
    twin = net()
    optimizer = muon.Muon(model, ("0",), 1e-2)
    adam = torch.optim.AdamW(twin.parameters(), 1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    step(model, optimizer)
    step(twin, adam)
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        same = torch.allclose(one, other, atol=1e-6)
        assert same == (one.ndim == 1 or name.startswith("0.")), name


def test_a_rate_reaches_both_and_gradients_do_not_stay() -> None:
    model = net()
    optimizer = muon.Muon(model, (), 1e-2)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [weight.detach().clone() for weight in model.parameters()]
    step(model, optimizer)
    for one, other in zip(before, model.parameters(), strict=True):
        assert torch.equal(one, other)
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in model.parameters())


def test_another_layout_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(ParameterError, match="channels_last"):
        muon.Muon(plain, (), 1e-2)


def test_an_older_torch_is_named(monkeypatch) -> None:
    monkeypatch.setattr(muon, "HAS", False)
    with pytest.raises(ParameterError, match=r"has no Muon: take 2\.9"):
        muon.Muon(net(), (), 1e-2)

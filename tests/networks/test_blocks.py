"""The blocks of the U-Net, each computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from gaussian import normal
from torch import Tensor, nn
from toys import perturb

from lensdiff.networks.unet import Attention, ResidualBlock, norm


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
@pytest.mark.parametrize(("channels_in", "channels"), [(16, 16), (16, 24)])
def test_residual_block_by_hand(embedding: str, channels_in: int, channels: int) -> None:
    block = perturb(ResidualBlock(channels_in, channels, 32, embedding), scale=0.3)
    x = normal(2, channels_in, 5, 5)
    e = normal(2, 32, seed=1)
    groups_in = math.gcd(channels_in, 16)
    h = F.silu(F.group_norm(x, groups_in, block.norm1.weight, block.norm1.bias))
    h = block.conv1(h)
    given = F.linear(F.silu(e), block.noise.weight, block.noise.bias)[:, :, None, None]
    groups = math.gcd(channels, 16)
    if embedding == "add":
        h = F.group_norm(h + given, groups, block.norm2.weight, block.norm2.bias)
    else:
        h = F.group_norm(h, groups, block.norm2.weight, block.norm2.bias)
        h = h * (1 + given[:, :channels]) + given[:, channels:]
    expected = block.conv2(F.silu(h)) + (x if channels_in == channels else block.shortcut(x))
    torch.testing.assert_close(block(x, e), expected)


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
def test_a_new_residual_block_is_the_identity(embedding: str) -> None:
    x = normal(2, 16, 5, 5)
    assert (ResidualBlock(16, 16, 32, embedding)(x, normal(2, 32)) == x).all()
    wider = ResidualBlock(16, 32, 32, embedding)
    torch.testing.assert_close(wider(x, normal(2, 32)), wider.shortcut(x))


def pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 x 1 convolution of x (n, C, places), by hand."""
    return torch.einsum("oc,ncp->nop", layer.weight[:, :, 0, 0], x) + layer.bias[:, None]


@pytest.mark.parametrize(("channels", "heads"), [(96, 2), (48, 1), (40, 5), (64, 1), (128, 2)])
def test_attention_by_hand(channels: int, heads: int) -> None:
    attention = Attention(channels)
    x = normal(2, channels, 3, 5)
    assert (attention(x) == x).all()  # a new one is the identity
    perturb(attention, scale=0.2)
    width = channels // heads
    groups = math.gcd(channels, 16)
    h = F.group_norm(x, groups, attention.norm.weight, attention.norm.bias).flatten(2)
    q, k, v = pointwise(attention.qkv, h).chunk(3, 1)
    seen = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        products = torch.einsum("ncp,ncq->npq", q[:, part], k[:, part])
        share = (products / math.sqrt(width)).softmax(-1)
        seen.append(torch.einsum("npq,ncq->ncp", share, v[:, part]))
    out = pointwise(attention.out, torch.cat(seen, 1))
    torch.testing.assert_close(attention(x), x + out.view_as(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "groups"), [(48, 16), (144, 16), (24, 8), (7, 1)])
def test_norm_has_at_most_16_groups(channels: int, groups: int) -> None:
    assert norm(channels).num_groups == groups

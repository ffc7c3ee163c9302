"""The transformer: shapes, gradients, positions, and what begins as nothing."""

from __future__ import annotations

import pytest
import torch
from gaussian import normal
from torch import nn
from toys import perturb

from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import ParameterError
from lensdiff.networks.transformer import Block, DiT, SelfAttention, rope_angles, rotated

SMALL = {"patch": 4, "width": 32, "depth": 2, "heads": 2}


def small_dit(**arguments: object) -> DiT:
    torch.manual_seed(0)
    return perturb(DiT(**{**SMALL, **arguments}), scale=0.05).eval()


@pytest.mark.parametrize(
    ("height", "width", "arguments"),
    [
        (16, 16, {}),
        (18, 30, {"positions": "learnt", "grid": 3}),
        (15, 15, {"patch": 1, "image_channels": 8}),
        (33, 32, {"patch": 16, "bottleneck": 6, "image_channels": 3}),
        (12, 12, {"classes": 3}),
        (12, 12, {"conditions": 2}),
    ],
)
def test_output_has_the_inputs_shape_and_gradients_are_finite(height, width, arguments):
    net = small_dit(**arguments).train()
    x = normal(2, net.image_channels, height, width).requires_grad_()
    out = net(x, torch.tensor([-1.0, 0.5]), None if not net.label else net.null(2))
    assert out.shape == x.shape
    (out**2).mean().backward()
    for name, parameter in net.named_parameters():
        unused = name.startswith("label.layers")  # NaN stands for no condition
        assert unused or parameter.grad.isfinite().all(), name
    assert (x.grad.flatten(1).abs() > 0).float().mean() > 0.99  # every pixel is seen


def test_it_begins_as_zero_and_each_block_as_the_identity():
    net = DiT(**SMALL)
    assert not net(normal(2, 1, 16, 16), torch.zeros(2)).any()
    block = Block(32, 2)
    x = normal(2, 5, 32)
    assert torch.equal(block(x, normal(2, 32), None), x)


def test_attention_sees_displacements_alone():
    attention = perturb(SelfAttention(32, 2), scale=0.3)
    same = normal(1, 1, 32).expand(1, 36, 32)  # the same content at every place
    q, k, _ = attention.split(same, rope_angles(6, 6, 16))
    table = (q @ k.mT).view(2, 6, 6, 6, 6)
    torch.testing.assert_close(table[:, 0, 1, 2, 4], table[:, 3, 2, 5, 5])
    assert (table[:, 0, 1, 2, 4] - table[:, 0, 1, 4, 2]).abs().max() > 1e-3


@pytest.mark.parametrize("positions", ["rope", "learnt"])
def test_edges_are_repeated_around_and_cropped_again(positions: str):
    net = small_dit(positions=positions, grid=5)
    x = normal(1, 1, 18, 18)
    wide = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    noise = torch.tensor([0.1])
    torch.testing.assert_close(net(x, noise), net(wide, noise)[..., 1:19, 1:19])


def test_attention_is_that_of_pytorch():
    attention = SelfAttention(32, 4).eval()
    attention.norm_q = nn.Identity()
    attention.norm_k = nn.Identity()
    library = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    library.in_proj_weight.data = attention.qkv.weight
    library.in_proj_bias.data = attention.qkv.bias
    library.out_proj.weight.data = attention.out.weight
    library.out_proj.bias.data = attention.out.bias
    x = normal(2, 7, 32)
    torch.testing.assert_close(attention(x), library(x, x, x, need_weights=False)[0])


def test_queries_and_keys_are_turned_so_that_only_their_distance_counts():
    angles = rope_angles(6, 6, 16).view(6, 6, 8)
    q = normal(16)
    k = normal(16)

    def product(a: tuple[int, int], b: tuple[int, int]) -> torch.Tensor:
        return rotated(q, angles[a]) @ rotated(k, angles[b])

    torch.testing.assert_close(product((0, 1), (2, 4)), product((3, 2), (5, 5)))
    assert (product((0, 1), (2, 4)) - product((0, 1), (4, 2))).abs() > 1e-3
    torch.testing.assert_close(rotated(q, angles[5, 3]).norm(), q.norm())
    # one pair of numbers is a complex number that is multiplied by exp(i angle)
    turned = torch.complex(q[:8], q[8:]) * torch.polar(torch.ones(8), angles[2, 3])
    torch.testing.assert_close(rotated(q, angles[2, 3]), torch.cat([turned.real, turned.imag]))


@pytest.mark.parametrize("positions", ["rope", "learnt"])
def test_it_knows_where_a_patch_lies(positions):
    net = small_dit(positions=positions, grid=4)
    x = normal(1, 1, 16, 16)
    swapped = torch.cat([x[..., 8:], x[..., :8]], 3)
    with torch.no_grad():
        out = net(x, torch.zeros(1))
        other = net(swapped, torch.zeros(1))
    back = torch.cat([other[..., 8:], other[..., :8]], 3)
    assert (back - out).abs().max() > 1e-3


def test_without_positions_patches_could_be_shuffled():
    """The check of the test above: with no turn at all, only the contents count."""
    block = perturb(Block(32, 2), scale=0.1)
    x = normal(1, 6, 32)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    e = normal(1, 32)
    torch.testing.assert_close(block(x[:, order], e, None), block(x, e, None)[:, order])


def test_noise_level_and_label_change_the_answer():
    net = small_dit(classes=3)
    x = normal(1, 1, 16, 16)
    with torch.no_grad():
        first = net(x, torch.tensor([0.2]), torch.tensor([1]))
        assert (net(x, torch.tensor([0.9]), torch.tensor([1])) - first).abs().max() > 1e-4
        assert (net(x, torch.tensor([0.2]), torch.tensor([2])) - first).abs().max() > 1e-4
        none = net(x, torch.tensor([0.2]))
        assert torch.equal(net(x, torch.tensor([0.2]), torch.tensor([3])), none)


def test_half_precision_is_near_full():
    net = small_dit()
    x = normal(2, 1, 16, 16)
    full = Denoiser(net)(x, 1.0)
    half = Denoiser(net, precision="bf16")(x, 1.0)
    assert (full - half).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"patch": 0}, "must be positive"),
        ({"image_channels": 0}, "image_channels must be positive"),
        ({"bottleneck": -1}, "bottleneck not negative"),
        ({"positions": "sin"}, "positions must be one of"),
        ({"width": 36}, "a multiple of 4"),
        ({"classes": 2, "conditions": 2}, "not on both"),
    ],
)
def test_arguments_that_can_not_be_are_refused(arguments, sentence):
    with pytest.raises(ParameterError, match=sentence):
        DiT(**{**SMALL, **arguments})

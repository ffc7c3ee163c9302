"""The U-Net: shapes, gradients, what depends on what, and its blocks by hand."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import perturb, small_unet
from torch import Tensor

from lensdiff.networks.embeddings import NoiseEmbedding
from lensdiff.networks.unet import Attention, ResidualBlock, UNet, norm


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- shapes and gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "unshuffle", "image_channels"),
    [
        *((64, 64, 2, 1), (144, 144, 2, 1), (150, 150, 2, 1), (150, 150, 5, 1), (151, 151, 2, 1)),
        *((37, 50, 2, 1), (24, 16, 1, 3), (33, 32, 4, 3)),
    ],
)
def test_output_has_the_inputs_shape_and_gradients_are_finite(height: int, width: int, unshuffle: int, image_channels: int) -> None:
    net = small_unet(unshuffle=unshuffle, image_channels=image_channels, channels=(8, 16), classes=2).train()
    x = normal(2, image_channels, height, width).requires_grad_()
    out = net(x, torch.tensor([-1.0, 0.5]), torch.tensor([0, 2]))
    assert out.shape == x.shape
    (out**2).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert x.grad.isfinite().all()
    assert (x.grad.flatten(1).abs() > 0).float().mean() > 0.99  # every pixel is seen


@pytest.mark.parametrize(("size", "unshuffle", "padded"), [(150, 2, 152), (151, 2, 152), (150, 5, 150), (151, 5, 160), (64, 2, 64)])
def test_edges_are_repeated_around_and_cropped_again(size: int, unshuffle: int, padded: int) -> None:
    net, before = small_unet(unshuffle=unshuffle, channels=(8, 16)), (padded - size) // 2
    x, noise = normal(1, 1, size, size), torch.tensor([0.1])
    wide = F.pad(x, (before, padded - size - before) * 2, mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(net(x, noise), net(wide, noise)[..., before : before + size, before : before + size])
        assert net.multiple * (padded // net.multiple) == padded


def test_the_images_of_a_batch_do_not_mix() -> None:
    net, x = small_unet(), normal(3, 1, 16, 16)
    noise = torch.tensor([-1.0, 0.0, 1.0])
    with torch.no_grad():
        together = net(x, noise)
        for row in range(3):
            torch.testing.assert_close(net(x[row : row + 1], noise[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)


# ---- what the output depends on ---------------------------------------------------------------------------------------------


def test_a_new_network_answers_zero() -> None:
    net = UNet((16, 32), blocks=1, classes=3)
    assert (net(normal(2, 1, 16, 16), torch.zeros(2), torch.tensor([0, 1])) == 0).all()


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
def test_output_depends_on_the_noise_level(embedding: str) -> None:
    net, x = small_unet(embedding=embedding), normal(2, 1, 16, 16)
    with torch.no_grad():
        low, high = net(x, torch.full((2,), -1.0)), net(x, torch.full((2,), 0.9))
    assert (low - high).abs().max() > 0.05 * low.abs().max()


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
def test_output_depends_on_the_label_and_no_label_is_the_null_class(embedding: str) -> None:
    net, x, noise = small_unet(embedding=embedding, classes=3), normal(2, 1, 16, 16), torch.zeros(2)

    def answer(label: int | None) -> Tensor:
        return net(x, noise, None if label is None else torch.tensor([label, label]))

    with torch.no_grad():
        answers = [answer(k) for k in range(4)]
        torch.testing.assert_close(answer(None), answers[3], rtol=0, atol=0)
        mixed = net(x, noise, torch.tensor([1, 3]))
    for k in range(3):
        assert (answers[k] - answers[3]).abs().max() > 1e-3 * answers[3].abs().max()
    torch.testing.assert_close(mixed, torch.stack([answers[1][0], answers[3][1]]), rtol=1e-4, atol=1e-5)


def test_a_network_without_classes_refuses_labels() -> None:
    with pytest.raises(ValueError, match="classes=0"):
        small_unet()(normal(1, 1, 8, 8), torch.zeros(1), torch.tensor([0]))


def test_dropout_acts_in_training_alone() -> None:
    net, x, noise = small_unet(dropout=0.5), normal(1, 1, 8, 8), torch.zeros(1)
    with torch.no_grad():
        assert (net(x, noise) == net(x, noise)).all()
        net.train()
        assert (net(x, noise) != net(x, noise)).any()


# ---- the blocks by hand -----------------------------------------------------------------------------------------------------


def test_sinusoids_are_geometric_from_1_to_1000() -> None:
    embedding = NoiseEmbedding(16)
    assert embedding.frequencies.shape == (32,)
    np.testing.assert_allclose(embedding.frequencies.numpy(), 1000 ** (np.arange(32) / 31), rtol=1e-5)
    noise = torch.tensor([-1.2, 0.0, 0.9])
    phase = noise.numpy()[:, None] * embedding.frequencies.numpy()
    np.testing.assert_allclose(embedding.sinusoids(noise).numpy(), np.concatenate([np.sin(phase), np.cos(phase)], 1), atol=1e-4)
    assert embedding.sinusoids(noise.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
@pytest.mark.parametrize(("channels_in", "channels"), [(16, 16), (16, 24)])
def test_residual_block_by_hand(embedding: str, channels_in: int, channels: int) -> None:
    block = perturb(ResidualBlock(channels_in, channels, 32, embedding), scale=0.3)
    x, e = normal(2, channels_in, 5, 5), normal(2, 32, seed=1)
    h = block.conv1(F.silu(F.group_norm(x, math.gcd(channels_in, 16), block.norm1.weight, block.norm1.bias)))
    given = F.linear(F.silu(e), block.noise.weight, block.noise.bias)[:, :, None, None]
    groups = math.gcd(channels, 16)
    if embedding == "add":
        h = F.group_norm(h + given, groups, block.norm2.weight, block.norm2.bias)
    else:
        h = F.group_norm(h, groups, block.norm2.weight, block.norm2.bias) * (1 + given[:, :channels]) + given[:, channels:]
    expected = block.conv2(F.silu(h)) + (x if channels_in == channels else block.shortcut(x))
    torch.testing.assert_close(block(x, e), expected)


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
def test_a_new_residual_block_is_the_identity(embedding: str) -> None:
    x = normal(2, 16, 5, 5)
    assert (ResidualBlock(16, 16, 32, embedding)(x, normal(2, 32)) == x).all()
    wider = ResidualBlock(16, 32, 32, embedding)
    torch.testing.assert_close(wider(x, normal(2, 32)), wider.shortcut(x))


@pytest.mark.parametrize(("channels", "heads"), [(96, 2), (48, 1), (40, 5), (64, 1), (128, 2)])
def test_attention_by_hand(channels: int, heads: int) -> None:
    attention = Attention(channels)
    x = normal(2, channels, 3, 5)
    assert (attention(x) == x).all()  # a new one is the identity
    perturb(attention, scale=0.2)
    width = channels // heads
    h = F.group_norm(x, math.gcd(channels, 16), attention.norm.weight, attention.norm.bias).flatten(2)
    q, k, v = (torch.einsum("oc,ncp->nop", attention.qkv.weight[:, :, 0, 0], h) + attention.qkv.bias[:, None]).chunk(3, 1)
    seen = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        share = (torch.einsum("ncp,ncq->npq", q[:, part], k[:, part]) / math.sqrt(width)).softmax(-1)
        seen.append(torch.einsum("npq,ncq->ncp", share, v[:, part]))
    out = torch.einsum("oc,ncp->nop", attention.out.weight[:, :, 0, 0], torch.cat(seen, 1)) + attention.out.bias[:, None]
    torch.testing.assert_close(attention(x), x + out.view_as(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "groups"), [(48, 16), (144, 16), (24, 8), (7, 1)])
def test_norm_has_at_most_16_groups(channels: int, groups: int) -> None:
    assert norm(channels).num_groups == groups


# ---- how it is put together -------------------------------------------------------------------------------------------------


def attention_widths(net: UNet) -> list[int]:
    return [module.norm.num_channels for module in net.modules() if isinstance(module, Attention)]


def test_attention_stands_where_it_is_asked_for() -> None:
    channels = (16, 32, 64)
    assert attention_widths(UNet(channels, blocks=2, attention_levels=(), middle_attention=False)) == []
    assert attention_widths(UNet(channels, blocks=2, attention_levels=())) == [64]
    assert attention_widths(UNet(channels, blocks=2, attention_levels=(1,), middle_attention=False)) == [32] * 5  # 2 down, 3 up
    assert sorted(attention_widths(UNet(channels, blocks=1, attention_levels=(0, 2)))) == [16] * 3 + [64] * 4  # one in the middle


def test_attention_runs_at_the_resolution_of_its_level() -> None:
    net, seen = UNet((16, 32, 48), blocks=1, attention_levels=(1,), middle_attention=False), []
    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[-2:])))
    net(normal(1, 1, 64, 32), torch.zeros(1))
    assert seen == [(16, 8)] * 3  # 64 x 32, unshuffled by 2, once down


def test_number_of_parameters() -> None:
    assert sum(p.numel() for p in UNet().parameters()) == 6_192_292


def test_dropout_and_classes_change_no_other_weight() -> None:
    plain, other = UNet((16, 32)).state_dict(), UNet((16, 32), classes=3, dropout=0.1).state_dict()
    assert {name: tensor.shape for name, tensor in other.items() if name != "label.weight"} == {n: t.shape for n, t in plain.items()}
    assert other["label.weight"].shape == (4, 64)
    assert not any("frequencies" in name for name in plain)


@pytest.mark.parametrize(
    "arguments",
    [{"embedding": "film"}, {"channels": ()}, {"channels": (16, 0)}, {"blocks": 0}, {"unshuffle": 0}, {"image_channels": 0}],
)
def test_wrong_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"embedding must be|must be positive"):
        UNet(**arguments)


# ---- on a GPU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 150])
def test_bfloat16_on_cuda_agrees_with_float32_on_the_cpu(size: int) -> None:
    torch.manual_seed(0)
    net = perturb(UNet((32, 64), blocks=1, attention_levels=(1,), classes=3), scale=0.02).eval()
    x, noise, label = normal(2, 1, size, size), torch.tensor([-1.0, 0.5]), torch.tensor([0, 3])
    with torch.no_grad():
        expected = net(x, noise, label)
        net.cuda().to(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16):
            out = net(x.cuda(), noise.cuda(), label.cuda()).float().cpu()
    assert (out - expected).norm() < 2e-2 * expected.norm()

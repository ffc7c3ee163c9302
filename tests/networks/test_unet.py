"""The U-Net: shapes, gradients, what its output depends on, and how it is put together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gaussian import normal
from torch import Tensor
from toys import perturb, small_unet

from lensdiff.networks.unet import Attention, UNet

# ---- shapes and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "unshuffle", "image_channels"),
    [
        (64, 64, 2, 1),
        (144, 144, 2, 1),
        (150, 150, 2, 1),
        (150, 150, 5, 1),
        (151, 151, 2, 1),
        (37, 50, 2, 1),
        (24, 16, 1, 3),
        (33, 32, 4, 3),
    ],
)
def test_output_has_the_inputs_shape_and_gradients_are_finite(
    height: int, width: int, unshuffle: int, image_channels: int
) -> None:
    shape = {"unshuffle": unshuffle, "image_channels": image_channels}
    net = small_unet(**shape, channels=(8, 16), classes=2).train()
    x = normal(2, image_channels, height, width).requires_grad_()
    out = net(x, torch.tensor([-1.0, 0.5]), torch.tensor([0, 2]))
    assert out.shape == x.shape
    (out**2).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert x.grad.isfinite().all()
    assert (x.grad.flatten(1).abs() > 0).float().mean() > 0.99  # every pixel is seen


@pytest.mark.parametrize(
    ("size", "unshuffle", "padded"),
    [(150, 2, 152), (151, 2, 152), (150, 5, 150), (151, 5, 160), (64, 2, 64)],
)
def test_edges_are_repeated_around_and_cropped_again(
    size: int, unshuffle: int, padded: int
) -> None:
    net = small_unet(unshuffle=unshuffle, channels=(8, 16))
    before = (padded - size) // 2
    x = normal(1, 1, size, size)
    noise = torch.tensor([0.1])
    wide = F.pad(x, (before, padded - size - before) * 2, mode="replicate")
    inside = slice(before, before + size)
    with torch.no_grad():
        torch.testing.assert_close(net(x, noise), net(wide, noise)[..., inside, inside])
        assert net.multiple * (padded // net.multiple) == padded


def test_the_images_of_a_batch_do_not_mix() -> None:
    net = small_unet()
    x = normal(3, 1, 16, 16)
    noise = torch.tensor([-1.0, 0.0, 1.0])
    with torch.no_grad():
        together = net(x, noise)
        for row in range(3):
            alone = net(x[row : row + 1], noise[row : row + 1])[0]
            torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-5)


# ---- what the output depends on ------------------------------------------------------------------


def test_a_new_network_answers_zero() -> None:
    net = UNet((16, 32), blocks=1, classes=3)
    assert (net(normal(2, 1, 16, 16), torch.zeros(2), torch.tensor([0, 1])) == 0).all()


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
def test_output_depends_on_the_noise_level(embedding: str) -> None:
    net = small_unet(embedding=embedding)
    x = normal(2, 1, 16, 16)
    with torch.no_grad():
        low = net(x, torch.full((2,), -1.0))
        high = net(x, torch.full((2,), 0.9))
    assert (low - high).abs().max() > 0.05 * low.abs().max()


@pytest.mark.parametrize("embedding", ["add", "scale_shift"])
def test_output_depends_on_the_label_and_no_label_is_the_null_class(embedding: str) -> None:
    net = small_unet(embedding=embedding, classes=3)
    x = normal(2, 1, 16, 16)
    noise = torch.zeros(2)

    def answer(label: int | None) -> Tensor:
        return net(x, noise, None if label is None else torch.tensor([label, label]))

    with torch.no_grad():
        answers = [answer(k) for k in range(4)]
        torch.testing.assert_close(answer(None), answers[3], rtol=0, atol=0)
        mixed = net(x, noise, torch.tensor([1, 3]))
    for k in range(3):
        assert (answers[k] - answers[3]).abs().max() > 1e-3 * answers[3].abs().max()
    expected = torch.stack([answers[1][0], answers[3][1]])
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)


def test_a_network_without_classes_refuses_labels() -> None:
    with pytest.raises(ValueError, match="classes=0"):
        small_unet()(normal(1, 1, 8, 8), torch.zeros(1), torch.tensor([0]))


def test_dropout_acts_in_training_alone() -> None:
    net = small_unet(dropout=0.5)
    x = normal(1, 1, 8, 8)
    noise = torch.zeros(1)
    with torch.no_grad():
        assert (net(x, noise) == net(x, noise)).all()
        net.train()
        assert (net(x, noise) != net(x, noise)).any()


# ---- how it is put together ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "levels", "middle", "widths"),
    [
        (2, (), False, []),
        (2, (), True, [64]),
        (2, (1,), False, [32] * 5),  # 2 down, 3 up
        (1, (0, 2), True, [16] * 3 + [64] * 4),  # one in the middle
    ],
)
def test_attention_stands_where_it_is_requested(
    blocks: int, levels: tuple[int, ...], middle: bool, widths: list[int]
) -> None:
    net = UNet((16, 32, 64), blocks=blocks, attention_levels=levels, middle_attention=middle)
    found = [one.norm.num_channels for one in net.modules() if isinstance(one, Attention)]
    assert sorted(found) == widths


def test_attention_runs_at_the_resolution_of_its_level() -> None:
    net = UNet((16, 32, 48), blocks=1, attention_levels=(1,), middle_attention=False)
    seen = []

    def look(module: Attention, given: tuple[Tensor], output: Tensor) -> None:
        seen.append(tuple(given[0].shape[-2:]))

    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(look)
    net(normal(1, 1, 64, 32), torch.zeros(1))
    assert seen == [(16, 8)] * 3  # 64 x 32, unshuffled by 2, once down


def test_number_of_parameters() -> None:
    assert sum(p.numel() for p in UNet().parameters()) == 6_192_292


def test_dropout_and_classes_change_no_other_weight() -> None:
    plain = UNet((16, 32)).state_dict()
    other = UNet((16, 32), classes=3, dropout=0.1).state_dict()
    assert other.pop("label.weight").shape == (4, 64)
    shapes = {name: tensor.shape for name, tensor in plain.items()}
    assert {name: tensor.shape for name, tensor in other.items()} == shapes
    assert not any("frequencies" in name for name in plain)


@pytest.mark.parametrize(
    "arguments",
    [
        {"embedding": "film"},
        {"channels": ()},
        {"channels": (16, 0)},
        {"blocks": 0},
        {"unshuffle": 0},
        {"image_channels": 0},
    ],
)
def test_wrong_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"embedding must be|must be positive"):
        UNet(**arguments)


# ---- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 150])
def test_bfloat16_on_cuda_agrees_with_float32_on_the_cpu(size: int) -> None:
    torch.manual_seed(0)
    net = perturb(UNet((32, 64), blocks=1, attention_levels=(1,), classes=3), scale=0.02).eval()
    x = normal(2, 1, size, size)
    noise = torch.tensor([-1.0, 0.5])
    label = torch.tensor([0, 3])
    with torch.no_grad():
        expected = net(x, noise, label)
        net.cuda().to(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16):
            out = net(x.cuda(), noise.cuda(), label.cuda()).float().cpu()
    assert (out - expected).norm() < 2e-2 * expected.norm()

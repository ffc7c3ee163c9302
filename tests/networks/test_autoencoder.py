"""Autoencoders: shapes at any size, the codebook's averages, gradients, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from toys_autoencoder import KINDS, small_autoencoder

from lensdiff.errors import DataError, ParameterError
from lensdiff.networks.autoencoder import KLVAE, VQVAE, code_use


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 12, 12), (1, 14, 9), (3, 5, 16), (1, 4, 4)]
)
def test_any_size_comes_back_as_it_was(kind: str, channels: int, height: int, width: int) -> None:
    net = small_autoencoder(kind, image_channels=channels)
    images = torch.rand(2, channels, height, width)
    z = net.encode(images)
    assert z.shape == (2, 3, math.ceil(height / 4), math.ceil(width / 4))
    assert net.decode(z, height, width).shape == images.shape
    found, penalty, _ = net(images)
    assert found.shape == images.shape
    assert penalty.shape == (2,)


@pytest.mark.parametrize(("unshuffle", "levels", "fold"), [(1, 1, 1), (5, 1, 5), (2, 3, 8)])
def test_the_fold_is_that_of_stem_and_levels(unshuffle: int, levels: int, fold: int) -> None:
    net = small_autoencoder("KLVAE", channels=(16,) * levels, unshuffle=unshuffle)
    assert net.fold == fold
    assert net.encode(torch.rand(1, 1, 2 * fold, 2 * fold)).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_around_and_not_at_one_side(kind: str) -> None:
    """A mirrored image comes back mirrored where the network itself is symmetric."""
    net = small_autoencoder(kind)
    images = torch.rand(1, 1, 14, 14)
    whole = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    found = net.decode(net.encode(images), 14, 14)
    torch.testing.assert_close(
        found, net.decode(net.encode(whole), 16, 16)[..., 1:15, 1:15], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_measured_latents_have_mean_0_and_std_1(kind: str) -> None:
    net = small_autoencoder(kind)
    images = torch.rand(20, 1, 16, 16)
    before = net.decode(net.encode(images), 16, 16)
    net.measure(net.central(net.raw(images)))
    z = net.encode(images)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(net.decode(z, 16, 16), before, rtol=0, atol=1e-3)


def test_the_images_own_mean_and_std_go_in_and_come_out() -> None:
    plain = small_autoencoder("KLVAE")
    own = small_autoencoder("KLVAE", image_mean=0.2, image_std=0.5)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(own.raw(0.2 + 0.5 * images), plain.raw(images))
    z = plain.encode(images)
    torch.testing.assert_close(own.decode(z, 8, 8), 0.2 + 0.5 * plain.decode(z, 8, 8))


# ---- the codebook --------------------------------------------------------------------------------


def test_each_latent_becomes_its_nearest_code() -> None:
    net = small_autoencoder(codes=8)
    z = torch.randn(2, 3, 4, 5)
    distance = torch.cdist(z.movedim(1, -1).reshape(-1, 3), net.codes)
    expected = net.codes[distance.argmin(1)].reshape(2, 4, 5, 3).movedim(-1, 1)
    assert torch.equal(net.snapped(z), expected)
    assert torch.equal(net.snapped(expected), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_are_chosen_in_full_precision(dtype: torch.dtype) -> None:
    """Codes that half precision can't tell apart are told apart all the same."""
    net = small_autoencoder(codes=64)
    places = 1 + 0.02 * torch.arange(4)
    net.codes.copy_(torch.cartesian_prod(places, places, places))
    z = net.codes[torch.arange(64).view(1, 8, 8)].movedim(-1, 1)
    with torch.autocast("cpu", dtype=dtype):
        numbers = net.nearest(z)
    assert numbers.flatten().tolist() == list(range(64))


def test_the_gradient_passes_straight_through() -> None:
    """That of the error at the latent is that at its code (van den Oord et al. 2017, section 3.2).

    The commitment's comes in addition.
    """
    net = small_autoencoder(codes=8)
    images = torch.rand(2, 1, 8, 8)
    net.commitment = 0.0
    found, _, _ = net(images)
    found.square().sum().backward()
    own = net.encoder[-1].bias.grad.clone()
    z = net.snapped(net.raw(images)).detach().requires_grad_(True)
    net.render(z, 8, 8).square().sum().backward()
    torch.testing.assert_close(own, z.grad.sum((0, 2, 3)), rtol=1e-3, atol=1e-3)
    assert net.codes.grad is None


def test_commitment_is_the_distance_to_the_code() -> None:
    net = small_autoencoder(codes=8, commitment=0.5)
    images = torch.rand(2, 1, 8, 8)
    z = net.raw(images)
    expected = 0.5 * (z - net.snapped(z)).square().mean((1, 2, 3))
    torch.testing.assert_close(net(images)[1], expected)


def test_codes_are_moving_averages_of_their_latents() -> None:
    """As sums and counts with one decay have it (van den Oord et al. 2017, appendix A.1)."""
    net = VQVAE(codes=3, decay=0.9, rare=0.0, latent_channels=2)
    counts = torch.tensor([[4.0, 2.0, 2.0], [1.0, 6.0, 1.0], [2.0, 2.0, 4.0]])
    means = torch.randn(3, 3, 2)
    count = torch.zeros(3)
    total = torch.zeros(3, 2)
    for now, mean in zip(counts, means, strict=True):
        net.learn_codes(now, now[:, None] * mean, torch.zeros(3, 2))
        count = 0.9 * count + 0.1 * now
        total = 0.9 * total + 0.1 * now[:, None] * mean
        torch.testing.assert_close(net.codes, total / count[:, None])


def test_dead_codes_take_latents_of_the_batch() -> None:
    net = VQVAE(codes=4, rare=0.1, latent_channels=2)
    some = torch.randn(4, 2)
    counts = torch.tensor([5.0, 5.0, 0.0, 0.0])
    net.learn_codes(counts, counts[:, None] * torch.ones(4, 2), some)
    torch.testing.assert_close(net.codes[2:], some[2:])
    torch.testing.assert_close(net.codes[:2], torch.ones(2, 2))
    # one that is taken by none lives on for a while, since it counts as an equal share at first
    other = torch.randn(4, 2)
    net.learn_codes(counts, counts[:, None] * torch.ones(4, 2), other)
    torch.testing.assert_close(net.codes[2:], some[2:])
    for _ in range(400):
        net.learn_codes(counts, counts[:, None] * torch.ones(4, 2), other)
        if not torch.allclose(net.codes[2:], some[2:], atol=1e-3):
            break
    torch.testing.assert_close(net.codes[2:], other[2:])


def test_use_of_codes() -> None:
    even = code_use(torch.tensor([5, 5, 5, 5]))
    assert even == {"perplexity": pytest.approx(4), "codes_in_use": 1.0}
    half = code_use(torch.tensor([7, 0, 7, 0]))
    assert half == {"perplexity": pytest.approx(2), "codes_in_use": 0.5}


# ---- the Gaussian --------------------------------------------------------------------------------


def test_the_divergence_is_that_of_torch() -> None:
    net = small_autoencoder("KLVAE", kl=0.5)
    images = torch.rand(3, 1, 8, 8)
    mean, log_variance = net.raw(images).chunk(2, 1)
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    unit = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(own, unit).mean((1, 2, 3))
    torch.testing.assert_close(net(images)[1], 0.5 * expected)
    torch.testing.assert_close(net(images)[2]["divergence"], expected)


def test_it_is_noisy_in_training_alone() -> None:
    net = small_autoencoder("KLVAE")
    images = torch.rand(1, 1, 8, 8)
    assert torch.equal(net(images)[0], net(images)[0])
    torch.testing.assert_close(net(images)[0], net.decode(net.encode(images), 8, 8))
    net.train()
    assert not torch.equal(net(images)[0], net(images)[0])


def test_the_noise_of_training_has_the_posteriors_std(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_autoencoder("KLVAE").train()
    net.encoder[-1].bias.data[3:] = -2.0
    images = torch.rand(2, 1, 8, 8)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    mean, log_variance = net.raw(images).chunk(2, 1)
    expected = net.render(mean + (log_variance / 2).exp(), 8, 8)
    torch.testing.assert_close(net(images)[0], expected)


def test_the_decoder_takes_the_nearest_codes() -> None:
    net = small_autoencoder("VQVAE", codes=4)
    images = torch.rand(2, 1, 8, 8)
    z = net.raw(images)
    assert (net.snapped(z) - z).abs().max() > 0.1
    torch.testing.assert_close(net.decode(net.encode(images), 8, 8), net(images)[0])


def test_a_batch_gives_counts_sums_and_some_of_its_latents() -> None:
    net = small_autoencoder("VQVAE", codes=8).train()
    images = torch.rand(3, 1, 8, 8)
    flat = net.raw(images).detach().movedim(1, -1).reshape(-1, 3)
    numbers = torch.cdist(flat, net.codes).argmin(1)
    net(images)
    ((counts, sums, some),) = net.seen
    for k in range(8):
        assert counts[k] == (numbers == k).sum()
        torch.testing.assert_close(sums[k], flat[numbers == k].sum(0), atol=1e-5, rtol=1e-4)
    assert torch.cdist(some, flat).min(1).values.max() < 1e-3


# ---- what is refused -----------------------------------------------------------------------------


def test_images_smaller_than_the_fold_are_refused() -> None:
    net = small_autoencoder()
    with pytest.raises(
        DataError, match=r"3 x 8 pixels are smaller than the fold of 4. Take larger"
    ):
        net.encode(torch.rand(1, 1, 8, 3))
    with pytest.raises(DataError, match="3 channels, for an autoencoder of images with 1"):
        net.encode(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (VQVAE, {"codes": 1}),
        (VQVAE, {"decay": 1.0}),
        (VQVAE, {"commitment": -1.0}),
        (KLVAE, {"kl": -1.0}),
        (KLVAE, {"channels": ()}),
        (KLVAE, {"image_std": 0.0}),
        (VQVAE, {"latent_channels": 0}),
    ],
)
def test_wrong_settings_are_refused(make: type, arguments: dict) -> None:
    with pytest.raises(ParameterError, match="must"):
        make(**arguments)

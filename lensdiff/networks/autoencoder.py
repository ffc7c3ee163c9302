"""Autoencoders: images to latents and back, VQ-VAE and KL-VAE, of the same encoder and decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError, ParameterError
from ..runtime import autocast
from .embeddings import padded, zero
from .unet import Attention, Upsample, norm


class PlainBlock(nn.Module):
    """The U-Net's residual block without a noise level: (n, C, h, w) to (n, C', h, w)."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = norm(channels)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))
        same = channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Autoencoder(nn.Module):
    """Images (n, C, H, W) in [0, 1] to latents (n, latent_channels, h, w), and back.

    h is H / `fold`, rounded up: edges are repeated up to a multiple, and cropped at the exit. What
    leaves `encode` has mean 0 and std 1 in each channel once `measure` has seen latents. Base of
    `VQVAE` and `KLVAE`.

    - `channels`: one number a level; level i works at 1 / (unshuffle * 2 ** i) of the image's side,
      so that fold = unshuffle * 2 ** (levels - 1)
    - `blocks`: residual blocks a level; `attention`: self-attention at the bottom, on either side
    - `image_mean`, `image_std`: of the pixels; inside, images have mean 0 and std 1

    Raises ParameterError for numbers that are not positive.
    """

    encoded_per_latent = 1  # numbers that the encoder gives for each number of a latent

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64),
        blocks: int = 1,
        unshuffle: int = 2,
        latent_channels: int = 4,
        attention: bool = False,
        image_channels: int = 1,
        image_mean: float = 0.0,
        image_std: float = 1.0,
    ):
        super().__init__()
        sizes = (*channels, blocks, unshuffle, latent_channels, image_channels, image_std)
        if not channels or min(sizes) <= 0:
            raise ParameterError(
                "channels, blocks, unshuffle, latent_channels, image_channels and image_std must "
                "be positive."
            )
        self.image_channels = image_channels
        self.image_mean = image_mean
        self.image_std = image_std
        self.latent_channels = latent_channels
        self.unshuffle = unshuffle
        self.fold = unshuffle * 2 ** (len(channels) - 1)
        self.precision = "fp32"  # of the convolutions: "bf16" or "fp16" under autocast
        self.encoder = self._make_encoder(channels, blocks, attention)
        self.decoder = self._make_decoder(channels, blocks, attention)
        self.register_buffer("mean", torch.zeros(latent_channels))
        self.register_buffer("std", torch.ones(latent_channels))

    def _make_encoder(self, channels: tuple[int, ...], blocks: int, attention: bool) -> nn.Module:
        """Stem, residual blocks and folds, and the last layer: folded pixels to numbers."""
        c = channels[0]
        layers = [nn.Conv2d(self.image_channels * self.unshuffle**2, c, 3, padding=1)]
        for level, c_out in enumerate(channels):
            for _ in range(blocks):
                layers.append(PlainBlock(c, c_out))
                c = c_out
            if level < len(channels) - 1:
                layers.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
        if attention:
            layers.append(Attention(c))
        last = nn.Conv2d(c, self.encoded_per_latent * self.latent_channels, 1)
        return nn.Sequential(*layers, PlainBlock(c, c), norm(c), nn.SiLU(), last)

    def _make_decoder(self, channels: tuple[int, ...], blocks: int, attention: bool) -> nn.Module:
        """The encoder in a mirror: latents to folded pixels."""
        c = channels[-1]
        layers = [nn.Conv2d(self.latent_channels, c, 3, padding=1), PlainBlock(c, c)]
        if attention:
            layers.append(Attention(c))
        for level, c_out in reversed(list(enumerate(channels))):
            for _ in range(blocks):
                layers.append(PlainBlock(c, c_out))
                c = c_out
            if level:
                layers.append(Upsample(c))
        last = nn.Conv2d(c, self.image_channels * self.unshuffle**2, 3, padding=1)
        return nn.Sequential(*layers, norm(c), nn.SiLU(), last)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the latents of H x W images. Raises DataError for images below the fold."""
        if min(height, width) < self.fold:
            small = f"Images of {width} x {height} pixels are smaller than the fold of {self.fold}"
            cure = "Take larger ones, or an autoencoder with fewer levels or a smaller unshuffle"
            raise DataError(f"{small}. {cure}.")
        return -(-height // self.fold), -(-width // self.fold)

    def raw(self, images: Tensor) -> Tensor:
        """What the encoder gives, (n, encoded_per_latent * latent_channels, h, w), float32.

        Raises DataError for images of other channels, or smaller than the fold.
        """
        height, width = images.shape[-2:]
        self.grid(height, width)
        if images.shape[1] != self.image_channels:
            found = f"Images with {images.shape[1]} channels, for an autoencoder of images with"
            raise DataError(f"{found} {self.image_channels}. Take one that learnt such images.")
        _, _, x = padded((images - self.image_mean) / self.image_std, self.fold)
        with autocast(x.device, self.precision):
            return self.encoder(F.pixel_unshuffle(x, self.unshuffle)).float()

    def render(self, z: Tensor, height: int, width: int) -> Tensor:
        """Images (n, C, H, W) of latents (n, latent_channels, h, w) as the decoder takes them."""
        with autocast(z.device, self.precision):
            x = F.pixel_shuffle(self.decoder(z).float(), self.unshuffle)
        top = (x.shape[-2] - height) // 2
        left = (x.shape[-1] - width) // 2
        cropped = x[..., top : top + height, left : left + width]
        return cropped * self.image_std + self.image_mean

    def central(self, raw: Tensor) -> Tensor:
        """The one latent, (n, latent_channels, h, w), that stands for what the encoder gives."""
        return raw

    def snapped(self, z: Tensor) -> Tensor:
        """Latents as the decoder takes them."""
        return z

    def encode(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to latents of unit scale, (n, latent_channels, h, w)."""
        z = self.central(self.raw(images))
        return (z - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Latents of unit scale to images (n, C, H, W), around [0, 1]."""
        return self.render(self.snapped(self.unscaled(latents)), height, width)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents of unit scale in the scale that the encoder gave and the decoder takes."""
        return latents * self.std.view(1, -1, 1, 1) + self.mean.view(1, -1, 1, 1)

    @torch.no_grad()
    def measure(self, z: Tensor) -> None:
        """Keep mean and std of each channel of central latents (n, latent_channels, h, w)."""
        self.mean.copy_(z.mean((0, 2, 3)))
        self.std.copy_(z.std((0, 2, 3)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(images as they come back, penalty of each image (n,), what is logged)."""
        raise NotImplementedError


class VQVAE(Autoencoder):
    """Each latent becomes the nearest of `codes` vectors (van den Oord et al. 2017).

    The gradient passes straight through; the penalty is `commitment` * |z - sg[e]|^2 (their eq. 3).
    The codebook learns without a gradient, by moving averages of `decay` (their appendix A.1,
    Razavi et al. 2019, eq. 4), see `learn_codes`. Latents are what the encoder gives; the decoder's
    end takes the nearest codes, so that a diffusion model may miss them a little (Rombach et al.
    2022, section 3.1).
    """

    def __init__(
        self,
        codes: int = 256,
        decay: float = 0.99,
        commitment: float = 0.25,
        rare: float = 0.03,
        **others: object,
    ):
        super().__init__(**others)
        if codes < 2 or not 0 <= decay < 1 or commitment < 0 or not 0 <= rare < 1:
            reason = "codes must be 2 or more, decay and rare in [0, 1) and commitment not negative"
            raise ParameterError(f"{reason}; got {codes}, {decay}, {rare} and {commitment}.")
        self.decay = decay
        self.commitment = commitment
        self.rare = rare  # a code with less than this part of an equal share is dead
        self.register_buffer("codes", torch.randn(codes, self.latent_channels))
        self.register_buffer("shares", torch.zeros(codes))  # of the latents that take each code
        self.register_buffer("sums", torch.zeros(codes, self.latent_channels))  # of them, / all
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # in the batches of one update

    def nearest(self, z: Tensor) -> Tensor:
        """Number of the nearest code of each latent: (n, latent_channels, h, w) to (n, h, w)."""
        with torch.autocast(z.device.type, enabled=False):  # in half precision, near codes are one
            flat = z.float().movedim(1, -1)
            distance = self.codes.square().sum(1) - 2 * flat @ self.codes.T  # up to |z|^2
            return distance.argmin(-1)

    def snapped(self, z: Tensor) -> Tensor:
        return self.codes[self.nearest(z)].movedim(-1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        z = self.raw(images)
        with torch.no_grad():
            numbers = self.nearest(z)
            codes = self.codes[numbers].movedim(-1, 1)
            counts = torch.bincount(numbers.flatten(), minlength=len(self.codes)).float()
            if self.training:
                self._remember(z, numbers, counts)
        penalty = self.commitment * (z - codes).square().mean((1, 2, 3))
        found = self.render(z + (codes - z).detach(), *images.shape[-2:])
        return found, penalty, {"counts": counts}

    def _remember(self, z: Tensor, numbers: Tensor, counts: Tensor) -> None:
        """Keep what `learn_codes` needs of a batch, and some of its latents for dead codes."""
        flat = z.detach().movedim(1, -1).flatten(0, -2)
        sums = torch.zeros_like(self.codes).index_add_(0, numbers.flatten(), flat)
        some = torch.randint(len(flat), (len(self.codes),), device=flat.device)
        self.seen.append((counts, sums, flat[some]))

    @torch.no_grad()
    def learn_codes(self, counts: Tensor, sums: Tensor, some: Tensor) -> None:
        """Move the codebook to the latents of one update; dead codes take one of `some`.

        `counts` (codes,) and `sums` (codes, latent_channels) are of the latents that took each
        code. The averages are of shares, not counts, so that they do not grow with the batch.
        """
        total = counts.sum()
        self.shares.lerp_(counts / total, 1 - self.decay)
        self.sums.lerp_(sums / total, 1 - self.decay)
        equal = self.shares.sum() / len(self.shares)
        dead = self.shares < self.rare * equal
        self.shares.copy_(torch.where(dead, equal, self.shares))
        self.sums.copy_(torch.where(dead[:, None], equal * some, self.sums))
        taken = self.shares[:, None] > 0  # the others stay where they were, if `rare` is 0
        self.codes.copy_(torch.where(taken, self.sums / self.shares[:, None], self.codes))


class KLVAE(Autoencoder):
    """Each latent is a Gaussian, held to the unit one by a light hand (Rombach et al. 2022).

    The penalty is `kl` times the divergence (Kingma & Welling 2014, appendix B), the mean over the
    latents' numbers. Their perceptual and adversarial losses are left out: the error is the
    squares' alone.
    """

    encoded_per_latent = 2

    def __init__(self, kl: float = 1e-3, **others: object):
        super().__init__(**others)
        if kl < 0:
            raise ParameterError(f"kl must not be negative, got {kl}.")
        self.kl = kl

    def central(self, raw: Tensor) -> Tensor:
        return raw.chunk(2, 1)[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        mean, log_variance = self.raw(images).chunk(2, 1)
        log_variance = log_variance.clamp(-30, 20)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
        z = mean
        if self.training:
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        each = divergence.mean((1, 2, 3))
        return self.render(z, *images.shape[-2:]), self.kl * each, {"divergence": each.detach()}


AUTOENCODERS = {"VQVAE": VQVAE, "KLVAE": KLVAE}


def code_use(counts: Tensor) -> dict[str, float]:
    """How evenly codes are used, from how many latents took each, (codes,).

    `perplexity` is exp of the entropy of their shares (van den Oord et al. 2017, their code);
    `codes_in_use` the share of codes that any latent took.
    """
    counts = counts.cpu()  # not each device has float64
    shares = counts.double() / counts.sum()
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
    return {"perplexity": float(entropy.exp()), "codes_in_use": float((counts > 0).double().mean())}

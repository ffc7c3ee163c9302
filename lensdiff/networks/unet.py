"""The U-Net: a folding stem, residual blocks that know the noise level, attention, and skips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ParameterError
from .embeddings import Conditional, label_planes, padded, zero


def norm(channels: int, groups: int = 16) -> nn.GroupNorm:
    """GroupNorm; its groups are the greatest common divisor of `channels` and `groups`."""
    return nn.GroupNorm(math.gcd(channels, groups), channels)


class ResidualBlock(nn.Module):
    """norm, SiLU, 3x3, noise, norm, SiLU, 3x3, and the input added (Ho et al. 2020, appendix B).

    The noise embedding is added to the features ("add"), or scales and shifts the second norm's
    output ("scale_shift", Nichol & Dhariwal 2021).
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        width: int,
        embedding: str = "scale_shift",
        dropout: float = 0.0,
    ):
        super().__init__()
        if embedding not in ("scale_shift", "add"):
            raise ParameterError(f"embedding must be 'scale_shift' or 'add', not {embedding!r}.")
        self.scale_shift = embedding == "scale_shift"
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.noise = nn.Linear(width, channels * (2 if self.scale_shift else 1))
        self.norm2 = norm(channels)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        same = channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        noise = self.noise(F.silu(embedding))[:, :, None, None]
        if self.scale_shift:
            scale, shift = noise.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + noise)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """x (n, C, H, W) plus self-attention over its pixels (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, channels: int, head_width: int = 48):
        super().__init__()
        if channels % head_width:
            head_width = math.gcd(channels, 64)
        self.heads = channels // head_width
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(n, c, height, width)
        return x + self.out(h)


class Upsample(nn.Module):
    """Nearest neighbour to twice the side, then 3x3."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(Conditional):
    """Noisy images (n, C, H, W), ln(sigma) / 4 (n,) and labels to images of the same shape.

    Ronneberger et al. 2015; Ho et al. 2020, appendix B. Any H and W: edges are repeated up to a
    multiple of `unshuffle` * 2 ** (levels - 1), and cropped at the exit.

    - `channels`: one number a level; level i works at 1 / (unshuffle * 2 ** i) of the image's side
    - `blocks`: residual blocks a level on the way down (one more on the way up)
    - `attention_levels`: levels with attention after each block; `middle_attention`: attention at
      the bottom
    - `embedding`: "scale_shift" or "add", see `ResidualBlock`
    - `classes`: 0, or labels (n,) are 0 .. classes - 1, and `classes` is the null class, used where
      label is None
    - `conditions`: 0, or labels are that many numbers an image, (n, conditions); a row of NaN, or
      None, is the null condition
    - `spins`: of these numbers, which then also go in as planes, see `Planes`; none by
      default
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (48, 96, 144),
        blocks: int = 2,
        attention_levels: tuple[int, ...] = (2,),
        middle_attention: bool = True,
        unshuffle: int = 2,
        embedding: str = "scale_shift",
        classes: int = 0,
        image_channels: int = 1,
        dropout: float = 0.0,
        conditions: int = 0,
        spins: tuple[int, ...] = (),
    ):
        super().__init__()
        if not channels or min(*channels, blocks, unshuffle, image_channels) < 1:
            raise ParameterError("channels, blocks, unshuffle and image_channels must be positive.")
        self.image_channels = image_channels
        self.unshuffle = unshuffle
        self.multiple = unshuffle * 2 ** (len(channels) - 1)
        width = 4 * channels[0]
        self.make_embeddings(width, classes, conditions)
        folded = image_channels * unshuffle**2
        self.planes = label_planes(tuple(spins), conditions)
        planes = (1 + len(spins)) * unshuffle**2 if spins else 0
        self.stem = nn.Conv2d(folded + planes, channels[0], 3, padding=1)
        self._block_arguments = (width, embedding, dropout)
        self._attention_levels = attention_levels
        skips = self._make_down(channels, blocks)
        self.up = nn.ModuleList()  # before the middle: saved states have the weights in this order
        self._make_middle(channels[-1], middle_attention)
        self._make_up(channels, blocks, skips)
        last = zero(nn.Conv2d(channels[0], folded, 3, padding=1))
        self.exit = nn.Sequential(norm(channels[0]), nn.SiLU(), last)

    def _block(self, channels_in: int, channels: int, level: int) -> nn.ModuleList:
        """A residual block, and attention where its level has it."""
        width, embedding, dropout = self._block_arguments
        attention = Attention(channels) if level in self._attention_levels else nn.Identity()
        residual = ResidualBlock(channels_in, channels, width, embedding, dropout)
        return nn.ModuleList([residual, attention])

    def _make_down(self, channels: tuple[int, ...], blocks: int) -> list[int]:
        """The way down; returns the channels of each feature map that is kept for the way up."""
        self.down = nn.ModuleList()
        c = channels[0]
        skips = [c]
        for level, c_out in enumerate(channels):
            for _ in range(blocks):
                self.down.append(self._block(c, c_out, level))
                c = c_out
                skips.append(c)
            if level < len(channels) - 1:
                self.down.append(nn.ModuleList([nn.Conv2d(c, c, 3, stride=2, padding=1)]))
                skips.append(c)
        return skips

    def _make_middle(self, channels: int, attention: bool) -> None:
        """Two residual blocks at the bottom, and attention between them."""
        width, embedding, dropout = self._block_arguments
        first = ResidualBlock(channels, channels, width, embedding, dropout)
        between = Attention(channels) if attention else nn.Identity()
        second = ResidualBlock(channels, channels, width, embedding, dropout)
        self.middle = nn.ModuleList([first, between, second])

    def _make_up(self, channels: tuple[int, ...], blocks: int, skips: list[int]) -> None:
        """The way up: each block takes in the last feature map that is left of the way down."""
        c = channels[-1]
        for level, c_out in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(self._block(c + skips.pop(), c_out, level))
                c = c_out
            if level:
                self.up.append(nn.ModuleList([Upsample(c)]))

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        e = self.embed(noise, label)
        if self.planes is not None:
            values = self.null(len(x), x.device) if label is None else label
            x = torch.cat([x, self.planes(values, height, width)], 1)
        top, left, x = padded(x, self.multiple)
        h = self.stem(F.pixel_unshuffle(x, self.unshuffle))
        skips = [h]
        for layers in self.down:
            h = layers[1](layers[0](h, e)) if len(layers) == 2 else layers[0](h)
            skips.append(h)
        first, between, second = self.middle
        h = second(between(first(h, e)), e)
        for layers in self.up:
            if len(layers) == 2:
                h = layers[1](layers[0](torch.cat([h, skips.pop()], 1), e))
            else:
                h = layers[0](h)
        h = F.pixel_shuffle(self.exit(h), self.unshuffle)
        return h[..., top : top + height, left : left + width]

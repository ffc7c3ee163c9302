"""The U-Net: a stem that folds pixels into channels, residual blocks that know the noise level,
attention, and skips from down to up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoiseEmbedding(nn.Module):
    """ln(sigma) / 4 through 32 sinusoids with frequencies from 1 to 1000, then two linear layers:

    (n,) to (n, width).
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, 3, 32), persistent=False)
        self.layers = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))

    def sinusoids(self, noise: Tensor) -> Tensor:
        """(n,) to (n, 64), float32 (Vaswani et al. 2017, section 3.5)."""
        phase = noise.float()[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], 1)

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(self.sinusoids(noise))


def norm(channels: int, groups: int = 16) -> nn.GroupNorm:
    """GroupNorm with `groups` groups, or the largest number below that divides the channels."""
    return nn.GroupNorm(math.gcd(channels, groups), channels)


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all weights at zero, so that a residual branch starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class VectorEmbedding(nn.Module):
    """Numbers (n, count) through two linear layers to (n, width); a learnt vector stands for the
    null condition, a row of NaN.

    It starts as nothing, so that a trained network without conditions can go on with them.
    """

    def __init__(self, count: int, width: int):
        super().__init__()
        self.count = count
        self.layers = nn.Sequential(
            nn.Linear(count, width), nn.SiLU(), zero(nn.Linear(width, width))
        )
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        if values.shape[-1:] != (self.count,) or not values.is_floating_point():
            raise ParameterError(
                f"This network is conditioned on {self.count} numbers an image; got "
                f"{values.dtype}, {tuple(values.shape)}."
            )
        none = values.isnan().any(1, keepdim=True)
        return torch.where(none, self.null, self.layers(values.nan_to_num().float()))


class Planes(nn.Module):
    """Numbers (n, count) drawn over the image, (n, 1 + len(spins), H, W): the distance from the
    centre, then a plane for each of `spins`.

    Convolutions don't know where they are, and an embedding says the same to every place; a plane
    says at each place what a direction means there. A number of spin 0 fills its plane. A pair (a,
    b) of spin s, which turns s times as fast as its image, gives a cos(s phi) + b sin(s phi) at
    azimuth phi. The null condition, a row of NaN, gives zeros. Distances are in half sides.
    """

    def __init__(self, spins: tuple[int, ...]):
        super().__init__()
        self.spins = spins
        self.count = sum(2 if spin else 1 for spin in spins)

    def forward(self, values: Tensor, height: int, width: int) -> Tensor:
        y, x = (
            (torch.arange(side, device=values.device) - (side - 1) / 2) / (side / 2)
            for side in (height, width)
        )
        azimuth = torch.atan2(y[:, None], x[None, :])
        planes = [torch.hypot(x[None, :], y[:, None]).expand(len(values), -1, -1)]
        numbers = iter(values.nan_to_num().float()[:, :, None, None].unbind(1))
        for spin in self.spins:
            one = next(numbers)
            planes.append(
                one * (spin * azimuth).cos() + next(numbers) * (spin * azimuth).sin()
                if spin
                else one.expand(-1, height, width)
            )
        return torch.stack(planes, 1)


def label_embedding(classes: int, conditions: int, width: int) -> nn.Module | None:
    """What turns labels into (n, width): a row for each class and one for none, or layers for
    that many numbers; None without labels.
    """
    if classes and conditions:
        raise ParameterError("A network is conditioned on classes or on numbers, not on both.")
    if conditions:
        return VectorEmbedding(conditions, width)
    return nn.Embedding(classes + 1, width) if classes else None


def planes_of(spins: tuple[int, ...], conditions: int) -> Planes | None:
    """What draws numbers over the image, or None without spins.

    Raises ValueError where spins and numbers don't match.
    """
    planes = Planes(spins) if spins else None
    if planes is not None and planes.count != conditions:
        raise ParameterError(
            f"The spins {spins} are those of {planes.count} numbers, but conditions={conditions}."
        )
    return planes


class ResidualBlock(nn.Module):
    """norm, SiLU, 3x3, noise, norm, SiLU, 3x3, and the input added (Ho et al. 2020, appendix B).

    The noise embedding is added to the features ("add"), or scales and shifts the second norm's
    output ("scale_shift", Dhariwal & Nichol 2021).
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
        self.shortcut = (
            nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        )

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
    """Self-attention over the pixels of a feature map (n, C, H, W), with a residual connection
    (Vaswani et al. 2017, eq. 1).
    """

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


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015): noisy images (n, C, H, W), ln(sigma) / 4 (n,) and labels to
    images of the same shape.

    Any H and W: edges are repeated up to a multiple of `unshuffle` * 2 ** (levels - 1), and cropped
    at the exit.

    - `channels`: one number a level; level i works at 1 / (unshuffle * 2 ** i) of the image's side
    - `blocks`: residual blocks a level on the way down (one more on the way up)
    - `attention_levels`: levels with attention after each block; `middle_attention`: attention at
      the bottom
    - `embedding`: "scale_shift" or "add", see `ResidualBlock`
    - `classes`: 0, or labels (n,) are 0 .. classes - 1, and `classes` is the null class, used where
      label is None
    - `conditions`: 0, or labels are that many numbers an image, (n, conditions); a row of NaN, or
      None, is the null condition
    - `spins`: of these numbers, which are then also drawn over the image, see `Planes`; none by
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
        self.classes = classes
        self.conditions = conditions
        self.multiple = unshuffle * 2 ** (len(channels) - 1)
        width = 4 * channels[0]
        self.noise = NoiseEmbedding(width)
        self.label = label_embedding(classes, conditions, width)
        folded = image_channels * unshuffle**2
        self.planes = planes_of(tuple(spins), conditions)
        self.stem = nn.Conv2d(
            folded + (1 + len(spins)) * unshuffle**2 if spins else folded, channels[0], 3, padding=1
        )

        def residual(c_in: int, c_out: int) -> ResidualBlock:
            return ResidualBlock(c_in, c_out, width, embedding, dropout)

        def block(c_in: int, c_out: int, level: int) -> nn.ModuleList:
            attention = Attention(c_out) if level in attention_levels else nn.Identity()
            return nn.ModuleList([residual(c_in, c_out), attention])

        bottom = channels[-1]
        self.down, skips = self._descend(channels, blocks, block)
        self.up = nn.ModuleList()
        attend = Attention if middle_attention else nn.Identity
        self.middle = nn.ModuleList(
            [residual(bottom, bottom), attend(bottom), residual(bottom, bottom)]
        )
        self.up.extend(self._ascend(channels, blocks, block, skips))
        self.exit = nn.Sequential(
            norm(channels[0]), nn.SiLU(), zero(nn.Conv2d(channels[0], folded, 3, padding=1))
        )

    @staticmethod
    def _descend(
        channels: tuple[int, ...], blocks: int, block: Callable[..., nn.Module]
    ) -> tuple[nn.ModuleList, list[int]]:
        """The way down, and the channels of each feature map that is kept for the way up."""
        down = nn.ModuleList()
        skips = [channels[0]]
        c = channels[0]
        for level, c_out in enumerate(channels):
            for _ in range(blocks):
                down.append(block(c, c_out, level))
                c = c_out
                skips.append(c)
            if level < len(channels) - 1:
                down.append(nn.ModuleList([nn.Conv2d(c, c, 3, stride=2, padding=1)]))
                skips.append(c)
        return down, skips

    @staticmethod
    def _ascend(
        channels: tuple[int, ...], blocks: int, block: Callable[..., nn.Module], skips: list[int]
    ) -> list[nn.Module]:
        """The way up: each block takes in the last feature map that is left of the way down."""
        up = []
        c = channels[-1]
        for level, c_out in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                up.append(block(c + skips.pop(), c_out, level))
                c = c_out
            if level:
                up.append(nn.ModuleList([Upsample(c)]))
        return up

    def embed(self, noise: Tensor, label: Tensor | None) -> Tensor:
        """Embedding (n, width) of the noise level and, in a conditional network, of the label."""
        embedding = self.noise(noise)
        if self.label is None:
            if label is not None:
                raise ParameterError(
                    "This network has no classes (classes=0) and no conditions: call it without "
                    "labels."
                )
            return embedding
        if label is None:
            label = self.null(len(noise), noise.device)
        return embedding + self.label(label)

    def null(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The labels of `n` images of which nothing is asked: the null class (n,), or rows of
        NaN (n, conditions).
        """
        if self.conditions:
            return torch.full((n, self.conditions), torch.nan, device=device)
        return torch.full((n,), self.classes, device=device)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        if self.planes is not None:
            x = torch.cat(
                [
                    x,
                    self.planes(
                        self.null(len(x), x.device) if label is None else label, height, width
                    ),
                ],
                1,
            )
        pad = -height % self.multiple, -width % self.multiple
        if any(pad):
            x = F.pad(
                x,
                (pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2),
                mode="replicate",
            )
        e = self.embed(noise, label)
        h = self.stem(F.pixel_unshuffle(x, self.unshuffle))
        skips = [h]
        for layers in self.down:
            h = layers[1](layers[0](h, e)) if len(layers) == 2 else layers[0](h)
            skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, e)), e)
        for layers in self.up:
            h = (
                layers[1](layers[0](torch.cat([h, skips.pop()], 1), e))
                if len(layers) == 2
                else layers[0](h)
            )
        h = F.pixel_shuffle(self.exit(h), self.unshuffle)
        return h[..., pad[0] // 2 : pad[0] // 2 + height, pad[1] // 2 : pad[1] // 2 + width]

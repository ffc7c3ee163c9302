"""Transformers over patches: a DiT, and as its variant a plain ViT that predicts x0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ParameterError
from .embeddings import Conditional, padded, zero

POSITIONS = ("rope", "learnt")


def rope_angles(rows: int, columns: int, width: int, base: float = 100.0) -> Tensor:
    """Angles (rows * columns, width / 2) by which pairs of a head's numbers turn at each place.

    The first half of the pairs turn with the row, the others with the column, at frequencies from 1
    down to almost 1 / base (Su et al. 2021, section 3.4.2, along two axes).
    """
    frequencies = base ** (-torch.arange(width // 4) / (width / 4))
    y = torch.arange(rows)[:, None, None] * frequencies
    x = torch.arange(columns)[None, :, None] * frequencies
    both = torch.cat([y.expand(-1, columns, -1), x.expand(rows, -1, -1)], -1)
    return both.reshape(rows * columns, width // 2)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys (..., places, width), each pair turned by its angle (places, width / 2)."""
    a, b = x.chunk(2, -1)
    c = angles.cos().to(x.dtype)
    s = angles.sin().to(x.dtype)
    return torch.cat([a * c - b * s, a * s + b * c], -1)


class SelfAttention(nn.Module):
    """Self-attention over places (n, places, width), with normalised queries and keys.

    Vaswani et al. 2017, eq. 1; the norm of queries and keys keeps the logits small (Dehghani et al.
    2023, section 2).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = nn.RMSNorm(width // heads)
        self.norm_k = nn.RMSNorm(width // heads)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (n, heads, places, width / heads)."""
        n, places, width = x.shape
        qkv = self.qkv(x).view(n, places, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q = self.norm_q(q.float())
        k = self.norm_k(k.float())
        if angles is not None:
            q = rotated(q, angles)
            k = rotated(k, angles)
        return q.to(v.dtype), k.to(v.dtype), v

    def forward(self, x: Tensor, angles: Tensor | None = None) -> Tensor:
        h = F.scaled_dot_product_attention(*self.split(x, angles))
        return self.out(h.transpose(1, 2).flatten(2))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Places (n, places, width), scaled and shifted by what the noise level says, (n, width)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and a perceptron, each scaled, shifted and gated by the embedding: adaLN-Zero.

    Peebles & Xie 2023, section 3.2. The gates begin at 0, so that the block begins as the identity.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        hidden = nn.Linear(width, 4 * width)
        self.perceptron = nn.Sequential(hidden, nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = zero(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, embedding: Tensor, angles: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding).chunk(6, 1)
        h = self.attention(modulated(self.norm1(x), shift1, scale1), angles)
        x = x + gate1[:, None] * h
        h = self.perceptron(modulated(self.norm2(x), shift2, scale2))
        return x + gate2[:, None] * h


class DiT(Conditional):
    """Noisy images (n, C, H, W), ln(sigma) / 4 (n,) and labels to images of the same shape.

    Peebles & Xie 2023. Any H and W: edges are repeated up to a multiple of `patch`, and cropped at
    the exit. With large patches, a `bottleneck` and the prediction "x0" it is the plain transformer
    on pixels of Li & He 2025.

    - `patch`: side of a patch, in pixels; `width`, `depth`, `heads`: of the transformer
    - `positions`: "rope", where attention sees how far two places are apart, or "learnt", a table
      of `grid` x `grid` places that is interpolated to others
    - `bottleneck`: 0, or a patch passes so few numbers before it becomes `width`
    - `classes`, `conditions`: as of `UNet`
    """

    def __init__(
        self,
        patch: int = 4,
        width: int = 192,
        depth: int = 6,
        heads: int = 4,
        positions: str = "rope",
        grid: int = 16,
        bottleneck: int = 0,
        classes: int = 0,
        conditions: int = 0,
        image_channels: int = 1,
    ):
        super().__init__()
        if min(patch, width, depth, heads, grid, image_channels) < 1 or bottleneck < 0:
            most = "patch, width, depth, heads, grid and image_channels must be positive"
            raise ParameterError(f"{most}, and bottleneck not negative.")
        if positions not in POSITIONS:
            raise ParameterError(f"positions must be one of {POSITIONS}, not {positions!r}.")
        if width % (4 * heads):
            raise ParameterError(
                f"width must be a multiple of 4 * heads, {4 * heads}; got {width}."
            )
        self.image_channels = image_channels
        self.patch = patch
        self.head_width = width // heads
        pixels = image_channels * patch**2
        narrow = [nn.Linear(pixels, bottleneck, bias=False)] if bottleneck else []
        self.stem = nn.Sequential(*narrow, nn.Linear(bottleneck or pixels, width))
        self.make_embeddings(width, classes, conditions)
        learnt = positions == "learnt"
        self.places = nn.Parameter(0.02 * torch.randn(1, width, grid, grid)) if learnt else None
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.exit = zero(nn.Linear(width, pixels))

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        top, left, x = padded(x, self.patch)
        embedding = F.silu(self.embed(noise, label))
        folded = F.pixel_unshuffle(x, self.patch)  # (n, pixels of a patch, rows, columns)
        rows, columns = folded.shape[-2:]
        h = self.stem(folded.flatten(2).transpose(1, 2))
        angles = None
        if self.places is None:
            angles = rope_angles(rows, columns, self.head_width).to(x.device)
        else:
            h = h + F.interpolate(self.places, (rows, columns), mode="bilinear").flatten(2).mT
        for block in self.blocks:
            h = block(h, embedding, angles)
        shift, scale = self.modulation(embedding).chunk(2, 1)
        h = self.exit(modulated(self.norm(h), shift, scale))
        h = F.pixel_shuffle(h.mT.unflatten(2, (rows, columns)), self.patch)
        return h[..., top : top + height, left : left + width]

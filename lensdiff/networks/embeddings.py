"""How a network learns the noise level and its condition: sinusoids, vectors, and planes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ParameterError


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all weights set to zero, so that a residual branch begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class NoiseEmbedding(nn.Module):
    """ln(sigma) / 4 through 32 sinusoids, then two linear layers: (n,) to (n, width).

    Their frequencies run geometrically from 1 to 1000 (Vaswani et al. 2017, section 3.5).
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, 3, 32), persistent=False)
        self.layers = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))

    def sinusoids(self, noise: Tensor) -> Tensor:
        """(n,) to (n, 64), float32."""
        phase = noise.float()[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], 1)

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(self.sinusoids(noise))


class VectorEmbedding(nn.Module):
    """Numbers (n, count) through two linear layers to (n, width).

    A learnt vector stands for the null condition, a row of NaN. The last layer is zero-initialised,
    so that a trained unconditional network can go on with conditions.
    """

    def __init__(self, count: int, width: int):
        super().__init__()
        self.count = count
        first = nn.Linear(count, width)
        self.layers = nn.Sequential(first, nn.SiLU(), zero(nn.Linear(width, width)))
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        fits = values.ndim == 2 and values.shape[1] == self.count
        if not fits or not values.is_floating_point():
            got = f"{values.dtype}, {tuple(values.shape)}"
            raise ParameterError(
                f"This network is conditioned on {self.count} numbers an image; got {got}."
            )
        none = values.isnan().any(1, keepdim=True)
        return torch.where(none, self.null, self.layers(values.nan_to_num().float()))


class Planes(nn.Module):
    """Numbers (n, count) as images of the size of the input: (n, 1 + len(spins), H, W).

    The first plane is the distance from the centre in half sides. Convolutions don't know where
    they are, and an embedding is the same at every place; a plane says at each place what a
    direction means there. A number of spin 0 fills its plane. A pair (a, b) of spin s, which turns
    s times as fast as its image, gives a cos(s phi) + b sin(s phi) at azimuth phi. The null
    condition, a row with NaN, gives zeros but for the first plane.
    """

    def __init__(self, spins: tuple[int, ...]):
        super().__init__()
        self.spins = spins
        self.count = sum(2 if spin else 1 for spin in spins)

    def forward(self, values: Tensor, height: int, width: int) -> Tensor:
        y = self._axis(height, values.device)[:, None]
        x = self._axis(width, values.device)[None, :]
        azimuth = torch.atan2(y, x)
        planes = [torch.hypot(x, y).expand(len(values), -1, -1)]
        none = values.isnan().any(1, keepdim=True)
        numbers = values.masked_fill(none, 0).float()[:, :, None, None]
        column = 0
        for spin in self.spins:
            if spin:
                cosine = numbers[:, column] * (spin * azimuth).cos()
                sine = numbers[:, column + 1] * (spin * azimuth).sin()
                planes.append(cosine + sine)
            else:
                planes.append(numbers[:, column].expand(-1, height, width))
            column += 2 if spin else 1
        return torch.stack(planes, 1)

    @staticmethod
    def _axis(side: int, device: torch.device) -> Tensor:
        """Places of the pixels along a side, from about -1 to 1."""
        return (torch.arange(side, device=device) - (side - 1) / 2) / (side / 2)


def label_embedding(classes: int, conditions: int, width: int) -> nn.Module | None:
    """Labels to (n, width): a table with one row more for the null class, or layers for numbers.

    None without labels. Raises ParameterError for both at once.
    """
    if classes and conditions:
        raise ParameterError("A network is conditioned on classes or on numbers, not on both.")
    if conditions:
        return VectorEmbedding(conditions, width)
    return nn.Embedding(classes + 1, width) if classes else None


def label_planes(spins: tuple[int, ...], conditions: int) -> Planes | None:
    """Planes of the numbers with these spins, or None without spins.

    Raises ParameterError where spins and numbers don't match.
    """
    if not spins:
        return None
    planes = Planes(spins)
    if planes.count != conditions:
        count = f"The spins {spins} are those of {planes.count} numbers"
        raise ParameterError(f"{count}, but conditions={conditions}.")
    return planes


class Conditional(nn.Module):
    """What every network of a denoiser has: it embeds the noise level and, if it has one, a label.

    - `classes`: 0, or labels (n,) are 0 .. classes - 1, and `classes` is the null class
    - `conditions`: 0, or labels are that many numbers an image; a row of NaN is the null condition
    """

    classes: int
    conditions: int

    def make_embeddings(self, width: int, classes: int, conditions: int) -> None:
        """The layers of `embed`. Raises ParameterError for classes and conditions at once."""
        self.classes = classes
        self.conditions = conditions
        self.noise = NoiseEmbedding(width)
        self.label = label_embedding(classes, conditions, width)

    def embed(self, noise: Tensor, label: Tensor | None) -> Tensor:
        """Embedding (n, width) of the noise level and, in a conditional network, of the label."""
        embedding = self.noise(noise)
        if self.label is None:
            if label is not None:
                reason = "This network has no classes (classes=0) and no conditions"
                raise ParameterError(f"{reason}: call it without labels.")
            return embedding
        if label is None:
            label = self.null(len(noise), noise.device)
        return embedding + self.label(label)

    def null(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Labels of `n` unconditional images: the null class, (n,), or NaN, (n, conditions)."""
        if self.conditions:
            return torch.full((n, self.conditions), torch.nan, device=device)
        return torch.full((n,), self.classes, device=device)


def padded(x: Tensor, multiple: int) -> tuple[int, int, Tensor]:
    """(rows added above, columns added at the left, x with its edges repeated to a multiple)."""
    rows = -x.shape[-2] % multiple
    columns = -x.shape[-1] % multiple
    top = rows // 2
    left = columns // 2
    if rows or columns:
        x = F.pad(x, (left, columns - left, top, rows - top), mode="replicate")
    return top, left, x

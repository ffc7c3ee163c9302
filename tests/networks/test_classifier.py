"""The lens classifier: its view, its heads, its answers, and its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys_classifier import small_classifier, squares

from lensdiff.errors import CheckpointError, DataError
from lensdiff.lensing.population import KINDS
from lensdiff.networks.classifier import (
    AttentionHead,
    LensClassifier,
    PlainHead,
    load,
    predict,
    read,
    save,
)
from lensdiff.storage import shipped

# ---- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["attention", "plain"])
def test_a_classifier_answers_with_logits_and_features(head: str) -> None:
    model = small_classifier(head=head).eval()
    images = torch.rand(3, 1, 50, 50)
    assert model(images).shape == (3, 3)
    features = model.features(images)
    assert features.shape == (3, model.head.width)
    torch.testing.assert_close(model.head.last(features), model(images))
    with pytest.raises(DataError, match="takes"):
        model(torch.rand(3, 2, 50, 50))


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    head = AttentionHead(16, 3, widths=(32, 24, 16)).eval()
    x = torch.randn(2, 16, 3, 3)
    oracle = nn.MultiheadAttention(32, 4, batch_first=True)
    weights = {
        "in_proj_weight": head.qkv.weight,
        "in_proj_bias": head.qkv.bias,
        "out_proj.weight": head.out.weight,
        "out_proj.bias": head.out.bias,
    }
    oracle.load_state_dict(weights)
    tokens = head.token(x.flatten(2).transpose(1, 2))
    normed = head.norm(tokens)
    mixed, _ = oracle(normed, normed, normed, need_weights=False)
    torch.testing.assert_close(head.features(x), head.blocks((tokens + mixed).mean(1)))


def test_the_published_head_has_its_three_blocks() -> None:
    blocks = AttentionHead(16, 3).blocks
    layers = ["Linear", "PReLU", "BatchNorm1d", "Dropout"]
    assert [[type(layer).__name__ for layer in block] for block in blocks] == [layers] * 3
    assert PlainHead(16, 3).width == 16


def test_a_crop_keeps_pixels_and_a_margin_is_black() -> None:
    model = small_classifier(view="crop")
    large = torch.rand(2, 1, 44, 44, generator=torch.Generator().manual_seed(0))
    cut = ((large[..., 2:42, 2:42] - 0.498) / 0.502).expand(-1, 3, -1, -1)
    torch.testing.assert_close(model.prepare(large), cut)
    wide = model.prepare(large[..., :30, :30])
    torch.testing.assert_close(wide[:, 0, 5:35, 5:35], (large[:, 0, :30, :30] - 0.498) / 0.502)
    margin = wide.clone()
    margin[..., 5:35, 5:35] = -0.498 / 0.502
    torch.testing.assert_close(margin, torch.full_like(margin, -0.498 / 0.502))
    seen = small_classifier(view="resize").prepare(torch.rand(2, 1, 64, 64))
    assert seen.shape == (2, 3, 40, 40) and -1 <= seen.min() < seen.max() <= 1.01


@pytest.mark.parametrize(
    "wrong", [{"head": "deep"}, {"view": "zoom"}, {"size": 16}, {"classes": ("one",)}]
)
def test_arguments_that_make_no_classifier(wrong: dict) -> None:
    with pytest.raises(DataError, match="head must be one of"):
        LensClassifier(**wrong)


def test_answers_do_not_depend_on_the_batch_or_the_mode() -> None:
    model = small_classifier().train()
    images = squares(7)
    whole = predict(model, images)
    np.testing.assert_allclose(predict(model, images, batch=2), whole, atol=1e-4)
    np.testing.assert_allclose(predict(model, images, rows=[4, 1]), whole[[4, 1]], atol=1e-4)
    assert model.training
    assert predict(model, images, rows=[]).shape == (0, 3)
    assert predict(model, images, features=True).shape == (7, 128)
    assert predict(model, images, rows=[], features=True).shape == (0, 128)


def test_tensors_that_numpy_can_not_read_are_classified_too() -> None:
    """As those on a GPU."""
    model = small_classifier()
    images = torch.from_numpy(squares(5).pixels)
    expected = predict(model, images, rows=[3, 0])
    with pytest.raises(RuntimeError):
        np.asarray(images.clone().requires_grad_())
    found = predict(model, images.clone().requires_grad_(), rows=[3, 0])
    np.testing.assert_array_equal(found, expected)
    found = predict(model, images.double().numpy(), rows=[3, 0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
def test_tensors_on_cuda_are_classified() -> None:
    model = small_classifier()
    images = torch.from_numpy(squares(5).pixels)
    np.testing.assert_allclose(predict(model, images.cuda()), predict(model, images), atol=1e-3)


# ---- checkpoint ----------------------------------------------------------------------------------


def test_a_classifier_describes_itself(tmp_path: Path) -> None:
    model = small_classifier(head="plain", classes=("a", "b")).eval()
    folder = save(tmp_path / "model", model, note="mine")
    images = torch.rand(5, 1, 44, 44)
    again = load(folder, classes=("a", "b"))
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    np.testing.assert_allclose(predict(again, images), predict(model, images), atol=2e-2)
    weights, spec = read(folder)
    assert spec["note"] == "mine" and spec["arguments"] == model.arguments
    assert {one.dtype for one in weights.values()} == {torch.float32, torch.int64}


def test_what_is_no_such_classifier_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", small_classifier(head="plain", classes=("a", "b")))
    with pytest.raises(CheckpointError, match=r"knows \('a', 'b'\), not \('no_sub'"):
        load(folder, classes=KINDS)
    with pytest.raises(CheckpointError, match=r"lens64: this is a UNet, no classifier"):
        load(shipped("lens64"))
    (folder / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(folder)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model = small_classifier(head="plain")
    model.arguments["head"] = "attention"
    with pytest.raises(CheckpointError, match=r"model: its spec\.json and its weights don't agree"):
        load(save(tmp_path / "model", model))


# ---- what is shipped -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lensnet", "judge64"])
def test_a_shipped_classifier_is_that_of_its_report(name: str) -> None:
    folder = shipped(name)
    assert (folder / "weights.safetensors").stat().st_size < 15e6
    report = json.loads((folder / "report.json").read_text())
    assert report["weights_sha256"] == read(folder)[1]["sha256"]
    assert load(folder, classes=KINDS).classes == KINDS

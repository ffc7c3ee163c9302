"""The lens classifier: its networks, its training, its checkpoint, and what it refuses."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lensdiff import storage
from lensdiff.data import images, labels
from lensdiff.data.images import ImageSet
from lensdiff.errors import CheckpointError, DataError, TrainingError
from lensdiff.lensing.population import KINDS
from lensdiff.networks import backbones, classifier
from lensdiff.networks.classifier import (
    AttentionHead,
    LensClassifier,
    PlainHead,
    center_crop,
    load,
    predict,
    save,
)
from lensdiff.scores import classification, features, statistics
from lensdiff.storage import shipped
from lensdiff.training import classifier, recipes
from lensdiff.training.classifier import ClassifierConfig, fit_classifier, train_classifier

QUICK = ClassifierConfig(steps=6, frozen_steps=3, batch=6, lr=5e-4, warmup_steps=1, held_out_every=3, save_every=2)


def squares(n=60, side=40, seed=0):
    """Images whose class is the place of a bright square: easy, and not to be told by the mean."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    pixels = 0.2 * rng.random((n, 1, side, side), np.float32)
    for image, label in zip(pixels, labels, strict=True):
        image[0, 4 + 12 * label : 12 + 12 * label, 10:30] += 0.7
    return ImageSet("squares", pixels, "a" * 64, KINDS, labels)


def small(seed=0, **arguments):
    torch.manual_seed(seed)
    return LensClassifier(**{"size": 40, "pretrained": False, **arguments})


# ---- networks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["attention", "plain"])
def test_a_classifier_answers_with_logits_and_features(head):
    model, images = small(head=head).eval(), torch.rand(3, 1, 50, 50)
    assert model(images).shape == (3, 3)
    features = model.features(images)
    assert features.shape == (3, model.head.width)
    torch.testing.assert_close(model.head.last(features), model(images))
    with pytest.raises(DataError, match="takes"):
        model(torch.rand(3, 2, 50, 50))


def test_attention_is_torchs():
    torch.manual_seed(0)
    head, x = AttentionHead(16, 3, widths=(32, 24, 16)).eval(), torch.randn(2, 16, 3, 3)
    oracle = nn.MultiheadAttention(32, 4, batch_first=True)
    oracle.load_state_dict({
        "in_proj_weight": head.qkv.weight, "in_proj_bias": head.qkv.bias,
        "out_proj.weight": head.out.weight, "out_proj.bias": head.out.bias,
    })  # fmt: skip
    tokens = head.token(x.flatten(2).transpose(1, 2))
    mixed = oracle(*[head.norm(tokens)] * 3, need_weights=False)[0]
    torch.testing.assert_close(head.features(x), head.blocks((tokens + mixed).mean(1)))


def test_the_published_head_has_its_three_blocks():
    blocks = AttentionHead(16, 3).blocks
    assert [[type(layer).__name__ for layer in block] for block in blocks] == [["Linear", "PReLU", "BatchNorm1d", "Dropout"]] * 3
    assert PlainHead(16, 3).width == 16


def test_a_crop_keeps_pixels_and_a_margin_is_black():
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert torch.equal(center_crop(x, [4]), x[..., 1:5, 1:5])
    wide = center_crop(x, [9])
    assert wide.shape == (1, 1, 9, 9) and wide.sum() == x.sum()
    seen = small(view="resize").prepare(torch.rand(2, 1, 64, 64))
    assert seen.shape == (2, 3, 40, 40) and -1 <= seen.min() < seen.max() <= 1.01


def test_the_pretrained_backbone_is_the_packaged_one():
    model = LensClassifier(size=64)
    own, package = model.backbone.state_dict(), backbones.lite0().state_dict()
    assert all(torch.equal(tensor, package[name]) for name, tensor in own.items())
    assert not any(name.startswith("classifier") for name in own)


def test_any_timm_name_with_its_weights_in_a_file(tmp_path):
    import timm
    from safetensors.torch import save_file

    net = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    torch.save(net.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        model = small(backbone="mobilenetv3_small_050", weights=tmp_path / name, pretrained=True)
        assert torch.equal(model.backbone.conv_stem.weight, net.conv_stem.weight)
        assert model(torch.rand(2, 1, 40, 40)).shape == (2, 3)
    (tmp_path / "w.pth").write_bytes(b"no weights")
    for path in ("w.pth", "missing.pth"):
        with pytest.raises(CheckpointError, match=r"\.pth: pretrained weights can't be had .* package"):
            small(backbone="mobilenetv3_small_050", weights=tmp_path / path)
    with pytest.raises(DataError, match="timm knows no network 'efficientnet_b22'"):
        small(backbone="efficientnet_b22")


def test_a_backbone_without_a_map_is_refused():
    with pytest.raises(DataError, match=r"vit_tiny_patch16_224 gives .* convolutional"):
        small(backbone="vit_tiny_patch16_224", size=224)(torch.rand(1, 1, 224, 224))


def test_without_a_network_the_cure_is_named(monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(CheckpointError, match=r"efficientnet_b2: .*no route to host.* give `weights`"):
        backbones.pretrained_backbone("efficientnet_b2")


@pytest.mark.parametrize("wrong", [{"head": "deep"}, {"view": "zoom"}, {"size": 16}, {"classes": ("one",)}])
def test_arguments_that_make_no_classifier(wrong):
    with pytest.raises(DataError, match="head must be one of"):
        LensClassifier(**wrong)


# ---- training ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_what_can_be_learnt():
    model, images, fresh = small(pretrained=True), squares(120), squares(60, seed=9)
    steps = list(train_classifier(model, images, replace(QUICK, steps=50, frozen_steps=10, batch=24, lr=1e-3)))
    assert [step.frozen for step in steps] == [True] * 10 + [False] * 50
    assert classification.report(predict(model, fresh), fresh.labels, KINDS)["accuracy"] > 0.8


def test_the_first_stage_leaves_the_backbone_alone():
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = train_classifier(model, squares(), QUICK)
    for _ in range(3):
        next(steps)
    after = model.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"head"}
    next(steps)
    assert any(not torch.equal(after[name], before[name]) for name in after if name.startswith("backbone"))


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    whole = fit_classifier(small(), squares(), QUICK, tmp_path / "whole")

    def kill(step):
        if step.number == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_classifier(small(), squares(), QUICK, tmp_path / "again", state=tmp_path / "state", each=kill)
    again = fit_classifier(small(), squares(), QUICK, tmp_path / "again", state=tmp_path / "state")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    spec = json.loads((tmp_path / "again" / "spec.json").read_text())
    assert [row["update"] for row in spec["curve"]] == [3, 6, 9] and spec["images_seen"] == 54
    finished = fit_classifier(small(), squares(), QUICK, tmp_path / "again", state=tmp_path / "state")
    assert torch.equal(finished.head.last.weight, again.head.last.weight)
    with pytest.raises(CheckpointError, match="another run"):
        fit_classifier(small(), squares(), replace(QUICK, lr=1e-4), tmp_path / "other", state=tmp_path / "state")


def test_a_new_stage_goes_on_from_a_classifier_and_is_recorded(tmp_path):
    first = fit_classifier(small(), squares(), QUICK, tmp_path / "first")
    still = replace(QUICK, steps=1, frozen_steps=0, lr=1e-12, weight_decay=0.0)
    second = fit_classifier(small(seed=5), squares(), still, tmp_path / "second", start=tmp_path / "first")
    torch.testing.assert_close(second.head.last.weight, first.head.last.weight, rtol=0, atol=1e-3)
    stages, before = classifier.read(tmp_path / "second")[1]["stages"], classifier.read(tmp_path / "first")[1]
    assert [stage["images_seen"] for stage in stages] == [54]
    assert all(stages[0][name] == before[name] for name in ("sha256", "curve", "config"))
    with pytest.raises(CheckpointError, match="Take the same network"):
        fit_classifier(small(head="plain"), squares(), still, tmp_path / "third", start=tmp_path / "first")


def test_images_are_turned_by_the_given_elements_only():
    images = squares(6)
    x, labels = classifier.batch_of(images, np.arange(6), 0, replace(QUICK, elements=(2,)))
    for image, label in zip(x, labels, strict=True):
        same = [np.array_equal(image[0], np.rot90(images.pixels[row, 0], 2)) for row in range(6)]
        assert sum(same) == 1 and images.labels[same.index(True)] == label
    assert sorted(classifier.batch_of(images, np.arange(6), 5, QUICK)[1].tolist()) == [0, 0, 1, 1, 2, 2]  # an epoch has each image once


def test_bad_settings_are_refused():
    for wrong in ({"steps": 0}, {"batch": 1}, {"elements": (8,)}, {"elements": ()}):
        with pytest.raises(ValueError, match=r"steps must|elements are"):
            ClassifierConfig(**wrong)
    with pytest.raises(TrainingError, match=r"loss is .* at update"):
        list(train_classifier(small(), squares(), replace(QUICK, frozen_steps=0, lr=1e30, warmup_steps=0, clip=1e30)))


@pytest.mark.parametrize(("change", "message"), [
    ({"labels": None}, "has no labels"),
    ({"labels": np.arange(50) % 3}, "50 labels for 60 images"),
    ({"labels": np.arange(60) % 4}, "image 3 has the label 3"),
    ({"labels": np.arange(60) % 3 - 1}, "image 0 has the label -1"),
    ({"labels": np.arange(60) % 2}, "lacks a class: 30 no_sub, 30 cdm, 0 axion"),
    ({"labels": np.minimum(np.arange(60) % 6, 2)}, "unbalanced: 10 no_sub, 10 cdm, 40 axion"),
    ({"classes": ("cat", "dog", "bird")}, "has the classes .*cat.* the classifier"),
])  # fmt: skip
def test_labels_that_cannot_be_learnt_are_refused_before_any_step(change, message):
    with pytest.raises(DataError, match=message):
        next(train_classifier(small(), replace(squares(), **change), QUICK))


def test_an_unbalanced_set_can_be_balanced_or_taken_as_it_is():
    uneven = replace(squares(), labels=np.minimum(np.arange(60) % 6, 2))
    even = labels.balanced(uneven)
    assert np.bincount(even.labels).tolist() == [10, 10, 10] and len(even) == len(even.pixels) == 30
    labels.check_classes(even, KINDS)
    next(train_classifier(small(), uneven, QUICK, unbalanced=True))


# ---- checkpoint -------------------------------------------------------------------------------------------------------------


def test_a_classifier_describes_itself(tmp_path):
    model = small(head="plain", classes=("a", "b")).eval()
    folder, images = save(tmp_path / "model", model, note="mine"), torch.rand(5, 1, 44, 44)
    again = load(folder, classes=("a", "b"))
    np.testing.assert_allclose(predict(again, images), predict(model, images), atol=2e-2)
    assert classifier.read(folder)[1]["note"] == "mine"
    with pytest.raises(CheckpointError, match=r"knows \('a', 'b'\), not \('no_sub'"):
        load(folder, classes=KINDS)
    with pytest.raises(CheckpointError, match=r"lens64: this is a UNet, no classifier"):
        load(shipped("lens64"))
    (folder / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(folder)


def test_answers_do_not_depend_on_the_batch_or_the_mode():
    model, images = small().train(), squares(7)
    whole = predict(model, images)
    np.testing.assert_allclose(predict(model, images, batch=2), whole, atol=1e-4)
    np.testing.assert_allclose(predict(model, images, rows=[4, 1]), whole[[4, 1]], atol=1e-4)
    assert model.training
    assert predict(model, images, rows=[]).shape == (0, 3)
    assert predict(model, images, features=True).shape == (7, 128)


# ---- what is shipped --------------------------------------------------------------------------------------------------------


def test_the_shipped_classifier_is_what_its_report_says():
    recipe, folder = recipes.LENSNET, shipped("lensnet")
    assert (folder / "weights.safetensors").stat().st_size < 15e6
    spec, report = classifier.read(folder)[1], json.loads((folder / "report.json").read_text())
    assert report["weights_sha256"] == spec["sha256"]
    assert {k: spec["arguments"][k] for k in recipe.model} == recipe.model
    first = [*spec.get("stages", []), spec][0]
    assert first["images_seen"] == (recipe.train.steps + recipe.train.frozen_steps) * recipe.train.batch
    assert report["all"]["n"] == 7_500 and report["tenth"]["n"] == 750
    assert np.sum(report["all"]["confusion"]) == 7_500
    assert np.trace(report["all"]["confusion"]) / 7_500 == pytest.approx(report["all"]["accuracy"])
    low, high = report["all"]["interval"]
    assert low < report["all"]["accuracy"] < high
    net = features.extractor("lensnet")
    assert net.name == "FD-LensNet" and net.sha256 == spec["sha256"] and net.width == 128
    readme = (storage.root() / "README.md").read_text()
    for part in ("all", "tenth"):
        assert f"{100 * report[part]['accuracy']:.2f} %" in readme and f"{report[part]['macro_auc']:.4f}" in readme


@pytest.mark.slow
def test_the_shipped_classifier_is_right_as_often_as_it_says(tmp_path):
    report = json.loads((shipped("lensnet") / "report.json").read_text())["all"]
    fresh = images.simulated(recipes.LENSNET.survey, 240, seed=11, cache=tmp_path)  # a seed that it has never met
    right = int((predict(load(shipped("lensnet")), fresh).argmax(1) == fresh.labels).sum())
    low, high = classification.interval(right, 240, level=0.999)
    assert low < report["accuracy"] < high
    features = features.extractor("lensnet")(statistics.to_uint8(fresh.pixels[:6]))
    assert features.shape == (6, 128) and features.isfinite().all()


def test_the_stored_comparison_of_heads_is_whole():
    runs = json.loads((storage.root() / "data" / "comparisons" / "heads.json").read_text())
    assert {run["head"] for run in runs["heads"]} == {"attention", "plain"}
    assert all(run["train_images"] == 30_000 for run in runs["heads"])
    assert [run["train_images"] for run in runs["sizes"]] == sorted({run["train_images"] for run in runs["sizes"]})
    for run in (*runs["heads"], *runs["sizes"]):
        assert run["interval"][0] < run["accuracy"] < run["interval"][1] and 0.3 < run["accuracy"] < 1

"""A model as it is shipped: how it samples, its folder, and the ways to load it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from gaussian import normal
from torch import Tensor
from toys import small_unet

import lensdiff as ld
from lensdiff import model, runtime, storage
from lensdiff.data.images import Stretch
from lensdiff.diffusion.process import Denoiser, schedule
from lensdiff.diffusion.sampling import SAMPLERS, calls, karras_levels, log_levels, table_levels
from lensdiff.errors import CheckpointError, ParameterError, SamplingError
from lensdiff.model import Sampling
from lensdiff.networks.classifier import LensClassifier

ARGUMENTS = {"channels": (16, 32), "blocks": 1, "attention_levels": (1,), "classes": 3}
STRETCH = Stretch(0.1, 0.2)
SHIPPED = (
    *("classes64", "judge64", "lens150", "lens150-long", "lens64", "lens64-long"),
    *("lensnet", "parameters64"),
)


def small_denoiser(**changes: object) -> Denoiser:
    return Denoiser(small_unet(**{**ARGUMENTS, **changes}), "v", data_std=0.4)


def write(folder: Path, denoiser: Denoiser | None = None, **spec: object) -> Path:
    return model.save(folder, denoiser or small_denoiser(), ARGUMENTS, STRETCH, 16, **spec)


def change(folder: Path, **changes: object) -> None:
    """Other values in spec.json, where None removes a key.

    It is signed anew, so that what is checked after the hash is reached.
    """
    spec = {**json.loads((folder / "spec.json").read_text()), **changes}
    spec = {key: value for key, value in spec.items() if value is not None}
    spec["spec_sha256"] = storage._spec_sha256(spec)
    (folder / "spec.json").write_text(json.dumps(spec))


# ---- how it samples ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(steps=9, levels="karras", high=20.0, low=0.1), karras_levels(9, 20.0, 0.1)),
        (Sampling(steps=9, levels="log", high=20.0, low=0.1), log_levels(9, 20.0, 0.1)),
        (Sampling(steps=9, levels="cosine"), table_levels(schedule("cosine"), 9)),
        (Sampling(steps=9, levels="linear", T=300), table_levels(schedule("linear", 300), 9)),
        (
            Sampling(steps=9, levels="cosine", T=40, rescale=False),
            table_levels(schedule("cosine", 40, False), 9),
        ),
    ],
)
def test_sampling_makes_its_levels(sampling: Sampling, expected: Tensor) -> None:
    assert sampling.sigmas().tolist() == expected.tolist()


def test_unknown_levels_are_named() -> None:
    with pytest.raises(SamplingError, match=r"'karras'.*'polynomial'"):
        Sampling(levels="polynomial").sigmas()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_counts_its_calls_and_gives_eta_where_it_acts(sampler: str) -> None:
    sampling = Sampling(sampler, 6, eta=0.5)
    assert sampling.calls == calls(sampler, 6)
    assert sampling.options() == ({"eta": 0.5} if sampler == "ddim" else {})


def test_sampling_in_words_is_part_of_what_is_on_disk() -> None:
    words = "dpmpp_2m, 34 steps, log levels 40 to 0.002, clamped"
    assert str(Sampling()) == words
    ddpm = Sampling("ddim", 1000, "linear", eta=1.0, clamp=False)
    assert str(ddpm) == "ddim, eta 1, 1000 steps, linear levels"
    shorter = replace(ddpm, steps=50, T=200)
    assert str(shorter) == "ddim, eta 1, 50 steps, linear levels of T = 200, rescaled"
    unchanged = replace(shorter, rescale=False)
    assert str(unchanged) == "ddim, eta 1, 50 steps, linear levels of T = 200"


# ---- the way there and back ----------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    denoiser = small_denoiser()
    recipe = {"name": "r", "train": {"steps": 3}}
    spec = {"classes": ["a", "b", "c"], "images_seen": 1234, "recipe": recipe}
    folder = write(tmp_path / "deep" / "model", denoiser, **spec)
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "spec.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing is left beside it
    loaded = model.load(folder, device="cpu", precision="fp32")
    ours = denoiser.net.state_dict()
    theirs = loaded.denoiser.net.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(theirs[name], tensor.half().float()), name
        assert theirs[name].dtype == torch.float32
    assert loaded.stretch == STRETCH and loaded.shape == (1, 16, 16)
    assert loaded.denoiser.scaling.name == "v"
    assert loaded.denoiser.data_std == 0.4
    assert loaded.denoiser.precision == "fp32"
    assert not loaded.denoiser.training
    assert not any(p.requires_grad for p in loaded.denoiser.parameters())
    x = normal(2, 1, 16, 16)
    label = torch.tensor([0, 2])
    with torch.no_grad():
        expected = denoiser(x, 0.7, label)
        torch.testing.assert_close(loaded.denoiser(x, 0.7, label), expected, rtol=0, atol=5e-3)


def test_spec_has_all_that_is_needed(tmp_path: Path) -> None:
    spec = json.loads((write(tmp_path / "model", images_seen=7) / "spec.json").read_text())
    arguments = {**ARGUMENTS, "channels": [16, 32], "attention_levels": [1]}
    expected = {
        "format": "lensdiff-1",
        "network": {"name": "UNet", "arguments": arguments},
        "prediction": "v",
        "data_std": 0.4,
        "stretch": {"mean": 0.1, "std": 0.2},
        "image_size": 16,
        "images_seen": 7,
    }
    assert {key: value for key, value in spec.items() if not key.endswith("sha256")} == expected
    assert len(spec["sha256"]) == len(spec["spec_sha256"]) == 64


def test_a_loaded_model_generates_images(tmp_path: Path) -> None:
    sampling = Sampling("ddim", steps=3, eta=0.5)
    folder = write(tmp_path / "model", sampling=asdict(sampling))
    loaded = model.load(folder, device="cpu", precision="fp32")
    assert loaded.sampling == sampling and loaded.telescope is None
    label = torch.zeros(5, dtype=torch.long)
    batches = list(loaded.generate(range(5), label=label, batch=3))
    assert [batch.shape for batch in batches] == [(3, 1, 16, 16), (2, 1, 16, 16)]
    images = torch.cat(batches)
    assert 0 <= images.min() < images.max() <= 1


def test_best_precision_is_one_a_denoiser_takes() -> None:
    assert runtime.best_precision("cpu") in ("bf16", "fp32")
    assert runtime.best_device() == ("cuda" if torch.cuda.is_available() else "cpu")


# ---- by name or by path --------------------------------------------------------------------------


def test_a_shipped_model_is_loaded_by_its_name() -> None:
    by_name = ld.load("lens64", device="cpu")
    assert isinstance(by_name, ld.Model)
    assert by_name.folder == storage.shipped("lens64") and by_name.shape == (1, 64, 64)
    by_path = ld.load(storage.shipped("lens64"), device="cpu")
    assert by_path.spec == by_name.spec
    weights = by_path.denoiser.net.state_dict()
    for name, tensor in by_name.denoiser.net.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_a_classifier_is_loaded_in_the_same_way() -> None:
    found = ld.load("lensnet", device="cpu")
    assert isinstance(found, LensClassifier) and not found.training
    with torch.no_grad():
        assert found(torch.rand(2, 1, 64, 64)).shape == (2, 3)


def test_an_unknown_name_is_answered_with_those_that_are_shipped() -> None:
    with pytest.raises(CheckpointError, match="lens65: there is no such folder") as caught:
        model.load("lens65")
    for name in SHIPPED:
        assert name in str(caught.value)


def test_find_takes_a_folder_that_is_there_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {name: model.find(name) for name in SHIPPED} == {n: storage.shipped(n) for n in SHIPPED}
    assert model.find(Path("lens64")) == storage.shipped("lens64")
    write(tmp_path / "lens64")
    assert model.find("lens64") == Path("lens64")
    assert model.load("lens64", device="cpu").shape == (1, 16, 16)
    for path in ("runs/lens64", tmp_path / "elsewhere", "./lens65/model"):
        assert model.find(path) == Path(path)  # a path is taken as it is given
    with pytest.raises(CheckpointError, match="no shipped model"):
        model.find("lens65")


def test_what_is_shipped_lies_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "root", lambda: tmp_path)
    (tmp_path / "pyproject.toml").touch()
    write(tmp_path / "data" / "checkpoints" / "mine")
    assert model.find("mine") == tmp_path / "data" / "checkpoints" / "mine"
    with pytest.raises(CheckpointError, match=r"lens64: .* no shipped model \(mine\)"):
        model.find("lens64")


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "0" * 64},
        {"sha256": None},
        {"format": "lensdiff-0"},
        {"format": None},
        {"network": {"name": "ResNet", "arguments": {}}},
        {"network": {"name": "UNet", "arguments": {**ARGUMENTS, "channels": [16, 48]}}},
        {"network": {"name": "UNet", "arguments": {**ARGUMENTS, "depth": 3}}},
        {"network": {"name": "UNet", "arguments": {**ARGUMENTS, "embedding": "film"}}},
        {"network": None},
        {"network": "UNet"},
        {"prediction": "score"},
        {"stretch": {"mean": 0.1}},
        {"stretch": None},
        {"data_std": None},
    ],
)
def test_a_changed_spec_is_refused(tmp_path: Path, changes: dict) -> None:
    folder = write(tmp_path / "model")
    model.load(folder, device="cpu")
    change(folder, **changes)
    with pytest.raises(CheckpointError, match="model: "):
        model.load(folder)


def test_a_wrong_precision_is_no_damaged_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "model")
    assert model.load(folder, "cpu", "fp16").denoiser.precision == "fp16"
    with pytest.raises(ParameterError, match=r"^The precision is 'half'\. Set it to 'fp32'"):
        model.load(folder, "cpu", "half")
    monkeypatch.setenv("LENSDIFF_PRECISION", "fp8")
    with pytest.raises(ParameterError, match=r"^LENSDIFF_PRECISION is 'fp8'\. Set it to 'fp32'"):
        model.load(folder, "cpu")
    assert model.load(folder, "cpu", "bf16").denoiser.precision == "bf16"


def test_a_damaged_folder_is_refused_with_its_cure(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[200] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    damaged = r"model: weights.safetensors has SHA-256 .* another copy of the folder, or train"
    with pytest.raises(CheckpointError, match=damaged):
        model.load(folder)
    with pytest.raises(CheckpointError, match="elsewhere"):
        model.load(tmp_path / "elsewhere")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_are_not_finite_in_fp16_are_not_saved(tmp_path: Path, value: float) -> None:
    folder = write(tmp_path / "model")
    denoiser = small_denoiser()
    with torch.no_grad():
        denoiser.net.stem.weight[0, 0, 0, 0] = value
    before = (folder / "spec.json").read_bytes()
    with pytest.raises(CheckpointError, match="not saved"):
        write(folder, denoiser)
    assert (folder / "spec.json").read_bytes() == before

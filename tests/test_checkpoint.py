"""Checkpoints: what is written is what is read, and nothing else is."""
from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import small_unet
from torch import Tensor

from lensdiff import model, runtime, storage
from lensdiff.data.images import Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import CheckpointError
from lensdiff.model import Sampling

ARGUMENTS = {"channels": (16, 32), "blocks": 1, "attention_levels": (1,), "classes": 3}
STRETCH = Stretch(0.1, 0.2)
PACKAGE = Path(model.__file__).parent


def model(**changes: object) -> Denoiser:
    return Denoiser(small_unet(**{**ARGUMENTS, **changes}), "v", data_std=0.4)


def write(folder: Path, denoiser: Denoiser | None = None, **spec: object) -> Path:
    return model.save(folder, denoiser or model(), ARGUMENTS, STRETCH, 16, **spec)


def change(folder: Path, sign: bool = True, **changes: object) -> None:
    """Other values in spec.json, where None removes a key; signed anew, so that what is checked after the hash is reached."""
    spec = json.loads((folder / "spec.json").read_text())
    spec = {key: value for key, value in {**spec, **changes}.items() if value is not None}
    if sign:
        spec["spec_sha256"] = storage._spec_sha256(spec)
    (folder / "spec.json").write_text(json.dumps(spec))


# ---- the way there and back -------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    denoiser = model()
    spec = {"classes": ["a", "b", "c"], "images_seen": 1234, "recipe": {"name": "r", "train": {"steps": 3}}}
    folder = write(tmp_path / "deep" / "model", denoiser, **spec)
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "spec.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing is left beside it
    loaded = model.load(folder, device="cpu", precision="fp32")
    ours, theirs = denoiser.net.state_dict(), loaded.denoiser.net.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(theirs[name], tensor.half().float()), name
        assert theirs[name].dtype == torch.float32
    assert loaded.stretch == STRETCH
    assert loaded.denoiser.scaling.name == "v" and loaded.denoiser.data_std == 0.4 and loaded.denoiser.precision == "fp32"
    assert loaded.shape == (1, 16, 16)
    assert not loaded.denoiser.training and not any(p.requires_grad for p in loaded.denoiser.parameters())
    x, label = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    with torch.no_grad():
        torch.testing.assert_close(loaded.denoiser(x, 0.7, label), denoiser(x, 0.7, label), rtol=0, atol=5e-3)


def test_spec_says_all_that_is_needed(tmp_path: Path) -> None:
    spec = json.loads((write(tmp_path / "model", images_seen=7) / "spec.json").read_text())
    expected = {
        "format": "lensdiff-1",
        "network": {"name": "UNet", "arguments": {**ARGUMENTS, "channels": [16, 32], "attention_levels": [1]}},
        "prediction": "v",
        "data_std": 0.4,
        "stretch": {"mean": 0.1, "std": 0.2},
        "image_size": 16,
        "images_seen": 7,
    }
    assert {key: value for key, value in spec.items() if not key.endswith("sha256")} == expected
    assert len(spec["sha256"]) == len(spec["spec_sha256"]) == 64


def test_loaded_model_draws_images(tmp_path: Path) -> None:
    sampling = Sampling("ddim", steps=3, eta=0.5)
    loaded = model.load(write(tmp_path / "model", sampling=asdict(sampling)), device="cpu", precision="fp32")
    assert loaded.sampling == sampling
    batches = list(loaded.generate(range(5), label=torch.zeros(5, dtype=torch.long), batch=3))
    assert [batch.shape for batch in batches] == [(3, 1, 16, 16), (2, 1, 16, 16)]
    images = torch.cat(batches)
    assert 0 <= images.min() < images.max() <= 1


def test_best_precision_is_one_a_denoiser_takes() -> None:
    assert runtime.best_precision("cpu") in ("bf16", "fp32")
    assert runtime.best_device() == ("cuda" if torch.cuda.is_available() else "cpu")


# ---- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 8, 200, -1])
def test_a_flipped_byte_is_refused(tmp_path: Path, where: int) -> None:
    folder = write(tmp_path / "model")
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[where] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"model: weights.safetensors has SHA-256 .* another copy"):
        model.load(folder)


def test_weights_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first"), write(tmp_path / "second", model(embedding="add"))
    (second / "weights.safetensors").replace(first / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"first: weights.safetensors has SHA-256"):
        model.load(first)


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


@pytest.mark.parametrize("changes", [{"prediction": "eps"}, {"data_std": 0.7}, {"stretch": {"mean": 0.1, "std": 0.3}}])
def test_a_spec_that_was_edited_is_refused_by_its_hash(tmp_path: Path, changes: dict) -> None:
    folder = write(tmp_path / "model")
    change(folder, sign=False, **changes)
    with pytest.raises(CheckpointError, match=r"model: spec\.json was changed"):
        model.load(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"format": "diffusers"}'])
def test_a_foreign_spec_is_refused(tmp_path: Path, text: bytes) -> None:
    folder = write(tmp_path / "model")
    (folder / "spec.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"model: .*another copy"):
        model.load(folder)


@pytest.mark.parametrize("missing", ["spec.json", "weights.safetensors", ""])
def test_missing_files_are_named(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path / "model")
    if missing:
        (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing or "elsewhere"):
        model.load(folder if missing else tmp_path / "elsewhere")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_are_not_finite_in_fp16_are_not_saved(tmp_path: Path, value: float) -> None:
    folder, denoiser = write(tmp_path / "model"), model()
    with torch.no_grad():
        denoiser.net.stem.weight[0, 0, 0, 0] = value
    before = (folder / "spec.json").read_bytes()
    with pytest.raises(CheckpointError, match="not saved"):
        write(folder, denoiser)
    assert (folder / "spec.json").read_bytes() == before


# ---- whole or not at all ----------------------------------------------------------------------------------------------------


def first_weight(folder: Path) -> Tensor:
    return model.load(folder, device="cpu").denoiser.net.stem.weight


def other_model() -> Denoiser:
    denoiser = model()
    with torch.no_grad():
        denoiser.net.stem.weight.zero_()
    return denoiser


@pytest.mark.parametrize("moment", ["weights", "spec", "rename"])
def test_a_save_that_fails_leaves_the_earlier_checkpoint(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", images_seen=1)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        if moment == "weights":
            patch.setattr(checkpoint, "save_file", fail)
        elif moment == "spec":
            patch.setattr(Path, "write_text", fail)
        else:
            rename = Path.rename
            patch.setattr(Path, "rename", lambda self, to: fail() if self.name.endswith(".part") else rename(self, to))
        with pytest.raises(OSError, match="no space"):
            write(folder, other_model(), images_seen=2)
    assert model.load(folder, device="cpu").spec["images_seen"] == 1
    assert (first_weight(folder) != 0).any()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    write(folder, other_model(), images_seen=2)
    assert model.load(folder, device="cpu").spec["images_seen"] == 2
    assert (first_weight(folder) == 0).all()


def test_a_kill_between_the_two_renames_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", images_seen=1)
    folder.rename(tmp_path / "model.4242.old")  # what the killed save had done, and its new version beside it
    write(tmp_path / "other", other_model()).rename(tmp_path / "model.4242.part")
    assert model.load(folder, device="cpu").spec["images_seen"] == 1
    write(folder, images_seen=2)
    assert model.load(folder, device="cpu").spec["images_seen"] == 2
    assert not list(tmp_path.glob("*.old"))


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "model").rename(tmp_path / "model.4242.part")
    with pytest.raises(CheckpointError, match="model: can't be read"):
        model.load(tmp_path / "model")


# ---- nothing is unpickled ---------------------------------------------------------------------------------------------------


class _Trap:
    """Its pickle calls open(path, "w")."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    torch.save({"stem.weight": _Trap(tmp_path / "sprung")}, folder / "weights.safetensors")
    change(folder, sha256=hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match="model: can't be read"):
        model.load(folder)
    assert not (tmp_path / "sprung").exists()


def test_nothing_is_unpickled_freely() -> None:
    """torch.load only with weights_only=True, numpy never with pickles, and pickle through an Unpickler of our own alone."""
    found = {"torch.load": 0, "np.load": 0}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name, where = ast.unparse(node.func), f"{path.name}:{node.lineno}"
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert name not in ("pickle.load", "pickle.loads", "joblib.load", "eval", "exec", "torch.hub.load"), where
            assert not (name == "pickle.Unpickler"), where
            found[name] = found.get(name, 0) + 1
            if name == "torch.load":
                assert given.get("weights_only") == "True", where
            if name.endswith(("np.load", "numpy.load", "format.read_array")):
                assert given.get("allow_pickle", "False") == "False", where
    assert found["np.load"] > 0  # the walk saw the package

"""Hashed folders: whole or not at all, nothing foreign is read, and nothing is unpickled."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lensdiff import storage
from lensdiff.errors import CheckpointError, StorageError

CURE = "Take another copy."
PACKAGE = Path(storage.__file__).parents[1]


def write(folder: Path, value: float = 1.0, **spec: object) -> Path:
    """A folder of two tensors and a description."""
    tensors = {"weight": torch.full((3, 2), value), "count": torch.tensor(4)}
    about = {"format": storage.FORMAT, **spec}
    storage.write_folder(folder, tensors, "weights.safetensors", "spec.json", about)
    return folder


def read(folder: Path) -> tuple[dict[str, Tensor], dict]:
    return storage.read_folder(folder, "weights.safetensors", "spec.json", CURE)


def change(folder: Path, sign: bool = True, **changes: object) -> None:
    """Other values in spec.json, where None removes a key."""
    spec = {**json.loads((folder / "spec.json").read_text()), **changes}
    spec = {key: value for key, value in spec.items() if value is not None}
    if sign:
        spec["spec_sha256"] = storage._spec_sha256(spec)
    (folder / "spec.json").write_text(json.dumps(spec))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    columns = torch.arange(6.0).view(2, 3).t().requires_grad_()  # neither contiguous nor a leaf
    folder = tmp_path / "deep" / "folder"
    about = {"format": storage.FORMAT, "note": "ä"}
    storage.write_folder(folder, {"a": columns}, "weights.safetensors", "spec.json", about)
    tensors, spec = read(folder)
    assert torch.equal(tensors["a"], columns.detach())
    assert spec["note"] == "ä"
    assert spec["sha256"] == storage.sha256_of_file(folder / "weights.safetensors")
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    modes = {path.name: path.stat().st_mode & 0o444 for path in folder.iterdir()}
    assert modes == {"weights.safetensors": 0o444, "spec.json": 0o444}  # readable by others too


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 8, 100, -1])
def test_a_flipped_byte_is_refused(tmp_path: Path, where: int) -> None:
    folder = write(tmp_path / "model")
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[where] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"model: weights.safetensors has SHA-256 .* another"):
        read(folder)


def test_weights_of_another_folder_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "first")
    second = write(tmp_path / "second", 2.0)
    (second / "weights.safetensors").replace(first / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"first: weights.safetensors has SHA-256"):
        read(first)


@pytest.mark.parametrize("changes", [{"prediction": "eps"}, {"std": 0.3}, {"std": None}])
def test_a_spec_that_was_edited_is_refused_by_its_hash(tmp_path: Path, changes: dict) -> None:
    folder = write(tmp_path / "model", prediction="v", std=0.2)
    change(folder, sign=False, **changes)
    with pytest.raises(CheckpointError, match=r"model: spec\.json was changed"):
        read(folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"format": "diffusers"}']
)
def test_a_foreign_spec_is_refused(tmp_path: Path, text: bytes) -> None:
    folder = write(tmp_path / "model")
    (folder / "spec.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"model: .*another copy"):
        read(folder)


@pytest.mark.parametrize("missing", ["spec.json", "weights.safetensors", ""])
def test_missing_files_are_named(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path / "model")
    if missing:
        (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing or "elsewhere"):
        read(folder if missing else tmp_path / "elsewhere")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_half_precision_refuses_what_is_not_finite_in_fp16(tmp_path: Path, value: float) -> None:
    layer = nn.BatchNorm1d(3)
    weights = storage.half_precision(tmp_path, layer)
    assert weights["weight"].dtype == torch.float16
    assert weights["num_batches_tracked"].dtype == torch.int64  # whole numbers stay as they are
    with torch.no_grad():
        layer.weight[1] = value
    with pytest.raises(CheckpointError, match=r"not saved, since the weights hold NaN"):
        storage.half_precision(tmp_path, layer)


# ---- whole or not at all -------------------------------------------------------------------------


def fail(*_: object, **__: object) -> None:
    raise OSError("no space left on device")


def fail_at(moment: str, patch: pytest.MonkeyPatch) -> None:
    """Let a save fail as it writes the weights or the spec, or as it renames the new folder."""
    rename = Path.rename

    def rename_or_fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            fail()
        return rename(self, target)

    if moment == "weights":
        patch.setattr(storage, "save_file", fail)
    elif moment == "spec":
        patch.setattr(Path, "write_text", fail)
    else:
        patch.setattr(Path, "rename", rename_or_fail)


@pytest.mark.parametrize("moment", ["weights", "spec", "rename"])
def test_a_save_that_fails_leaves_the_earlier_folder(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "model", images_seen=1)
    with monkeypatch.context() as patch:
        fail_at(moment, patch)
        with pytest.raises(StorageError, match=r"model: can.t be written .*no space"):
            write(folder, 0.0, images_seen=2)
    tensors, spec = read(folder)
    assert spec["images_seen"] == 1 and (tensors["weight"] == 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    tensors, spec = read(write(folder, 0.0, images_seen=2))
    assert spec["images_seen"] == 2 and (tensors["weight"] == 0).all()


def test_a_kill_between_the_two_renames_leaves_the_earlier_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", images_seen=1)
    # what the killed save had done, and its new version beside it
    folder.rename(tmp_path / "model.4242.old")
    write(tmp_path / "other", 0.0).rename(tmp_path / "model.4242.part")
    assert read(folder)[1]["images_seen"] == 1
    write(folder, images_seen=2)
    assert read(folder)[1]["images_seen"] == 2
    assert not list(tmp_path.glob("*.old"))


def test_what_isset_aside_belongs_to_one_name_alone(tmp_path: Path) -> None:
    """A name may hold what a pattern of file names gives a meaning to."""
    write(tmp_path / "model[1].77.old", images_seen=1)
    write(tmp_path / "model1.77.old", images_seen=2)
    assert read(tmp_path / "model[1]")[1]["images_seen"] == 1
    write(tmp_path / "model[1]", images_seen=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model1.77.old", "model[1]"]


@pytest.mark.parametrize(
    "name", ["model.good.old", "model.v2.123-abcdef12.old", "model.12-abcdef1.old", "model..old"]
)
def test_folders_that_no_save_set_aside_are_left_alone(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    killed = tmp_path / f"model.{storage.own_name()}.old"
    write(tmp_path / "model").rename(killed)
    assert storage.set_aside(tmp_path / "model") == [killed]
    write(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["model", name])


def test_a_half_written_folder_is_none(tmp_path: Path) -> None:
    write(tmp_path / "model").rename(tmp_path / "model.4242.part")
    with pytest.raises(CheckpointError, match="model: can't be read"):
        read(tmp_path / "model")


# ---- nothing is unpickled ------------------------------------------------------------------------


class Trap:
    """Its pickle calls open(path, "w")."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    torch.save({"weight": Trap(tmp_path / "sprung")}, folder / "weights.safetensors")
    pickled = (folder / "weights.safetensors").read_bytes()
    change(folder, sha256=hashlib.sha256(pickled).hexdigest())
    with pytest.raises(CheckpointError, match="model: can't be read"):
        read(folder)
    assert not (tmp_path / "sprung").exists()


def calls_of(path: Path) -> list[tuple[str, dict[str, str], str]]:
    """(name, keyword arguments, place) of every call in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found.append((ast.unparse(node.func), given, f"{path.name}:{node.lineno}"))
    return found


def test_nothing_is_unpickled_freely() -> None:
    """torch.load only with weights_only=True, numpy never with pickles, and no pickle at all."""
    pickles = ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load")
    forbidden = {*pickles, "eval", "exec", "torch.hub.load"}
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for name, given, where in calls_of(path):
            names.add(name)
            assert name not in forbidden, where
            if name == "torch.load":
                assert given.get("weights_only") == "True", where
            if name.endswith(("np.load", "numpy.load", "format.read_array")):
                assert given.get("allow_pickle", "False") == "False", where
    assert {"np.load", "torch.load"} <= names  # the walk saw the package


# ---- what may be replaced ------------------------------------------------------------------------


def test_what_a_file_manager_leaves_in_an_empty_folder_does_not_count(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    (place / ".DS_Store").touch()
    storage.check_free(place, "spec.json")
    (place / "notes.txt").touch()
    with pytest.raises(StorageError, match="holds other things"):
        storage.check_free(place, "spec.json")


@pytest.mark.parametrize("spec", ['{"openapi": 3}', "[1]", "no json", '{"format": "other"}'])
def test_a_foreign_description_keeps_its_folder(tmp_path: Path, spec: str) -> None:
    (tmp_path / "spec.json").write_text(spec)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds other things"):
        write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_working_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for folder in (Path("."), Path("..")):
        with pytest.raises(StorageError, match="working folder can't be replaced"):
            storage.check_free(folder, "spec.json")


def test_numbers_as_keys_become_text(tmp_path: Path) -> None:
    _, spec = read(write(tmp_path / "a", scores={2: 1.0, 10: 2.0}))
    assert spec["scores"] == {"2": 1.0, "10": 2.0}


def test_a_linked_folder_stays_a_link(tmp_path: Path) -> None:
    real = write(tmp_path / "scratch" / "model")
    link = tmp_path / "model"
    link.symlink_to(real)
    write(link, value=2.0)
    assert link.is_symlink() and float(read(real)[0]["weight"][0, 0]) == 2.0
    assert [path.name for path in tmp_path.iterdir() if ".old" in path.name] == []
    assert [path.name for path in real.parent.iterdir()] == ["model"]

"""Shipped models without the repository: fetched by hash, once, or a sentence that says how."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensdiff import model, storage
from lensdiff.errors import CheckpointError
from lensdiff.networks import latent
from lensdiff.storage import checkpoints

HERE = storage.root() / "data" / "checkpoints"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As from a wheel: no working copy, an empty cache, and a mirror on this disk."""
    for room in (storage, checkpoints):
        monkeypatch.setattr(room, "is_working_copy", lambda: False)
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(checkpoints.MIRROR, HERE.as_uri())
    return tmp_path / "cache"


def test_the_manifest_says_what_is_shipped() -> None:
    """`python -m lensdiff study gallery` would change nothing."""
    assert checkpoints.manifest() == checkpoints.described(HERE)


def test_a_model_is_fetched_once(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = model.load("lens64", device="cpu")
    assert found.folder.parent.parent == installed and found.folder.name == "lens64"
    monkeypatch.setenv(checkpoints.MIRROR, "file:///no-such-place")
    assert model.load("lens64", device="cpu").spec == found.spec
    with pytest.raises(CheckpointError, match=r"no shipped model \(classes64, .*parameters64\)"):
        model.load("lens1000")


def test_a_latent_model_brings_its_autoencoder(installed: Path) -> None:
    found = model.load("latent-digits", device="cpu")
    assert found.autoencoder.folder == found.folder.parent / "digits-vq"
    assert latent.load("digits-kl", "cpu").folder.parent == found.folder.parent


def test_without_a_network_it_says_what_to_do(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(checkpoints.MIRROR, "file:///no-such-place/")
    with pytest.raises(CheckpointError) as error:
        model.load("lens64")
    words = str(error.value)
    place = installed / f"checkpoints-{checkpoints.metadata('lensdiff')['Version']}" / "lens64"
    assert words.startswith("lens64: it comes with no wheel and could not be fetched (")
    source = "file:///no-such-place/lens64/spec.json"
    assert f"Download {source} and put it at {place / 'spec.json'}" in words
    assert not list(place.iterdir()), "nothing half-written is left"


def test_an_address_that_is_none_is_named(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoints.MIRROR, "no/address")
    with pytest.raises(CheckpointError, match=r"could not be fetched .*unknown url type"):
        model.load("lens64")


def test_a_new_score_stays(installed: Path) -> None:
    folder = model.load("lens64", device="cpu").folder
    (folder / "card.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"cut short")
    assert model.load("lens64", device="cpu").folder == folder
    assert (folder / "card.json").read_text() == "{}"


def test_another_file_is_refused(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror" / "lens64"
    mirror.mkdir(parents=True)
    (mirror / "spec.json").write_text("{}")
    monkeypatch.setenv(checkpoints.MIRROR, mirror.parent.as_uri())
    with pytest.raises(CheckpointError, match=r"has the SHA-256 44136fa3.*, not"):
        model.load("lens64")
    assert not list((installed).rglob("spec.json*"))


def test_the_address_is_the_projects_at_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(checkpoints.MIRROR, raising=False)
    found = checkpoints.address()
    version = checkpoints.metadata("lensdiff")["Version"]
    assert found.startswith("https://raw.githubusercontent.com/")
    assert found.endswith(f"/lensdiff/v{version}/data/checkpoints")

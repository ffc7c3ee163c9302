"""Downloads: a file gets its name when its SHA-256 is right, and offline there is a cure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gdown
import pytest

from lensdiff.data.folders import download
from lensdiff.errors import DataError

CONTENT = b"lenses" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Google Drive that holds CONTENT under every id; returns the ids that were requested."""
    requested = []

    def fetch(*, id: str, output: str, **_: object) -> str:
        requested.append(id)
        assert not Path(output).name.endswith(".zip")  # the real name comes after the check
        Path(output).write_bytes(CONTENT)
        return output

    monkeypatch.setattr(gdown, "download", fetch)
    return requested


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_download(tmp_path: Path, drive: list[str], sha256: str | None) -> None:
    path = download("abc123", tmp_path / "new" / "lenses.zip", sha256)
    assert path == tmp_path / "new" / "lenses.zip" and path.read_bytes() == CONTENT
    assert drive == ["abc123"] and list(path.parent.iterdir()) == [path]


def test_download_of_something_else_leaves_nothing(tmp_path: Path, drive: list[str]) -> None:
    message = rf"lenses\.zip: SHA-256 {SHA256} is not the expected {'0' * 64}.*uc\?id=abc123"
    with pytest.raises(DataError, match=message):
        download("abc123", tmp_path / "lenses.zip", "0" * 64)
    assert drive == ["abc123"] and list(tmp_path.iterdir()) == []


def test_download_keeps_an_older_file_when_the_new_one_is_wrong(
    tmp_path: Path, drive: list[str]
) -> None:
    (tmp_path / "lenses.zip").write_bytes(b"older")
    with pytest.raises(DataError):
        download("abc123", tmp_path / "lenses.zip", "0" * 64)
    assert (tmp_path / "lenses.zip").read_bytes() == b"older"


@pytest.mark.parametrize(
    "failure", [RuntimeError("quota exceeded"), None], ids=["raises", "returns-nothing"]
)
def test_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    def fetch(*, id: str, output: str, **_: object) -> None:
        Path(output).write_bytes(CONTENT[:10])
        if failure:
            raise failure
        Path(output).unlink()

    monkeypatch.setattr(gdown, "download", fetch)
    what = "RuntimeError: quota exceeded" if failure else "nothing came"
    address = r"Is there a network\? Download https://drive\.google\.com/uc\?id=abc123"
    cure = rf"{address} in a browser and put it at {tmp_path}/lenses\.zip"
    with pytest.raises(DataError, match=rf"lenses\.zip: could not be downloaded .*{what}.*{cure}"):
        download("abc123", tmp_path / "lenses.zip", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_download_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gdown itself, with a proxy that isn't there in place of the network."""
    for kind in ("https_proxy", "http_proxy", "all_proxy"):
        for name in (kind, kind.upper()):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    message = r"lenses\.zip: could not be downloaded .*Is there a network\?.*uc\?id=abc123"
    with pytest.raises(DataError, match=message):
        download("abc123", tmp_path / "folder" / "lenses.zip")
    assert list((tmp_path / "folder").iterdir()) == []

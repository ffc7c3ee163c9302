"""What goes wrong on disk: each gets one sentence, and nothing is lost or half-written."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lensdiff import __main__ as command
from lensdiff import storage
from lensdiff.errors import StorageError

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ["train", "tiny", "--data", str(ROOT / "data" / "sample"), "--batch", "4", "--width", "16"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))


def train(tmp_path: Path, steps: int = 2) -> list[str]:
    """A short training, with its state."""
    return [
        *TRAIN,
        str(tmp_path / "model"),
        "--state",
        str(tmp_path / "state"),
        "--steps",
        str(steps),
    ]


def sentence(capsys: pytest.CaptureFixture) -> str:
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1 and "Traceback" not in text
    return text


def test_a_truncated_state_gives_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command.main(train(tmp_path)) == 0
    (path,) = (tmp_path / "state").glob("0*/state.safetensors")
    path.write_bytes(path.read_bytes()[:1_000])
    assert command.main(train(tmp_path)) == 1
    text = sentence(capsys)
    assert "state.safetensors has SHA-256" in text and "Delete" in text


def test_the_state_of_another_run_gives_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(train(tmp_path)) == 0
    assert command.main(train(tmp_path, steps=3)) == 1
    assert "of another run" in sentence(capsys)


@pytest.mark.parametrize("content", [None, "{}", '{"format": "other"}'])
def test_a_foreign_folder_gives_a_sentence(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    if content is not None:
        (folder / "spec.json").write_text(content)
        (folder / "weights.safetensors").write_bytes(b"x")
    assert command.main(["draw", str(folder)]) == 1
    assert "foreign" in sentence(capsys)


def run_with_little_room(words: list[str], most_bytes: int) -> subprocess.CompletedProcess:
    """The command in a process whose files can't grow beyond `most_bytes`, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    line = [sys.executable, "-m", "lensdiff", *words]
    return subprocess.run(line, preexec_fn=limit, capture_output=True, text=True, cwd=ROOT)


def test_a_full_disk_gives_a_sentence_and_keeps_what_was_there(tmp_path: Path) -> None:
    assert command.main(train(tmp_path)) == 0
    before = storage.sha256_of_file(tmp_path / "model" / "weights.safetensors")
    shutil.rmtree(tmp_path / "state")
    run = run_with_little_room(train(tmp_path, steps=1), 300_000)
    assert run.returncode == 1, run.stderr
    assert len(run.stderr.strip().splitlines()) == 1 and "can't be written" in run.stderr
    assert storage.sha256_of_file(tmp_path / "model" / "weights.safetensors") == before
    assert not list(tmp_path.rglob("*.part*"))


def test_a_cache_without_room_gives_a_sentence(tmp_path: Path) -> None:
    run = run_with_little_room(train(tmp_path), 50_000)
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1 and "LENSDIFF_CACHE" in run.stderr
    assert not list((tmp_path / "cache").rglob("*.part*"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"a": 1})
    with (
        pytest.raises(StorageError, match=r"a\.json: can't be written"),
        storage.atomic(path) as part,
    ):
        part.write_text("half")
        raise OSError("no space left")
    assert storage.read_json(path, "cure") == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]

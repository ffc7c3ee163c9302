"""A job in parts: they are those of the whole, in any order and number, and joined by the last."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from toys_scores import Pooled, small_model

from lensdiff import __main__ as command
from lensdiff.data.images import ImageSet
from lensdiff.errors import DataError, MetricError, ParameterError, StorageError
from lensdiff.model import Model
from lensdiff.scores.statistics import Statistics
from lensdiff.studies import pages, scoring, shards
from lensdiff.studies.shards import Shard

pytestmark = pytest.mark.filterwarnings("ignore::lensdiff.scores.card.SampleSizeWarning")


def test_a_part_of_an_earlier_job_never_stands_beside_the_new_jobs_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "parts.npy"
    shard = Shard(1, 1)
    shards.write_part(whole, shard, lambda: np.zeros(3), shards.save_array, "one")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards.np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        shards.write_part(whole, shard, lambda: np.ones(3), shards.save_array, "two")
    assert not shard.path(whole).exists() and shard.missing(whole, "two") == [1]


@pytest.mark.parametrize(("n", "parts"), [(10, 3), (8, 8), (1_000_003, 7)])
def test_parts_are_the_whole(n: int, parts: int) -> None:
    rows = [Shard(number, parts).rows(n) for number in range(1, parts + 1)]
    assert rows[0].start == 0 and rows[-1].stop == n
    assert all(one.stop == other.start for one, other in itertools.pairwise(rows))
    sizes = [len(one) for one in rows]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/b", "-1/2", "1/0", "1/2/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="write 3/8 for the third part of eight"):
        Shard.parse(text)


def test_more_parts_than_images_are_refused() -> None:
    with pytest.raises(ParameterError, match="2 images make no 3 parts"):
        Shard(1, 3).rows(2)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return small_model(tmp_path / "m")


def draw(model: Model, out: Path, *more: object) -> str:
    words = ["draw", model.folder, "-n", 7, "--seed", 3, "--out", out, *more]
    assert command.main([str(word) for word in words]) == 0


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_images_in_parts_are_those_of_one_run(
    model: Model, tmp_path: Path, order: tuple[int, ...], capsys: pytest.CaptureFixture
) -> None:
    draw(model, tmp_path / "whole")
    for number in order:
        assert not (tmp_path / "parts.npy").exists()
        capsys.readouterr()
        draw(model, tmp_path / "parts", "--shard", f"{number}/3")
    assert "to come: none" in capsys.readouterr().out
    whole, joined = (np.load(tmp_path / f"{name}.npy") for name in ("whole", "parts"))
    np.testing.assert_allclose(joined, whole, atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 0.01
    left = sorted(path.name for path in tmp_path.glob("parts*"))
    assert left == ["parts.html", "parts.job.json", "parts.npy", "parts.png"]


def test_a_part_that_comes_again_after_the_join_draws_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As when a queue runs a job twice; a run of another seed, or without parts, starts anew."""
    for number in (1, 2):
        draw(model, tmp_path / "parts", "--shard", f"{number}/2")
    whole = (tmp_path / "parts.npy").read_bytes()
    (tmp_path / "parts.2-of-2.npy").write_bytes(b"left by a joiner that was killed")
    with monkeypatch.context() as patch:
        patch.setattr(Model, "draw", None)
        draw(model, tmp_path / "parts", "--shard", "1/2")
    assert "joined already" in capsys.readouterr().out
    assert not list(tmp_path.glob("parts.*-of-*"))
    draw(model, tmp_path / "parts", "--shard", "1/2", "--seed", 4)
    assert "to come: [2]" in capsys.readouterr().out
    assert (tmp_path / "parts.npy").read_bytes() == whole
    draw(model, tmp_path / "parts")
    assert not (tmp_path / "parts.job.json").exists()


def test_parts_of_another_job_stay_and_a_page_that_is_missing_is_made(
    model: Model, tmp_path: Path
) -> None:
    """A queue runs a part of the first job again, while a second one fills the same names."""
    for number in (1, 2):
        draw(model, tmp_path / "parts", "--shard", f"{number}/2")
    words = ["draw", str(model.folder), "-n", "7", "--seed", "4", "--shard", "2/2"]
    assert command.main([*words, "--out", str(tmp_path / "parts")]) == 0
    (tmp_path / "parts.png").unlink()  # as if killed between joining and drawing the page
    draw(model, tmp_path / "parts", "--shard", "1/2")
    assert (tmp_path / "parts.png").exists()
    assert [path.name for path in tmp_path.glob("parts.*-of-*.npy")] == ["parts.2-of-2.npy"]


def test_a_record_that_is_taken_away_while_it_is_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "parts.npy"
    shards.write_part(whole, Shard(1, 1), lambda: np.zeros(3), shards.save_array, "one")
    place = Shard(1, 1).path(whole)

    def vanishes(path: Path, cure: str) -> dict:
        path.unlink()
        raise DataError(f"{path}: can't be read. {cure}")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "read_json", vanishes)
        assert not shards.is_of(place, "one")
    shards.record(place).write_text("{")
    with pytest.raises(DataError, match="Delete it and run its part again"):
        shards.is_of(place, "one")


def test_files_need_a_name(model: Model, capsys: pytest.CaptureFixture) -> None:
    for words in (["draw", str(model.folder), "--out", "."], ["train", "tiny", "."]):
        assert command.main(words) == 1
        assert "a name" in capsys.readouterr().err


def test_a_lost_part_is_run_again_alone_and_one_of_another_job_is_no_part(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    draw(model, tmp_path / "parts", "--shard", "1/2")
    assert "to come: [2]" in capsys.readouterr().out
    words = ["draw", str(model.folder), "-n", "7", "--seed", "4", "--shard", "2/2"]
    assert command.main([*words, "--out", str(tmp_path / "parts")]) == 0
    assert "to come: [1] ([1] lie there, of another job)" in capsys.readouterr().out
    assert not (tmp_path / "parts.npy").exists()
    draw(model, tmp_path / "parts", "--shard", "2/2")
    assert np.load(tmp_path / "parts.npy").shape == (7, 1, 16, 16)


def test_only_one_job_joins(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    draw(model, tmp_path / "parts", "--shard", "1/2")
    with FileLock(tmp_path / "parts.npy.lock"):
        draw(model, tmp_path / "parts", "--shard", "2/2")
        assert "another job joins the parts" in capsys.readouterr().out
        assert not (tmp_path / "parts.npy").exists()
        assert len(list(tmp_path.glob("parts.*.npy"))) == 2
    draw(model, tmp_path / "parts", "--shard", "2/2")
    assert (tmp_path / "parts.npy").exists() and not list(tmp_path.glob("*.lock"))


def test_a_job_that_was_killed_while_it_joined_blocks_no_other(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The system frees its lock, whose file stays."""
    draw(model, tmp_path / "parts", "--shard", "1/2")
    hold = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    words = [
        sys.executable,
        "-c",
        f"{hold}; print(flush=True); time.sleep(60)",
        str(tmp_path / "parts.npy.lock"),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        draw(model, tmp_path / "parts", "--shard", "2/2")
        other.kill()
    assert "another job joins the parts" in capsys.readouterr().out
    draw(model, tmp_path / "parts", "--shard", "2/2")
    assert (tmp_path / "parts.npy").exists()


def test_a_disk_that_fills_up_while_parts_are_joined_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "parts.npy"
    for number in (1, 2):
        part = Shard(number, 2)
        shards.write_part(whole, part, lambda: np.zeros((2, 3)), shards.save_array, "one")

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(shards.np, "ascontiguousarray", full)
    with pytest.raises(StorageError, match="No space left"):
        shards.join_arrays(whole, Shard(2, 2), "one")
    assert not whole.exists() and Shard(1, 2).missing(whole, "one") == []
    assert not list(tmp_path.glob("*.part*"))


def test_a_score_that_fails_keeps_its_parts(
    model: Model, lenses16: ImageSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scoring, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(scoring, "lenses", lambda *_: lenses16)

    def broken(*_: object) -> None:
        raise MetricError("the card fails")

    monkeypatch.setattr(scoring, "card_with_error", broken)
    words = ["score", str(model.folder), "-n", "16", "--precision", "fp32", "--shard"]
    assert command.main([*words, "1/2"]) == 0
    assert command.main([*words, "2/2"]) == 1
    assert len(list(model.folder.glob("statistics.*-of-2.npz"))) == 2
    monkeypatch.setattr(Model, "draw", None)  # what is there is not drawn again
    assert command.main([*words, "2/2"]) == 1


@pytest.mark.parametrize("sizes", [(5, 20, 3), (1_500, 1_500)])
def test_statistics_join_to_those_of_all(sizes: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).normal(3, 2, (sum(sizes), 6))
    whole = Statistics.of(rows)
    joined, *others = (Statistics.of(part) for part in np.split(rows, np.cumsum(sizes)[:-1]))
    for other in others:
        joined.join(other)
    assert joined.n == whole.n
    np.testing.assert_allclose(joined.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(joined.covariance, whole.covariance, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(joined.rows, whole.rows)


def test_statistics_of_other_images_do_not_join() -> None:
    one, other = (Statistics.of(np.eye(4)) for _ in range(2))
    other.size = (1, 8, 8)
    with pytest.raises(MetricError, match="can't be joined"):
        one.join(other)


def test_a_score_in_parts_is_the_score(
    model: Model, lenses16: ImageSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scoring, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(scoring, "lenses", lambda *_: lenses16)
    shown = []
    monkeypatch.setattr(pages, "of_model", lambda name: shown.append(name))
    words = ["score", str(model.folder), "-n", "16", "--precision", "fp32"]
    assert command.main(words) == 0
    whole = json.loads((model.folder / "card.json").read_text())
    (model.folder / "card.json").unlink()
    for number in (2, 1, 3):
        assert not (model.folder / "card.json").exists()
        assert command.main([*words, "--shard", f"{number}/3"]) == 0
    joined = json.loads((model.folder / "card.json").read_text())
    assert joined["distance"] == pytest.approx(whole["distance"], rel=1e-4)
    assert joined["n_generated"] == 16 and len(shown) == 2, "a page for the whole alone"
    left = [path.name for path in model.folder.glob("statistics*")]
    assert left == ["statistics.job.json"], "of which job the card is"
    with monkeypatch.context() as patch:
        patch.setattr(Model, "draw", None)
        assert command.main([*words, "--shard", "2/3"]) == 0, "joined already"
    assert [path.name for path in model.folder.glob("statistics*")] == left
    others = replace(lenses16, fingerprint="c" * 64)
    monkeypatch.setattr(scoring, "lenses", lambda *_: others)
    assert command.main([*words, "--shard", "2/3"]) == 0, "against other images it is another card"
    assert list(model.folder.glob("statistics.2-of-3.npz"))


@pytest.mark.parametrize("more", ["--dry", "--legacy"])
def test_a_part_of_a_score_takes_no_other_work(
    model: Model, more: str, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(["score", str(model.folder), "--shard", "1/2", more]) == 1
    assert "Parts of a card take no --dry" in capsys.readouterr().err


def test_a_part_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def part() -> np.ndarray:
        made.append(1)
        return np.zeros(3)

    for job in ("one", "one", "two"):
        shards.write_part(tmp_path / "parts.npy", Shard(1, 2), part, shards.save_array, job)
    assert len(made) == 2


def test_parts_that_another_job_joined_meanwhile_are_left(tmp_path: Path) -> None:
    """Between the count of the parts and the lock, another job may have done it all."""
    whole = tmp_path / "parts.npy"
    shards.write_part(whole, Shard(1, 1), lambda: np.zeros(3), shards.save_array, "one")
    counted = Shard.missing

    class Slow(Shard):
        def missing(self, whole: Path, job: str) -> list[int]:
            found = counted(self, whole, job)
            shards.clear(whole, Shard(1, 1), "one")  # after this count
            return found

    with shards.joining(whole, Slow(1, 1), "one") as last:
        assert not last
    assert not list(tmp_path.glob("*.lock"))


def test_processes_that_draw_together_share_the_work(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    draw(model, tmp_path / "whole")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        draw(model, tmp_path / "both")
    whole, joined = (np.load(tmp_path / f"{name}.npy") for name in ("whole", "both"))
    np.testing.assert_allclose(joined, whole, atol=1e-5)
    words = ["draw", str(model.folder), "-n", "7", "--shard", "1/2"]
    assert command.main(words) == 1
    assert "Take either torchrun or --shard" in capsys.readouterr().err

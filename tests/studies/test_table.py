"""A study's table: each row is computed once, whatever kills the study."""

import json
import threading
import time
from pathlib import Path

import pytest

from lensdiff.errors import DataError, ParameterError, StorageError
from lensdiff.storage import lock_of, root, studies_folder
from lensdiff.studies.table import Table, check_trial


def fill(table: Table, computed: list, killed_at: int | None = None) -> list[dict]:
    """The rows of a study of three, which notes what it computes."""

    def compute(n: int) -> dict:
        if n == killed_at:
            raise KeyboardInterrupt
        computed.append(n)
        return {"square": n**2}

    return [table.row({"n": n}, lambda n=n: compute(n)) for n in range(3)]


def test_a_row_is_computed_once_kept_at_once_and_reported(tmp_path, capsys):
    path = tmp_path / "new" / "table.json"
    computed = []
    table = Table(path, {"weights": "a"})

    def compute() -> dict:
        computed.append(1)
        return {"score": 0.5}

    for _ in range(2):
        row = table.row({"name": "x", "seed": 1}, compute, lambda row: f"{row['score']:.1%}")
        assert row == {"name": "x", "seed": 1, "score": 0.5}
    assert computed == [1]
    assert capsys.readouterr().out.endswith("name x, seed 1: 50.0%\n")
    stored = json.loads(path.read_text())
    assert stored["weights"] == "a"
    assert stored["rows"] == [row]
    assert stored["machine"]
    assert [one.name for one in path.parent.iterdir()] == ["table.json"]


def test_nothing_is_computed_where_no_lock_can_be_had(tmp_path, monkeypatch):
    """The row would be lost: it can't be kept without one."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "file" / "cache"))
    table = Table(tmp_path / "table.json", {})
    computed = []
    with pytest.raises(StorageError, match="Set LENSDIFF_CACHE to a folder"):
        table.row({"n": 1}, lambda: computed.append(1) or {"score": 1})
    assert not computed


def test_rows_are_found_by_the_whole_key(tmp_path):
    table = Table(tmp_path / "table.json", {})
    table.row({"learns": "real", "n": 1}, lambda: {"score": 1})
    table.row({"learns": "real", "n": 2}, lambda: {"score": 2})
    assert table.find(learns="real", n=2)["score"] == 2
    assert table.find(learns="both", n=2) is None
    assert table.find(learns="real", n=2, seed=0) is None


def test_a_killed_study_goes_on_where_it_was(tmp_path):
    path = tmp_path / "table.json"
    computed = []
    with pytest.raises(KeyboardInterrupt):
        fill(Table(path, {"weights": "a"}), computed, killed_at=2)
    assert computed == [0, 1]
    rows = fill(Table(path, {"weights": "a"}), computed)
    assert computed == [0, 1, 2]
    assert rows == json.loads(path.read_text())["rows"]
    assert [row["square"] for row in rows] == [0, 1, 4]


def test_rows_of_other_circumstances_are_dropped_with_the_first_new_one(tmp_path):
    path = tmp_path / "table.json"
    fill(Table(path, {"weights": "a", "n": 3}), [])
    before = path.read_text()
    other = Table(path, {"weights": "b", "n": 3})
    assert other.rows == []
    assert path.read_text() == before
    other.row({"n": 7}, lambda: {"square": 49})
    stored = json.loads(path.read_text())
    assert stored["weights"] == "b"
    assert stored["rows"] == [{"n": 7, "square": 49}]
    assert Table(path, {"weights": "b", "n": 4}).rows == []


def test_what_is_written_beside_the_rows_stays_while_the_circumstances_do(tmp_path):
    path = tmp_path / "table.json"
    table = Table(path, {"weights": "a"})
    fill(table, [])
    table.write(timing=[1.5])
    again = Table(path, {"weights": "a"})
    again.row({"n": 9}, lambda: {"square": 81})
    assert json.loads(path.read_text())["timing"] == [1.5]
    assert Table(path, {"weights": "b"}).more == {}


def test_parallel_jobs_keep_each_others_rows(tmp_path):
    path = tmp_path / "table.json"
    one, two = (Table(path, {"weights": "a"}) for _ in range(2))
    one.row({"n": 1}, lambda: {"pair": (1, 1)})
    two.row({"n": 2}, lambda: {"pair": (2, 4)})
    one.row({"n": 3}, lambda: {"pair": (3, 9)})
    two.write(floor=0.5)
    one.write()
    stored = json.loads(path.read_text())
    assert [row["n"] for row in stored["rows"]] == [1, 2, 3] and stored["floor"] == 0.5
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]  # and no lock


def test_of_two_rows_of_one_key_that_of_the_faster_job_stays(tmp_path):
    slow, fast = (Table(tmp_path / "table.json", {}) for _ in range(2))

    def compute() -> dict:
        fast.row({"n": 1}, lambda: {"by": "fast"})
        return {"by": "slow"}

    assert slow.row({"n": 1}, compute) == {"n": 1, "by": "fast"}
    assert json.loads(slow.path.read_text())["rows"] == [{"n": 1, "by": "fast"}]


def test_a_row_that_was_replaced_does_not_come_back(tmp_path):
    path = tmp_path / "table.json"
    fill(Table(path, {}), [])
    table = Table(path, {})
    table.rows = [{"n": 0, "square": -1}]
    Table(path, {}).row({"n": 7}, lambda: {"square": 49})
    table.write()
    assert json.loads(path.read_text())["rows"] == [{"n": 0, "square": -1}, {"n": 7, "square": 49}]


def test_a_table_is_not_written_while_another_job_writes_it(tmp_path):
    path = tmp_path / "table.json"
    lock = lock_of(path)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    key = {"n": 1}
    other = threading.Thread(target=lambda: Table(path, {}).row(key, lambda: {"square": 1}))
    other.start()
    other.join(0.3)
    assert other.is_alive() and not path.exists()
    lock.release()
    other.join(10)
    assert json.loads(path.read_text())["rows"] == [{"n": 1, "square": 1}]
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


def test_a_lock_that_a_killed_job_left_holds_nobody(tmp_path):
    path = tmp_path / "table.json"
    left = Path(lock_of(path).lock_file)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    start = time.monotonic()
    Table(path, {}).row({"n": 1}, lambda: {"square": 1})
    assert time.monotonic() - start < 5
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize("text", ["{", "", "[]", '"rows"', "{}", '{"rows": 3}', "\udcff"])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as found:
        Table(path, {})
    message = str(found.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("Delete it; the study makes it again.")
    assert "\n" not in message


def test_what_comes_with_the_project_is_not_dropped_by_a_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("lensdiff.studies.table.root", lambda: tmp_path)
    shipped = tmp_path / "data" / "studies" / "table.json"
    fill(Table(shipped, {"n": 256, "weights": "a"}), [])
    before = shipped.read_bytes()
    with pytest.raises(ParameterError, match="keeps results of another n"):
        Table(shipped, {"n": 64, "weights": "a"})
    assert shipped.read_bytes() == before
    Table(tmp_path / "runs" / "table.json", {"n": 64})


def test_a_trial_is_kept_from_the_results_by_whatever_path(monkeypatch, tmp_path):
    monkeypatch.chdir(root())
    for place in (studies_folder(), Path("data/studies"), Path("data/../data/studies")):
        with pytest.raises(ParameterError, match=r"^-n make a trial: give it --out, a folder"):
            check_trial(True, place, "-n")
    check_trial(False, studies_folder(), "-n")
    check_trial(True, tmp_path, "-n")


def test_no_row_is_computed_that_could_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    table = Table(tmp_path / "notes.md" / "table.json", {})
    with pytest.raises(StorageError, match="can't be written"):
        table.row({"name": "long"}, None)  # to compute would fail

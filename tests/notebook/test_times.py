"""Recorded run times: what README and notebooks say is what the runner stored, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys_notebooks import write

from lensdiff import storage
from lensdiff.errors import DataError
from lensdiff.notebook import times

TABLE = """before
<!-- run times: made so -->
| notebook | what it shows | old |
|---|---|---|
| [03 training](a.ipynb) | the loss | 9 min |
| [12 new](b.ipynb) | ablations |
<!-- end of run times -->
after
"""


def entry(seconds: dict[str, float], day: str = "2026-11-25", machine: str = "2 cores") -> dict:
    return {"date": day, "machine": machine, "seconds": seconds}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "studies" / times.NAME


# ---- what is committed ---------------------------------------------------------------------------


def test_readme_has_the_recorded_times() -> None:
    readme = (storage.root() / "README.md").read_text(encoding="utf-8")
    cure = "python -c 'from lensdiff.notebook import times; times.refresh()'"
    assert times.with_times(readme) == readme, cure


@pytest.mark.parametrize(
    "page", sorted((storage.root() / "notebooks").glob("*.ipynb")), ids=lambda page: page.stem
)
def test_a_notebook_that_says_its_run_time_says_the_recorded_one(page: Path) -> None:
    shown = times.SENTENCE.findall(page.read_text(encoding="utf-8"))
    assert set(shown) <= {times.sentence(page.stem)}


# ---- records -------------------------------------------------------------------------------------


def test_a_record_joins_those_of_other_processors(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert times.records(path) == {} and times.expected("03", path) == {}
    for kind, seconds in (("fp32", 99.0), ("bf16", 46.4), ("fp32", 184.4)):
        monkeypatch.setattr(times, "kind", lambda kind=kind: kind)
        times.record({"03": seconds}, {"update": 0.1}, path)
    assert times.expected("03_training", path) == {"bf16": 46, "fp32": 184}
    found = times.records(path)["fp32"]
    assert found["measurement"] == {"update": 0.1} and "CPU core" in found["machine"]
    assert torch.__version__.startswith(found["versions"]["torch"])


def test_the_kind_is_the_precision_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "best_device", lambda: "cpu")
    for precision in ("fp32", "bf16"):
        monkeypatch.setenv("LENSDIFF_PRECISION", precision)
        assert times.kind() == precision and f"LENSDIFF_PRECISION={precision}" in times.machine()
    monkeypatch.setattr(times, "best_device", lambda: "cuda")
    assert times.kind() == "gpu"


def test_a_damaged_file_gets_a_sentence(path: Path) -> None:
    storage.write_text(path, "{")
    with pytest.raises(DataError, match="git checkout data/studies"):
        times.sentence("03", path)


# ---- in words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (
            ["bf16", "fp32"],
            "Run time on 2 CPU cores: 46 s with bfloat16 instructions, "
            "3 min in float32 (recorded D).",
        ),
        (["fp32"], "Run time on 2 CPU cores: 3 min in float32 (recorded D)."),
        (
            ["bf16", "gpu"],
            "Run time on 2 CPU cores: 46 s with bfloat16 instructions; on a GPU (A100): 10 s "
            "(recorded D).",
        ),
        (["gpu"], "Run time on a GPU (A100): 10 s (recorded D)."),
        ([], times.UNRECORDED),
    ],
)
def test_a_sentence_has_the_kinds_that_were_recorded(
    path: Path, kinds: list[str], sentence: str
) -> None:
    all_kinds = {
        "bf16": entry({"03": 46}),
        "fp32": entry({"03": 184}),
        "gpu": entry({"03": 10}, machine="A100, 16 CPU cores"),
    }
    storage.write_json(path, {kind: all_kinds[kind] for kind in kinds})
    said = times.sentence("03_training", path)
    assert said == sentence.replace("D)", "2026-11-25)")
    assert times.SENTENCE.fullmatch(said)
    assert times.sentence("04", path) == times.UNRECORDED


def test_the_table_has_a_column_a_kind_and_a_sum_where_nothing_is_missing(path: Path) -> None:
    storage.write_json(path, {"fp32": entry({"03": 184, "12": 100}), "bf16": entry({"03": 46})})
    made = times.with_times(TABLE, path)
    assert made.startswith("before\n") and made.endswith("<!-- end of run times -->\nafter\n")
    assert made.splitlines()[2:-2] == [
        f"| notebook | what it shows | {times.HEADS['bf16']} | {times.HEADS['fp32']} |",
        "| --- | --- | --- | --- |",
        "| [03 training](a.ipynb) | the loss | 46 s | 3 min |",
        "| [12 new](b.ipynb) | ablations |  | 2 min |",
        "| all |  |  | 5 min |",
    ]
    assert times.with_times(made, path) == made
    with pytest.raises(DataError, match="Put it back"):
        times.with_times("no table", path)


def test_pages_are_brought_up_to_date(path: Path, tmp_path: Path) -> None:
    page = tmp_path / "notebooks" / "03_training.ipynb"
    write(page, "x = 1")
    storage.write_json(path, {"bf16": entry({"03": 46})})
    old = times.sentence("03", path)
    text = json.dumps({**json.loads(page.read_text()), "said": [f"*{old}*\n", times.UNRECORDED]})
    page.write_text(text)
    (tmp_path / "README.md").write_text(TABLE)
    storage.write_json(path, {"fp32": entry({"03": 99}, "2026-12-01")})
    times.refresh(tmp_path)
    new = times.sentence("03", path)
    assert json.loads(page.read_text()) == {**json.loads(text), "said": [f"*{new}*\n", new]}
    assert "| the loss | 2 min |" in (tmp_path / "README.md").read_text()


# ---- the measurement -----------------------------------------------------------------------------


def test_the_measurement_is_short_and_changes_no_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(times, "PART_SECONDS", 0.5)
    state = torch.random.get_rng_state()
    measured = times.measure()
    assert set(measured) == {"update", "matmul"} and 0 < min(measured.values())
    assert measured["update"] > measured["matmul"], "an update is about ten products"
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("seconds", "calls"), [(0.5, 6), (10.0, 2)])
def test_a_part_of_the_measurement_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, calls: int
) -> None:
    """By a clock that the work alone moves: for three seconds, or one work after the first."""
    clock = [0.0]
    called = []

    def work() -> None:
        called.append(clock[0])
        clock[0] += seconds

    monkeypatch.setattr(times, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert times._median(work, "cpu") == seconds
    assert len(called) == calls and times.PART_SECONDS == 3


def test_the_factor_is_the_mean_of_the_ratios_in_logarithms() -> None:
    there = {"update": 0.1, "matmul": 0.01, "older": 1.0}
    assert times.factor({"update": 0.2, "matmul": 0.08}, there) == pytest.approx(4)

"""The stored ablations read back: rows of several seeds, paired differences, merged tables."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from scipy import stats

from lensdiff.errors import DataError
from lensdiff.storage import read_json, write_json
from lensdiff.studies import ablations
from lensdiff.studies.ablation_compare import FILE, Difference, compare, merge, seeds_of


def row(name: str, seed: int | None, distance: float, sampling: str = "ddim") -> dict:
    cards = [{"distance": distance, "kid": 2 * distance, "sampling": sampling}]
    return {"name": name, **({} if seed is None else {"seed": seed}), "cards": cards}


def table(folder, rows: list[dict], steps: int = 10):
    folder.mkdir(exist_ok=True)
    write_json(folder / FILE, {"steps": steps, "scored_images": 8, "machine": "", "rows": rows})
    return folder


def distances(folder) -> dict:
    rows = read_json(folder / FILE, "")["rows"]
    return {(one["name"], one.get("seed", 0)): one["cards"][0]["distance"] for one in rows}


ROWS = [
    row("v", 2, 12.0),
    row("v", None, 10.0),
    row("v", 1, 17.0),
    row("basis", 0, 9.0),
    row("basis", 1, 14.0),
    row("basis", 2, 8.0),
    row("basis", 3, 500.0),
]


def test_seeds_come_in_their_order_and_a_row_without_one_has_seed_0(tmp_path):
    rows = seeds_of("v", table(tmp_path, ROWS))
    assert [(one["seed"], one["cards"][0]["distance"]) for one in rows] == [
        (0, 10.0),
        (1, 17.0),
        (2, 12.0),
    ]
    with pytest.raises(DataError, match=r"ablations\.json: the run x0 is not stored.* x0$"):
        seeds_of("x0", tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(DataError, match=r"ablations\.json is not there"):
        seeds_of("v", tmp_path)


def test_a_difference_is_paired_by_seed_and_its_interval_is_students(tmp_path):
    found = compare("v", "basis", folder=table(tmp_path, ROWS))
    pairs = np.array([1.0, 3.0, 4.0])  # seed 3 has no partner
    assert found.n == 3
    assert found.mean == pytest.approx(pairs.mean())
    assert found.error == pytest.approx(stats.sem(pairs))
    expected = stats.ttest_rel([10, 17, 12], [9, 14, 8]).confidence_interval(0.95)
    assert found.interval() == pytest.approx(tuple(expected))
    assert compare("basis", "v", folder=tmp_path).mean == -found.mean
    assert compare("v", "basis", "kid", tmp_path).mean == pytest.approx(2 * found.mean)
    low, high = Difference(1.0, 0.5, 3).interval()
    assert (low, high) == pytest.approx((1 - 4.303 * 0.5, 1 + 4.303 * 0.5), abs=1e-3)


def test_what_can_not_be_compared_is_one_sentence(tmp_path):
    table(tmp_path, [*ROWS, row("eps", 0, 1.0), row("T200", 0, 1, "own"), row("T200", 1, 2, "own")])
    with pytest.raises(DataError, match="eps and basis have 1 seeds in common, 2 are needed"):
        compare("eps", "basis", folder=tmp_path)
    with pytest.raises(DataError, match="no number 'fid' on every card"):
        compare("v", "basis", "fid", tmp_path)
    with pytest.raises(DataError, match="T200 and basis are of several samplings"):
        compare("T200", "basis", folder=tmp_path)


def test_tables_merge_without_duplicates_and_pictures_come_with_them(tmp_path):
    into = table(tmp_path / "into", [row("v", 0, 1.0), row("basis", 0, 2.0)])
    one = table(tmp_path / "one", [row("v", 0, 50.0), row("v", 1, 3.0), row("x0", 0, 4.0)])
    two = table(tmp_path / "two", [row("v", 1, 60.0), row("basis", 2, 5.0)])
    for folder in (into, one):
        (folder / "ablations").mkdir()
        (folder / "ablations" / "v.png").write_bytes(folder.name.encode())
    (one / "ablations" / "x0.png").write_bytes(b"x0")
    assert merge([one, two], into) == 3
    expected = {("basis", 0): 2, ("basis", 2): 5, ("x0", 0): 4, ("v", 0): 1, ("v", 1): 3}
    assert list(distances(into).items()) == list(expected.items())  # in the order of RUNS
    assert (into / "ablations" / "x0.png").read_bytes() == b"x0"
    assert (into / "ablations" / "v.png").read_bytes() == b"into"
    assert merge([one, two], into) == 0
    assert merge([one], into, replace=True) == 3
    assert distances(into)["v", 0] == 50
    assert (into / "ablations" / "v.png").read_bytes() == b"one"


def test_the_command_merges_into_a_folder_that_has_nothing_yet(tmp_path, capsys):
    one = table(tmp_path / "one", [row("v", 1, 3.0)])
    parser = argparse.ArgumentParser()
    ablations.add_arguments(parser)
    out = tmp_path / "out"
    ablations.run(parser.parse_args(["--merge", str(one), "--out", str(out)]))
    assert "1 runs were merged" in capsys.readouterr().out
    assert distances(out) == {("v", 1): 3.0}
    assert read_json(out / FILE, "")["steps"] == 10


def test_tables_of_other_steps_do_not_merge(tmp_path):
    into = table(tmp_path / "into", [row("v", 0, 1.0)])
    other = table(tmp_path / "other", [row("v", 1, 1.0)], steps=20)
    with pytest.raises(DataError, match="it has not the steps and scored images of"):
        merge([other], into)
    with pytest.raises(DataError, match=r"ablations\.json is not there"):
        merge([tmp_path / "nothing"], into)
    assert distances(into) == {("v", 0): 1.0}

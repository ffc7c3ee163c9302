"""The plan: a stamp changes with all that a run depends on, and with nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from toys_notebooks import FIRST, SECOND, write

from lensdiff.errors import ParameterError
from lensdiff.notebook import times
from lensdiff.notebook.plan import chosen, due, parse_value, plan


def stamps(root: Path, profile: str = "smoke", **parameters: object) -> list[str]:
    return [job.stamp for job in plan(root, profile, parameters)]


@pytest.mark.parametrize(
    "name",
    [
        "lensdiff/model.py",
        "constraints.txt",
        "lensdiff/notebook/template/page.html",
        "data/checkpoints/lens/weights",
        "data/reference/features.npz",
        "data/studies/ablations.json",
    ],
)
def test_stamps_change_with_all_a_run_depends_on(root: Path, name: str) -> None:
    before = stamps(root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("two\n")
    assert not set(before) & set(stamps(root))


def test_stamps_change_with_the_files_of_a_folder_given_as_a_parameter(root: Path) -> None:
    write(root / "notebooks" / "00_first.ipynb", FIRST, parameters='data_folder = ""')
    mine = root / "mine"
    mine.mkdir()
    before = stamps(root, data_folder=str(mine))
    (mine / "lens.npy").write_bytes(b"new")
    assert stamps(root, data_folder=str(mine)) != before
    assert stamps(root, data_folder="mine") == stamps(root, data_folder="mine")
    before = stamps(root, data_folder=str(mine / "lens.npy"))
    (mine / "lens.npy").write_bytes(b"newer")
    assert stamps(root, data_folder=str(mine / "lens.npy")) != before


def test_stamps_change_with_sources_profile_and_own_parameters_alone(root: Path) -> None:
    first = root / "notebooks" / "00_first.ipynb"
    write(root / "notebooks" / "01_second.ipynb", SECOND, parameters="steps: int = 5")
    before = stamps(root)
    assert not set(before) & set(stamps(root, "full"))
    assert stamps(root, steps=6)[0] == before[0]
    assert stamps(root, steps=6)[1] != before[1]
    notebook = nbformat.read(first, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="an output")]
    notebook.cells[1].execution_count = 7
    nbformat.write(notebook, first)
    assert stamps(root) == before, "outputs must not count"
    notebook.cells[0].source += " with more prose"
    nbformat.write(notebook, first)
    assert not set(before) & set(stamps(root)), "an edit counts for the later notebooks too"


def test_the_chosen_are_those_of_a_prefix_with_their_own_parameters(root: Path) -> None:
    write(root / "notebooks" / "01_second.ipynb", SECOND, parameters="steps: int = 5\nseed = 1")
    parameters = {"steps": 6}
    jobs = plan(root, "smoke", parameters)
    assert [job.path.name for job in chosen(jobs, "", parameters)] == [
        "00_first.ipynb",
        "01_second.ipynb",
    ]
    (second,) = chosen(jobs, "01", parameters)
    assert second.parameters == {"steps": 6}
    with pytest.raises(ParameterError, match="No chosen notebook has a parameter named steps"):
        chosen(jobs, "00", parameters)
    with pytest.raises(ParameterError, match="There are no notebooks to run"):
        chosen([], "00", {})


def test_recorded_run_times_do_not_count(root: Path) -> None:
    before = stamps(root)
    (root / "data" / "studies").mkdir()
    (root / "data" / "studies" / times.NAME).write_text("{}")
    assert stamps(root) == before


def test_a_job_is_due_with_all_behind_it(root: Path) -> None:
    folder = root / "runs"
    folder.mkdir()
    for job in (jobs := plan(root, "smoke", {})):
        for end in (".ipynb", ".html"):
            (folder / f"{job.path.stem}{end}").touch()
    good = {job.path.stem: job.stamp for job in jobs}
    for changed, numbers in (("none", ""), ("01_second", "1"), ("00_first", "01")):
        (folder / "status.json").write_text(json.dumps({**good, changed: "another"}))
        fresh = plan(root, "smoke", {})
        assert due(fresh, folder, False) == [fresh[int(number)] for number in numbers]
        results = ["not run" if str(number) in numbers else "unchanged" for number in (0, 1)]
        assert [job.result for job in fresh] == results
    assert len(due(plan(root, "smoke", {}), folder, True)) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("6e-4", 6e-4),
        ("-1E3", -1000.0),
        ("true", True),
        ("", ""),
        ("lens64", "lens64"),
        ("[1, 2]", [1, 2]),
        ("2026-11-22", "2026-11-22"),
        ("a: [", "a: ["),
        ("null", None),
    ],
)
def test_values_from_the_command_line(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)

"""The student edition: nothing given away, room to work, and what a filled-in page gets."""

from __future__ import annotations

import argparse

import nbformat
import pytest
from toys_notebooks import write

import lensdiff as ld
from lensdiff.errors import ParameterError
from lensdiff.notebook import exercises, files, runner, student
from lensdiff.notebook.lessons import lesson
from lensdiff.storage import root

PAGES = sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
every = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@every
def test_a_page_gives_nothing_away(page):
    made = student.edition(files.read(page))
    nbformat.validate(made)
    assert "ld.solution" not in nbformat.writes(made)
    assert "](../" not in nbformat.writes(made) and "Open in Colab" not in nbformat.writes(made)
    assert sum(student.ASKED in cell.source for cell in made.cells) == 1
    for cell in made.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def test_a_picture_is_asked_for_as_a_file_and_not_as_a_page():
    made = student.elsewhere("[page](../docs/a.md) ![film](../figures/b.gif)")
    assert "/blob/v" in made.split()[0] and "/raw/v" in made.split()[1]
    assert made.endswith("/figures/b.gif)") and "../" not in made


@every
def test_each_exercise_has_room_an_answer_and_a_check(page):
    number = page.stem[:2]
    cells = student.edition(files.read(page)).cells
    for k in lesson(number).EXERCISES:
        (first,) = [
            i
            for i, cell in enumerate(cells)
            if cell.source == f"answer_{number}_{k} = None"
            or cell.source.startswith(f"answer_{number}_{k} = None  #")
        ]
        work, answer, check = cells[first - 1 : first + 2]
        assert work.source == f"# your work on exercise {number}.{k}"
        assert check.source == f'ld.check("{number}.{k}", answer_{number}_{k})'
        assert "nbgrader" not in answer.metadata, "nbgrader empties cells of solutions"
        assert check.metadata.nbgrader.grade and check.metadata.nbgrader.points == 1
        assert check.metadata.nbgrader.locked and not check.metadata.nbgrader.solution
    graded = [cell.metadata.nbgrader.grade_id for cell in cells if "nbgrader" in cell.metadata]
    assert len(set(graded)) == len(graded) == len(lesson(number).EXERCISES)


def test_it_is_written_and_answers_are_never_overwritten(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    args = parser.parse_args(["--student", "--runs", str(tmp_path)])
    assert runner.run(args) == 0
    written = sorted((tmp_path / "student").iterdir())
    assert [path.name for path in written] == [page.name for page in PAGES]
    assert f"{len(PAGES)} pages in" in capsys.readouterr().out
    written[0].write_text("answers")
    with pytest.raises(ParameterError, match=f"{PAGES[0].name} is there already"):
        runner.run(args)
    assert written[0].read_text() == "answers"
    with pytest.raises(ParameterError, match="exclude each other"):
        runner.run(parser.parse_args(["--student", "--check", str(tmp_path)]))


def test_a_filled_in_page_is_run_and_its_answers_counted(tmp_path, capsys):
    known = lesson("00").EXERCISES
    first, second = list(known)[:2]
    wrong, hint = known[second].mistakes[0]
    assert not callable(known[first].answer) and not callable(wrong)
    page = tmp_path / "00_mine.ipynb"
    fails = "raise RuntimeError('a cell that fails')"
    right = f"answer_00_{first} = {known[first].answer!r}"
    write(page, "import lensdiff as ld", right, fails, f"answer_00_{second} = {wrong!r}")
    before = page.read_bytes()
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    args = parser.parse_args(["--check", str(tmp_path), "--runs", str(tmp_path / "runs")])
    assert runner.run(args) == 1
    name, *rows, total = capsys.readouterr().out.strip().splitlines()
    assert name == "00_mine.ipynb"
    assert rows[0].startswith(f"00.{first}  right ") and "not yet" in rows[1] and hint in rows[1]
    assert all("no answer yet" in row for row in rows[2:]) and len(rows) == len(known)
    assert total == f"1 of {len(known)} right"
    assert page.read_bytes() == before


def test_what_is_no_page_is_named(tmp_path):
    with pytest.raises(ParameterError, match="holds no page of the series"):
        student.pages(tmp_path)
    (tmp_path / "99_else.ipynb").write_text("{}")
    with pytest.raises(ParameterError, match="holds no page of the series"):
        student.pages(tmp_path / "99_else.ipynb")


def test_a_page_whose_kernel_hangs_is_named(tmp_path):
    page = tmp_path / "00_slow.ipynb"
    write(page, "import time\ntime.sleep(60)")
    with pytest.raises(ParameterError, match=r"00_slow\.ipynb does not run to its end"):
        student.check(page, timeout=2)


@pytest.mark.parametrize("execution", ["autograde", "validate"])
def test_under_nbgrader_a_wrong_answer_fails_its_cell(monkeypatch, capsys, execution):
    known = lesson("00").EXERCISES
    wrong, _ = known[1].mistakes[0]
    ld.check("00.1", wrong)
    monkeypatch.setenv(exercises.NBGRADER, execution)
    ld.check("00.1", known[1].answer)
    with pytest.raises(AssertionError, match=r"00\.1 not yet"):
        ld.check("00.1", wrong)
    with pytest.raises(AssertionError, match="no answer yet"):
        ld.check("00.1", None)


def test_what_an_answer_prints_is_no_verdict(tmp_path):
    known = lesson("00").EXERCISES
    page = tmp_path / "00_forged.ipynb"
    forged = student.MARK + "{}"
    class_ = f"class Loud:\n    def __eq__(self, other):\n        print({forged!r}, end='')\n"
    write(page, f"{class_}        return False\nanswer_00_1 = Loud()\nprint({forged!r})")
    found = student.check(page)
    assert list(found) == [f"00.{k}" for k in known]
    assert found["00.1"].startswith("00.1 not yet")


def test_one_page_that_fails_leaves_the_others(tmp_path, capsys, monkeypatch):
    for name in ("00_a.ipynb", "01_b.ipynb"):
        write(tmp_path / name, "")

    def one(page):
        if page.stem == "00_a":
            raise ParameterError("00_a hangs")
        return {"01.1": "01.1 right: yes"}

    monkeypatch.setattr(student, "check", one)
    assert student.report(tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "00_a.ipynb",
        "00_a hangs",
        "01_b.ipynb",
        "01.1  right          yes",
        "1 of 1 right",
    ]

"""Notebook files: what is taken out of them, and how small their pictures become."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import nbformat
import pytest
from toys_notebooks import FIRST, write

from lensdiff.notebook import files, opening, pictures
from lensdiff.storage import root as home

# ---- tidying -------------------------------------------------------------------------------------


def test_tidy_keeps_static_fallbacks_and_takes_out_machine_paths(figure: bytes) -> None:
    new = nbformat.v4.new_output
    path = f"{home()}/lensdiff/data.py:3 {Path.home()}/x /tmp/ipykernel_12/345.py:1: UserWarning"
    png = base64.b64encode(figure).decode()
    outputs = [
        new("display_data", {files.WIDGET: {}, "text/plain": "IntSlider()"}),
        new("display_data", {files.WIDGET: {}, "text/plain": "Figure", "image/png": png}),
        new("stream", name="stderr", text=path),
        new("execute_result", {"text/plain": repr(path), "image/png": png}),
    ]
    cell = nbformat.v4.new_code_cell(outputs=outputs)
    tidied = files.tidy(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    kinds = [output.output_type for output in tidied]
    assert kinds == ["display_data", "stream", "execute_result"]
    small = base64.b64encode(pictures.palette(figure)).decode()
    assert tidied[0].data == {"text/plain": "Figure", "image/png": small}
    assert tidied[1].text == "lensdiff/data.py:3 ~/x <cell>:1: UserWarning"
    assert tidied[2].data["image/png"] == small
    assert str(home()) not in tidied[2].data["text/plain"]


def test_tidy_takes_out_what_only_a_run_needs() -> None:
    error = nbformat.v4.new_output(
        "error",
        ename="ValueError",
        evalue=f"\x1b[31m{sys.prefix}/lib\x1b[0m",
        traceback=[f"\x1b[31m{home()}/lensdiff/model.py\x1b[0m"],
    )
    stream = nbformat.v4.new_output("stream", text="a line\n")
    metadata = {"tags": [], "papermill": {"duration": 1}, "execution": {}, "collapsed": False}
    cell = nbformat.v4.new_code_cell("x", outputs=[error, stream], metadata=metadata)
    kept = nbformat.v4.new_code_cell("y", metadata={"tags": ["parameters"], "scrolled": True})
    notebook = nbformat.v4.new_notebook(cells=[cell, kept], metadata={"widgets": {}})
    notebook.cells[0].outputs[1]["metadata"] = {}  # as papermill leaves it
    found = files.tidy(notebook)
    assert found is notebook
    assert set(found.metadata) == {"kernelspec", "language_info"}
    assert [one.metadata for one in found.cells] == [{}, {"tags": ["parameters"]}]
    first, second = found.cells[0].outputs
    assert first.traceback == ["lensdiff/model.py"]
    assert "\x1b" not in first.evalue
    assert second == {"output_type": "stream", "name": "stdout", "text": "a line\n"}


def test_the_names_of_parameters_are_those_assigned_in_tagged_cells(tmp_path: Path) -> None:
    path = tmp_path / "00.ipynb"
    write(path, "other = 1", parameters="profile = ''\nsteps: int = 5\na = b = 2")
    assert files.parameter_names(files.read(path)) == {"profile", "steps", "a", "b"}
    write(path, "other = 1", "width = 3", parameters="seed = 1")
    notebook = files.read(path)
    notebook.cells[3].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    assert files.parameter_names(files.read(path)) == {"seed", "width"}
    write(path, "other = 1", parameters="%magic that is not Python")
    assert files.parameter_names(files.read(path)) == set()


def test_an_edit_made_meanwhile_is_not_overwritten(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = tmp_path / "ran.ipynb"
    edited = root / "notebooks" / "00_first.ipynb"
    write(ran, "x = 1")
    files.publish(ran, edited)
    assert files.read(edited).cells[1].source == FIRST
    assert "was edited while it ran" in capsys.readouterr().out


def test_a_notebook_that_is_too_large_names_its_largest_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "00.ipynb"
    write(path, "a", "b", "c")
    files.publish(path, path)
    assert capsys.readouterr().out == ""
    notebook = files.read(path)
    for cell, megabytes in zip(notebook.cells[1:], (0.01, 0.9, 0.7), strict=True):
        cell.execution_count = int(megabytes * 100)
        cell.outputs = [nbformat.v4.new_output("stream", text="x" * int(megabytes * 1e6))]
    nbformat.write(notebook, path)
    files.publish(path, path)
    sentence = (
        "00.ipynb is 1.61 MB, more than 1.5 MB; its largest cells: [90] 0.90 MB, [70] 0.70 MB"
    )
    assert capsys.readouterr().out.startswith(sentence)
    assert path.stat().st_size > 1.6e6


def test_another_version_reaches_every_page_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = home() / "notebooks" / "01_forward_process.ipynb"
    page = tmp_path / source.name
    page.write_bytes(source.read_bytes())
    assert files.open_again(tmp_path) == []
    monkeypatch.setattr(
        opening, "project", lambda: ("https://github.com/someone/lensdiff", "9.9.9")
    )
    assert files.open_again(tmp_path) == [page]
    text = page.read_text(encoding="utf-8")
    assert text.count("v9.9.9") == 4 and "v0.1.0" not in text
    assert "github.com/lensdiff/" not in text.replace("someone/lensdiff", "")
    assert files.open_again(tmp_path) == []


def test_copies_that_jupyterlab_makes_are_no_pages(tmp_path: Path) -> None:
    for name in ("01_b.ipynb", "00_a.ipynb", "00_a-Copy1.ipynb", "notes.ipynb"):
        (tmp_path / name).touch()
    assert [page.name for page in files.series(tmp_path)] == ["00_a.ipynb", "01_b.ipynb"]


def test_a_page_that_ran_again_keeps_pictures_that_look_as_before(
    figure: bytes, tmp_path: Path
) -> None:
    """The stored one has fewer colours than the new one, and goes through none a second time."""
    committed = tmp_path / "00_first.ipynb"
    executed = tmp_path / "run.ipynb"
    small = base64.b64encode(pictures.palette(figure)).decode()
    for path, png in ((committed, small), (executed, base64.b64encode(figure).decode())):
        write(path, "draw()", "draw()")
        page = files.read(path)
        output = nbformat.v4.new_output("display_data", {"image/png": png})
        page.cells[1].outputs = [output, nbformat.v4.new_output("stream", text=path.stem)]
        nbformat.write(page, path)
    files.publish(executed, committed)
    outputs = files.read(committed).cells[1].outputs
    assert outputs[0].data["image/png"] == small
    assert outputs[1].text == "run"

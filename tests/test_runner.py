"""scripts/run_notebooks.py: what runs, what is left as it is, what a failure looks like, and what is committed."""
from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
files = importlib.import_module("notebook_files")
runner = importlib.import_module("run_notebooks")

LEAVES_A_MARK = "import os, pathlib\nmark = pathlib.Path(os.environ['LENSDIFF_RUNS']) / 'mark.txt'\n"
SEEN = "print(os.environ['LENSDIFF_PROFILE'], os.environ['LENSDIFF_QUIET'], pathlib.Path.cwd().name)"
FIRST = LEAVES_A_MARK + "mark.write_text('lens')\n" + SEEN
SECOND = LEAVES_A_MARK + "print('found', mark.read_text())"


def write(path: Path, *cells: str, parameters: str = "") -> None:
    """A notebook of these code cells, with a parameters cell before them where one is given."""
    nodes = [nbformat.v4.new_markdown_cell("# A notebook")]
    if parameters:
        nodes.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nodes += [nbformat.v4.new_code_cell(cell) for cell in cells]
    for number, node in enumerate(nodes):
        node.id = f"cell-{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=nodes), path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of two notebooks, of which the second needs what the first leaves."""
    write(tmp_path / "notebooks" / "00_first.ipynb", FIRST)
    write(tmp_path / "notebooks" / "01_second.ipynb", SECOND)
    for name in ("lensdiff/model.py", "constraints.txt", "data/checkpoints/lens/weights"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    return tmp_path


def results(screen: str) -> dict[str, str]:
    """Notebook to result, from the closing table."""
    lines = screen[screen.rindex("\nnotebook ") :].strip().splitlines()[1:]
    return {line.split()[0]: re.split(r"\s{2,}", line)[2] for line in lines}


def printed(notebook: Path) -> str:
    """All that the notebook printed."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def stamps(root: Path, profile: str = "smoke", **parameters: object) -> list[str]:
    return [job.stamp for job in runner.plan(root, profile, parameters)]


def test_chain_runs_then_skips_then_runs_what_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--profile", "smoke"], root) == 0
    first = capsys.readouterr().out
    assert results(first) == {"00_first": "good", "01_second": "good"}
    assert str(root / "runs" / "smoke" / "01_second.html") in first
    assert printed(root / "runs" / "smoke" / "00_first.ipynb") == "smoke 1 notebooks\n"
    assert printed(root / "runs" / "smoke" / "01_second.ipynb") == "found lens\n"
    assert "found lens" in (root / "runs" / "smoke" / "01_second.html").read_text()
    assert printed(root / "notebooks" / "00_first.ipynb") == "", "the committed notebook must stay as it is"

    assert runner.main(["--profile", "smoke"], root) == 0
    assert results(capsys.readouterr().out) == {"00_first": "unchanged", "01_second": "unchanged"}

    write(root / "notebooks" / "01_second.ipynb", SECOND.replace("found", "still"))
    assert runner.main(["--profile", "smoke"], root) == 0
    assert results(capsys.readouterr().out) == {"00_first": "unchanged", "01_second": "good"}
    assert printed(root / "runs" / "smoke" / "01_second.ipynb") == "still lens\n"

    (root / "runs" / "smoke" / "00_first.html").unlink()
    assert runner.main(["--profile", "smoke"], root) == 0
    assert results(capsys.readouterr().out) == {"00_first": "good", "01_second": "good"}, "what a later one used was made anew"

    assert runner.main(["--profile", "smoke", "--force", "--only", "01"], root) == 0
    assert results(capsys.readouterr().out) == {"01_second": "good"}


def test_profiles_are_kept_apart_and_parameters_arrive(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "notebooks" / "00_first.ipynb", "print(repr(seed), repr(profile))", FIRST, parameters='profile = ""\nseed = 1')
    assert runner.main(["--profile", "standard", "--only", "00", "-p", "seed", "3e-1"], root) == 0
    assert results(capsys.readouterr().out) == {"00_first": "good"}
    assert printed(root / "runs" / "standard" / "00_first.ipynb").startswith("0.3 ''\nstandard 1")
    assert not (root / "runs" / "smoke").exists()
    assert runner.known_stamps(root / "runs" / "standard" / "status.json") == {"00_first": stamps(root, "standard", seed=0.3)[0]}


def test_failure_stops_the_chain_and_says_where(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "notebooks" / "00_first.ipynb", "x = 1", "def scale(sigma):\n    return 1 / sigma\nscale(x - 1)", "print('after')")
    assert runner.main(["--profile", "smoke"], root) == 1
    screen = capsys.readouterr().out
    assert results(screen) == {"00_first": "failed in cell [2]", "01_second": "not run"}
    assert "    scale(x - 1)\n" in screen and "ZeroDivisionError: division by zero" in screen
    assert "\x1b" not in screen and len(screen.splitlines()) < 40
    folder = root / "runs" / "smoke"
    assert sorted(path.name for path in folder.iterdir()) == ["00_first.failed.ipynb", "status.json"]
    assert "after" not in printed(folder / "00_first.failed.ipynb") and json.loads((folder / "status.json").read_text()) == {}

    write(root / "notebooks" / "00_first.ipynb", "import os", "os._exit(3)")
    assert runner.main(["--profile", "smoke"], root) == 1
    screen = capsys.readouterr().out
    assert results(screen) == {"00_first": "failed", "01_second": "not run"}
    assert "    os._exit(3)\n" in screen and "DeadKernelError" in screen, "a kernel that dies is reported with its cell"


def test_in_place_keeps_what_github_renders(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    widget = "import ipywidgets\nipywidgets.IntSlider()"
    colour = "print('\\x1b[31mred\\x1b[0m')"
    write(root / "notebooks" / "00_first.ipynb", widget, colour, "import os\nprint(os.path.isdir(os.environ['LENSDIFF_FIGURES']))")
    assert runner.main(["--in-place", "--only", "00"], root) == 0
    executed = nbformat.read(root / "runs" / "standard" / "00_first.ipynb", as_version=4)
    committed = nbformat.read(root / "notebooks" / "00_first.ipynb", as_version=4)
    assert "widgets" in executed.metadata and "papermill" in executed.metadata, "else this test shows nothing"
    assert committed.metadata == {"kernelspec": files.KERNEL, "language_info": files.LANGUAGE}
    assert [cell.get("execution_count") for cell in committed.cells] == [None, 1, 2, 3]
    assert [cell.id for cell in committed.cells] == ["cell-0", "cell-1", "cell-2", "cell-3"]
    assert all(cell.metadata == {} for cell in committed.cells)
    assert committed.cells[1].outputs == [] and committed.cells[2].outputs[0].text == "red\n"
    assert committed.cells[3].outputs[0].text == "True\n"
    assert files.sources(committed) == files.sources(executed)


def test_tidy_keeps_static_fallbacks_and_takes_out_machine_paths() -> None:
    new = nbformat.v4.new_output
    folder = f"{files.ROOT}/lensdiff/data.py:3 {Path.home()}/x /tmp/ipykernel_12/345.py:1: UserWarning"
    outputs = [
        new("display_data", {files.WIDGET: {}, "text/plain": "IntSlider()"}),
        new("display_data", {files.WIDGET: {}, "text/plain": "Figure", "image/png": "AAAA"}),
        new("stream", name="stderr", text=folder),
        new("execute_result", {"text/plain": repr(folder), "image/png": "BBBB"}),
    ]
    tidied = files.tidy(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])).cells[0].outputs
    assert [output.output_type for output in tidied] == ["display_data", "stream", "execute_result"]
    assert tidied[0].data == {"text/plain": "Figure", "image/png": "AAAA"}
    assert tidied[1].text == "lensdiff/data.py:3 ~/x <cell>:1: UserWarning"
    assert tidied[2].data["image/png"] == "BBBB" and str(files.ROOT) not in tidied[2].data["text/plain"]


def test_an_edit_made_meanwhile_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    ran, edited = tmp_path / "ran.ipynb", root / "notebooks" / "00_first.ipynb"
    write(ran, "x = 1")
    files.publish(ran, edited)
    assert files.read(edited).cells[1].source == FIRST


@pytest.mark.parametrize("name", ["lensdiff/model.py", "constraints.txt", "data/checkpoints/lens/weights"])
def test_stamps_change_with_all_a_run_depends_on(root: Path, name: str) -> None:
    before = stamps(root)
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


def test_stamps_change_with_sources_profile_and_own_parameters_alone(root: Path) -> None:
    first, second = root / "notebooks" / "00_first.ipynb", root / "notebooks" / "01_second.ipynb"
    write(second, SECOND, parameters="steps: int = 5")
    before = stamps(root)
    assert not set(before) & set(stamps(root, "full"))
    assert stamps(root, steps=6)[0] == before[0] and stamps(root, steps=6)[1] != before[1]
    notebook = nbformat.read(first, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="an output")]
    notebook.cells[1].execution_count = 7
    nbformat.write(notebook, first)
    assert stamps(root) == before, "outputs must not count"
    notebook.cells[0].source += " with more prose"
    nbformat.write(notebook, first)
    assert not set(before) & set(stamps(root)), "an edit counts for the later notebooks too"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--profile", "huge"], "invalid choice: 'huge'"),
        (["--only", "07"], "starts with '07'"),
        (["-p", "wrong", "1"], "no chosen notebook has a parameter named wrong"),
        (["-p", "profile", "smoke"], "choose the profile with --profile"),
        (["--in-place", "-p", "seed", "1"], "--in-place takes no -p"),
        (["--runs", "constraints.txt"], "can't write the results"),
    ],
)
def test_a_wrong_value_gets_a_sentence(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as stop:
        runner.main(arguments, root)
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_a_damaged_notebook_is_named(root: Path) -> None:
    (root / "notebooks" / "01_second.ipynb").write_text('{"cells": [')
    with pytest.raises(SystemExit, match=r"01_second\.ipynb can't be read as a notebook"):
        runner.main([], root)


@pytest.mark.parametrize(
    "text, value",
    [("3", 3), ("0.5", 0.5), ("6e-4", 6e-4), ("-1E3", -1000.0), ("true", True), ("", ""), ("lens64", "lens64"), ("[1, 2]", [1, 2]),
     ("2026-11-22", "2026-11-22"), ("a: [", "a: ["), ("null", None)],
)  # fmt: skip
def test_values_from_the_command_line(text: str, value: object) -> None:
    parsed = runner.parse_value(text)
    assert parsed == value and type(parsed) is type(value)

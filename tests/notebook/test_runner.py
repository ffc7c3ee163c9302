"""The runner: what runs, what is left as it is, what a failure looks like, what is committed."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from toys_notebooks import FIRST, SECOND, printed, write

from lensdiff import storage
from lensdiff.__main__ import main
from lensdiff.errors import ParameterError
from lensdiff.notebook import files, runner, times
from lensdiff.notebook.plan import known_stamps, plan


def run(root: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    return runner.run(parser.parse_args(arguments), root)


def results(screen: str) -> dict[str, str]:
    """Notebook to result, from the closing table."""
    lines = screen[screen.rindex("\nnotebook ") :].strip().splitlines()[1:]
    return {line.split()[0]: re.split(r"\s{2,}", line)[2] for line in lines}


def test_chain_runs_then_skips_then_runs_what_changed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = root / "runs" / "smoke"
    assert run(root, "--profile", "smoke") == 0
    first = capsys.readouterr().out
    assert results(first) == {"00_first": "good", "01_second": "good"}
    assert (folder / "01_second.html").as_uri() in first
    assert first.startswith("2 notebooks to run at profile smoke: 00 01\nThis machine: ")
    assert printed(folder / "00_first.ipynb") == "smoke 1 notebooks\n"
    assert printed(folder / "01_second.ipynb") == "found lens\n"
    page = (folder / "01_second.html").read_text()
    assert "found lens" in page and 'src="../mathjax.js"' in page
    assert (root / "runs" / "mathjax.js").is_file(), "equations need no network"
    committed = printed(root / "notebooks" / "00_first.ipynb")
    assert committed == "", "the committed notebook must stay as it is"

    assert run(root, "--profile", "smoke") == 0
    again = capsys.readouterr().out
    assert results(again) == {"00_first": "unchanged", "01_second": "unchanged"}
    assert again.startswith("Unchanged since the last good run: 00 01")

    write(root / "notebooks" / "01_second.ipynb", SECOND.replace("found", "still"))
    assert run(root, "--profile", "smoke") == 0
    assert results(capsys.readouterr().out) == {"00_first": "unchanged", "01_second": "good"}
    assert printed(folder / "01_second.ipynb") == "still lens\n"

    (folder / "00_first.html").unlink()
    assert run(root, "--profile", "smoke") == 0
    again = results(capsys.readouterr().out)
    assert again == {"00_first": "good", "01_second": "good"}, "what a later one used is made anew"

    assert run(root, "--profile", "smoke", "--force", "--only", "01") == 0
    assert results(capsys.readouterr().out) == {"01_second": "good"}


def test_profiles_are_kept_apart_and_parameters_arrive(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ("print(repr(seed), repr(profile))", FIRST)
    path = root / "notebooks" / "00_first.ipynb"
    write(path, *cells, parameters='profile = ""\nseed = 1')
    assert run(root, "--profile", "standard", "--only", "00", "-p", "seed", "3e-1") == 0
    assert results(capsys.readouterr().out) == {"00_first": "good"}
    folder = root / "runs" / "standard"
    assert printed(folder / "00_first.ipynb").startswith("0.3 ''\nstandard 1")
    assert not (root / "runs" / "smoke").exists()
    stamp = plan(root, "standard", {"seed": 0.3})[0].stamp
    assert known_stamps(folder / "status.json") == {"00_first": stamp}


def test_results_go_where_they_are_wanted(root: Path, tmp_path: Path) -> None:
    assert run(root, "--only", "00", "--runs", str(tmp_path / "elsewhere")) == 0
    folder = tmp_path / "elsewhere" / "standard"
    assert (folder / "mark.txt").read_text() == "lens"
    assert (folder / "00_first.html").exists()
    assert not (root / "runs").exists()


def test_failure_stops_the_chain_and_shows_where(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "notebooks" / "00_first.ipynb"
    fails = "def scale(sigma):\n    return 1 / sigma\nscale(x - 1)"
    write(path, "x = 1", fails, "print('after')")
    assert run(root, "--profile", "smoke") == 1
    screen = capsys.readouterr().out
    assert results(screen) == {"00_first": "failed in cell [2]", "01_second": "not run"}
    assert "    scale(x - 1)\n" in screen
    assert "ZeroDivisionError: division by zero" in screen
    assert "\x1b" not in screen
    assert len(screen.splitlines()) < 40
    folder = root / "runs" / "smoke"
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["00_first.failed.ipynb", "status.json"]
    assert "after" not in printed(folder / "00_first.failed.ipynb")
    assert json.loads((folder / "status.json").read_text()) == {}

    write(path, "import os", "os._exit(3)")
    assert run(root, "--profile", "smoke") == 1
    screen = capsys.readouterr().out
    assert results(screen) == {"00_first": "failed", "01_second": "not run"}
    assert "    os._exit(3)\n" in screen, "a kernel that dies is reported with its cell"
    assert "DeadKernelError" in screen


def test_in_place_keeps_what_github_renders(root: Path) -> None:
    widget = "import ipywidgets\nipywidgets.IntSlider()"
    colour = "print('\\x1b[31mred\\x1b[0m')"
    figures = "import os\nprint(os.path.isdir(os.environ['LENSDIFF_FIGURES']))"
    path = root / "notebooks" / "00_first.ipynb"
    write(path, widget, colour, figures)
    assert run(root, "--in-place", "--only", "00") == 0
    executed = nbformat.read(root / "runs" / "standard" / "00_first.ipynb", as_version=4)
    committed = nbformat.read(path, as_version=4)
    assert "widgets" in executed.metadata, "else this test shows nothing"
    assert "papermill" in executed.metadata
    assert committed.metadata == {"kernelspec": files.KERNEL, "language_info": files.LANGUAGE}
    assert [cell.get("execution_count") for cell in committed.cells] == [None, 1, 2, 3]
    assert [cell.id for cell in committed.cells] == ["cell-0", "cell-1", "cell-2", "cell-3"]
    assert all(cell.metadata == {} for cell in committed.cells)
    assert committed.cells[1].outputs == []
    assert committed.cells[2].outputs[0].text == "red\n"
    assert committed.cells[3].outputs[0].text == "True\n"
    assert files.sources(committed) == files.sources(executed)


# ---- run times -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A screen that somebody watches."""

    def isatty(self) -> bool:
        return True


def test_a_whole_run_is_recorded_and_the_next_says_what_it_will_take(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "kind", lambda: "fp32")
    monkeypatch.setattr(times, "CORES", times.torch.get_num_threads())
    monkeypatch.setattr(times, "measure", lambda: {"update": 1.0})
    path = root / "data" / "studies" / times.NAME
    before = [job.stamp for job in plan(root, "standard", {})]
    assert run(root, "--record") == 0
    assert "none is recorded for such a machine (fp32)" in capsys.readouterr().out
    found = times.records(path)["fp32"]
    assert set(found["seconds"]) == {"00", "01"} and 0 < min(found["seconds"].values()) < 60
    assert [job.stamp for job in plan(root, "standard", {})] == before

    storage.write_json(path, {"fp32": {**found, "seconds": {"00": 30, "01": 200}}})
    monkeypatch.setattr(times, "measure", lambda: {"update": 2.0})
    watched = Terminal()
    monkeypatch.setattr(sys, "stdout", watched)
    assert run(root, "--force", "--only", "01", "--record") == 0
    said = watched.getvalue()
    sentences = " ".join(said.split())
    assert "Run times will not be recorded: only those of the whole series" in said
    assert "Expected: 7 min in all (01 7 min) (recorded 20" in sentences
    assert ", times 2.00 here)" in sentences
    assert re.search(r"\r01_second  cell 1 of 1, 0:\d\d of about 6:40 ", said)
    assert re.search(r"\r01_second  0:\d\d of about 6:40  file:///\S+01_second\.html\n", said)
    assert times.records(path)["fp32"]["seconds"] == {"00": 30, "01": 200}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--profile", "smoke"], "profile standard"),
        (["-p", "seed", "1"], "without -p"),
        ([], r"only those on 77 CPU cores are, and torch uses \d"),
    ],
)
def test_other_runs_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.setattr(times, "kind", lambda: "bf16")
    monkeypatch.setattr(times, "CORES", 77)
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    assert re.search(reason, runner.unrecordable(parser.parse_args(arguments)))


# ---- parameters ----------------------------------------------------------------------------------


def two_cells(path: Path) -> None:
    """A notebook with parameters in a main cell and one for experts, and papermill's place."""
    write(
        path,
        "width = 32",
        "# -p values are written here",
        "print(seed, width)",
        parameters="seed = 1",
    )
    notebook = files.read(path)
    for cell, tag in zip(notebook.cells[2:], ("parameters", "injected-parameters"), strict=False):
        cell.metadata["tags"] = [tag]
    nbformat.write(notebook, path)


def test_parameters_of_both_cells_arrive_without_a_warning(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = root / "notebooks" / "00_first.ipynb"
    two_cells(path)
    assert (
        run(root, "--profile", "smoke", "--only", "00", "-p", "seed", "7", "-p", "width", "8") == 0
    )
    ran = root / "runs" / "smoke" / "00_first.ipynb"
    assert printed(ran) == "7 8\n"
    tags = [cell.metadata.get("tags") for cell in files.read(ran).cells]
    assert tags.count(["injected-parameters"]) == 1 and tags.count(["parameters"]) == 2
    assert "unknown parameter" not in "".join(capfd.readouterr())


def test_in_place_the_cells_of_parameters_stay_as_they_are(root: Path) -> None:
    path = root / "notebooks" / "00_first.ipynb"
    two_cells(path)
    before = files.read(path)
    assert run(root, "--in-place", "--only", "00") == 0
    after = files.read(path)
    assert printed(path) == "1 32\n", "else it was not published"
    assert files.sources(after) == files.sources(before)
    assert [cell.metadata for cell in after.cells] == [cell.metadata for cell in before.cells]


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "07"], r"starts with '07'"),
        (["-p", "wrong", "1"], r"No chosen notebook has a parameter named wrong"),
        (["-p", "profile", "smoke"], r"Choose the profile with --profile"),
        (["--only", "00", "--in-place", "-p", "seed", "1"], r"--in-place takes no -p"),
        (["--runs", "constraints.txt"], r"The results can't be written"),
    ],
)
def test_a_wrong_value_gets_a_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(root)
    write(root / "notebooks" / "00_first.ipynb", FIRST, parameters="seed = 1")
    with pytest.raises(ParameterError, match=sentence):
        run(root, *arguments)
    assert not (root / "runs").exists()


def test_the_command_ends_with_a_sentence_and_a_status(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "root", lambda: root)
    assert main(["notebooks", "--only", "07"]) == 1
    assert capsys.readouterr().err == "No notebook starts with '07'.\n"
    with pytest.raises(SystemExit) as stop:
        main(["notebooks", "--profile", "huge"])
    assert stop.value.code == 2
    assert "invalid choice: 'huge'" in capsys.readouterr().err


def test_a_damaged_notebook_is_named(root: Path) -> None:
    (root / "notebooks" / "01_second.ipynb").write_text('{"cells": [')
    with pytest.raises(ParameterError, match=r"01_second\.ipynb can't be read as a notebook"):
        run(root)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_damaged_record_of_stamps_holds_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "status.json").write_text(text)
    assert known_stamps(tmp_path / "status.json") == {}


def test_the_mathjax_of_the_pages_is_a_release() -> None:
    """Its file is es5/tex-svg-full.js of the npm package mathjax 3.2.2, byte for byte."""
    release = "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"
    assert storage.sha256_of_file(runner.TEMPLATE / runner.MATHJAX) == release
    assert "Apache License" in (runner.TEMPLATE / "mathjax.LICENSE").read_text()

"""The README's code runs: its Python blocks, its make targets, its papermill lines; and what it
links to is there.

A block after `<!-- not run: reason -->` is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from toys_setup import MAKES_OWN

from lensdiff.notebook import files

ROOT = Path(__file__).resolve().parents[1]

README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
BLOCK = re.compile(r"(<!-- not run: \S[^\n]*-->\s*)?^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)
MADE = (".venv/", "runs/", "data/cache/")  # what the commands themselves make


@pytest.fixture(autouse=True)
def outside_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests call make, and may themselves be called by it."""
    for name in MAKES_OWN:
        monkeypatch.delenv(name, raising=False)


def blocks(*languages: str) -> list[str]:
    """The README's fenced blocks in these languages that are meant to run, in order."""
    return [
        text
        for left_out, language, text in BLOCK.findall(README)
        if language in languages and not left_out
    ]


def commands() -> list[list[str]]:
    """Each command of the README's shell blocks, in words."""
    text = "".join(blocks("bash", "sh", "shell", "console")).replace("\\\n", " ")
    lines = [re.sub(r"^\s*\$ ", "", line) for line in text.splitlines()]
    split = [shlex.split(part, comments=True) for line in lines for part in re.split(r"&&|;", line)]
    return [without_variables(words) for words in split if words]


def without_variables(words: list[str]) -> list[str]:
    """The command after any `NAME=value` in front of it."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words


def commands_of(*programs: str) -> list[list[str]]:
    """The commands that call one of these programs, from wherever it lies."""
    return [words for words in commands() if Path(words[0]).name in programs]


OTHERS = [
    words for words in commands() if Path(words[0]).name not in ("make", "papermill", "git", "cd")
]


def assigned(words: list[str]) -> list[tuple[str, str]]:
    """The (name, value) of each -p."""
    return [(words[i + 1], words[i + 2]) for i, word in enumerate(words) if word == "-p"]


def test_the_two_commands_come_first() -> None:
    assert README, "README.md is missing"
    first = next(iter(blocks("bash", "sh", "shell", "console")), "")
    assert "make run" in first and "make test" in first


def test_nothing_is_left_to_fill_in() -> None:
    assert README and not re.findall(r"@[A-Z_]+@|TODO|TBD|ADDRESS|YOUR-|OWNER", README)


def test_the_blocks_this_file_checks_are_there() -> None:
    assert blocks("python") and any(assigned(words) for words in commands_of("papermill"))
    assert ["conda", "env", "create", "-f", "environment.yml"] in commands()


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, from a folder that has the repository's data and keeps what
    they write.
    """
    (tmp_path / "data").mkdir()
    for folder in ("sample", "checkpoints"):
        (tmp_path / "data" / folder).symlink_to(ROOT / "data" / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENSDIFF_PROFILE", "smoke")
    monkeypatch.setenv("LENSDIFF_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README.md, Python block {number + 1}", "exec"), namespace)


@pytest.mark.parametrize("words", commands_of("make"), ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    run = subprocess.run(
        [words[0], "-n", "-C", str(ROOT), *words[1:]], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("words", commands_of("papermill"), ids=" ".join)
def test_papermill_lines_name_notebooks_and_parameters(words: list[str]) -> None:
    notebook = ROOT / words[1]
    assert notebook.is_file() and words[2].endswith(".ipynb")
    assert {name for name, _ in assigned(words)} <= files.parameter_names(files.read(notebook))


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_files_named_exist(words: list[str]) -> None:
    """Every word of a command that looks like a relative path, other than what the commands
    make.
    """
    looks = re.compile(r"(?!-|/|~|\.\[)[\w./-]*(?:/[\w.-]*|\.(?:yml|txt|toml|py|ipynb|md|cff))")
    named = [word for word in words if looks.fullmatch(word) and not word.startswith(MADE)]
    assert not [word for word in named if not (ROOT / word).exists()]


def test_links_and_pictures_exist() -> None:
    prose = BLOCK.sub("", README)
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", prose) + re.findall(
        r"(?:src|href)=[\"']([^\"']+)", prose
    )
    relative = [target.split("#")[0] for target in targets if not re.match(r"\w+:|//|#", target)]
    assert relative, "the README links to its notebooks and shows pictures"
    assert not [target for target in relative if not (ROOT / target).exists()]


def test_links_within_the_page_exist() -> None:
    titles = re.findall(r"^#+\s+(.+)$", BLOCK.sub("", README), re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


@pytest.mark.slow
@pytest.mark.parametrize("words", commands_of("papermill"), ids=" ".join)
def test_papermill_lines_run(words: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    command = [
        sys.executable,
        "-m",
        "papermill",
        words[1],
        str(output),
        *words[3:],
        "-p",
        "profile",
        "smoke",
        "--no-progress-bar",
    ]
    environment = os.environ | {"LENSDIFF_QUIET": "1", "LENSDIFF_RUNS": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert output.exists()


def lensdiff_lines() -> list[list[str]]:
    """The commands that call the package."""
    return [words for words in commands() if words[1:3] == ["-m", "lensdiff"]]


def test_lensdiff_lines_run_in_order(tmp_path: Path) -> None:
    """From a folder that has the repository's data and keeps what they write."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    assert len(lensdiff_lines()) >= 2
    for words in lensdiff_lines():
        command = [sys.executable, *words[1:]]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "runs" / "own" / "spec.json").exists()
    assert (tmp_path / "runs" / "own-lenses.png").exists()


def test_the_clone_line_has_the_projects_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"git clone --depth 1 {project['urls']['Repository']} " in README

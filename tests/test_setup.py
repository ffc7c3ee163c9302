"""The files that set the project up agree with one another, and hold nothing of the machine they
were written on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from toys_setup import MAKES_OWN

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])
]
CHOSEN_BY_TORCH = re.compile(r"pip|setuptools|triton|nvidia-.*|cuda-.*")

# Written so that this file does not match itself.
MACHINE = re.compile(
    r"(?<![\w.~])/(?:work|root|opt|mnt|private)/\w|/(?:home|Users)/\w|[A-Z]:\\(?:Users)"
)
HOSTS = re.compile(
    r"(?:pythonhosted|pypi)\.org/(?:simple|packages)|(?:extra-index|index)-url"
    r"|(?:find)-links|://[^/\s]*:[^/\s]*@"
)


@pytest.fixture(autouse=True)
def outside_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests call make, and may themselves be called by it."""
    for name in MAKES_OWN:
        monkeypatch.delenv(name, raising=False)


def pins() -> dict[str, str]:
    """Canonical name to version, of every line of constraints.txt."""
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9a-z.]*)", line) for line in lines]
    assert all(found), (
        f"not an exact pin: {[line for line, match in zip(lines, found, strict=True) if not match]}"
    )
    named = {canonicalize_name(match[1]): match[2] for match in found}
    assert len(named) == len(lines), "a distribution is pinned twice"
    return named


def text_files() -> Iterator[tuple[str, str]]:
    """Name and text of every file a clone has; of notebooks the sources and the texts among the
    outputs.
    """
    made = re.compile(r"runs|__pycache__|cache|.*\.egg-info|\.(?!ci$).*")
    for folder, inside, names in os.walk(ROOT):
        inside[:] = [name for name in inside if not made.fullmatch(name)]
        for path in (Path(folder, name) for name in names if name != ".git"):  # of a worktree
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            yield (
                str(path.relative_to(ROOT)),
                notebook_text(text) if path.suffix == ".ipynb" else text,
            )


def notebook_text(text: str) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output["data"] = {
                kind: data
                for kind, data in output.get("data", {}).items()
                if kind.startswith("text/")
            }
    return re.sub(r"data:image/[^\"')\s]+", "", json.dumps(notebook))


def pythons(job: dict) -> list[str]:
    """The versions of Python of a job of the CI."""
    matrix = job.get("strategy", {}).get("matrix", {})
    more = [one["python"] for one in matrix.get("include", ()) if "python" in one]
    return [*matrix.get("python", ()), *more]


def test_environment_is_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"] and environment["channels"] == ["conda-forge"]
    by_pip = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert len(by_pip) == 1 and len(by_pip[0]) == 1
    assert by_pip[0][0].removeprefix("-e ") in (".", ".[test]"), (
        "pip installs the project, and pyproject.toml says what that needs"
    )
    by_conda = {
        item.name: item
        for item in map(
            Requirement, (item for item in environment["dependencies"] if isinstance(item, str))
        )
    }
    python = by_conda.pop("python").specifier
    assert python == SpecifierSet(PROJECT["requires-python"] + ",<3.14")
    tested = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    versions = [version for job in tested.values() for version in pythons(job)]
    assert all(python.contains(version) for version in versions) and "3.13" in versions
    assert "pip" in by_conda
    specifiers = {canonicalize_name(item.name): item.specifier for item in REQUIREMENTS} | {
        "pip": SpecifierSet()
    }
    assert {name: item.specifier for name, item in by_conda.items()} == {
        name: specifiers.get(name) for name in by_conda
    }


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_pins_satisfy_pyproject(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in pins(), f"constraints.txt does not pin {name}"
    assert requirement.specifier.contains(pins()[name], prereleases=True)


def test_pins_serve_every_build_of_torch() -> None:
    assert not [name for name in pins() if CHOSEN_BY_TORCH.fullmatch(name)]


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="the pins were taken on Linux; other systems need a few packages more",
)
def test_pins_hold_all_that_is_installed() -> None:
    """Every distribution that the project draws in is pinned, whether it names it itself or not."""
    named = {canonicalize_name(one.name) for one in REQUIREMENTS} & set(pins())
    if any(version(name) != pins()[name] for name in named if not CHOSEN_BY_TORCH.fullmatch(name)):
        pytest.skip("other versions are installed, which may need other packages")
    waiting = list(REQUIREMENTS)
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or CHOSEN_BY_TORCH.fullmatch(key[0]):
            continue
        seen.add(key)
        try:
            needs = [Requirement(text) for text in distribution(requirement.name).requires or []]
        except PackageNotFoundError:
            continue
        extras = ["", *requirement.extras]
        waiting += [
            need
            for need in needs
            if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    assert len(seen) > len(REQUIREMENTS)
    assert {name for name, _ in seen} <= set(pins())


def test_no_machine_paths_or_registries() -> None:
    found = [
        f"{name}: {match[0]!r} in {text[max(0, match.start() - 30) : match.end() + 30]!r}"
        for name, text in text_files()
        for match in (MACHINE.search(text), HOSTS.search(text))
        if match
    ]
    assert not found, "\n".join(found)


def test_what_is_made_is_not_committed() -> None:
    assert {"runs/", "data/cache/", ".venv/", "*.egg-info/"} <= set(
        (ROOT / ".gitignore").read_text().split()
    )


def test_citation_is_pyproject() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "date-released"} <= set(citation)
    assert (citation["title"], citation["version"], citation["license"]) == (
        PROJECT["name"],
        PROJECT["version"],
        PROJECT["license"],
    )


def test_make_lists_its_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY:(.*)$", text, re.M)[1].split())
    listed = subprocess.run(
        ["make", "-C", str(ROOT)], capture_output=True, text=True, check=True
    ).stdout
    assert {f"make {name}" for name in phony - {"help", "setup"}} == set(
        re.findall(r"^make [\w-]+", listed, re.M)
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.skipif(not (ROOT / ".venv/bin/python").exists(), reason="make has no .venv here")
def test_make_test_gpu_says_that_there_is_no_device() -> None:
    words = ["make", "-C", str(ROOT), "-o", "setup", "test-gpu"]  # nothing is installed
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode != 0 and "1 of 3" not in run.stdout
    assert "There is no CUDA device here: make test runs all that needs none." in run.stderr


def program(path: Path, script: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make` needs of a clone, in a fresh folder without .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_make_refuses_an_old_python(clone: Path) -> None:
    old = program(clone / "python-old", "exit 1")
    run = subprocess.run(
        ["make", "run", f"PYTHON={old}"], cwd=clone, capture_output=True, text=True
    )
    assert (
        run.returncode != 0
        and "needs Python 3.11 or newer" in run.stderr
        and "python-old" in run.stderr
    )
    assert not (clone / ".venv").exists()


def test_make_installs_once_and_again_when_the_pins_change(clone: Path) -> None:
    """With stand-ins for Python that write down what they are asked to do."""
    inner = program(clone / "inner", 'echo "python $*" >> asked.txt')
    make_venv = f"echo venv >> asked.txt; mkdir -p .venv/bin; cp {inner} .venv/bin/python"
    venv = f'[ "$2" != venv ] || {{ {make_venv}; }}'
    new = program(clone / "python-new", venv)

    def asked() -> list[str]:
        (clone / "asked.txt").unlink(missing_ok=True)
        subprocess.run(
            ["make", "run", f"PYTHON={new}", "PROFILE=smoke"],
            cwd=clone,
            capture_output=True,
            check=True,
        )
        return (clone / "asked.txt").read_text().splitlines()

    install = "python -m pip install --disable-pip-version-check -c constraints.txt -e .[test]"
    execute = "python -m lensdiff notebooks --profile smoke"
    assert asked() == ["venv", install, execute]
    assert asked() == [execute]
    later = (clone / ".venv" / "lensdiff.stamp").stat().st_mtime + 10
    os.utime(clone / "constraints.txt", (later, later))
    assert asked() == [install, execute]
    (clone / ".venv" / "bin" / "python").unlink()
    assert asked() == ["venv", install, execute], "a .venv whose Python is gone is made anew"


def test_torch_for_cpus_comes_from_its_own_index(clone: Path) -> None:
    """With a stand-in for Python that writes down what it is asked to do, and can fail."""
    inner = program(
        clone / "inner", 'echo "$*" >> asked.txt; case "$*" in *whl/cpu*) exit 1;; esac'
    )
    venv = f'[ "$2" != venv ] || {{ mkdir -p .venv/bin; cp {inner} .venv/bin/python; }}'
    words = ["make", "run", f"PYTHON={program(clone / 'python-new', venv)}"]

    def made(kind: str) -> subprocess.CompletedProcess:
        return subprocess.run([*words, f"TORCH={kind}"], cwd=clone, capture_output=True, text=True)

    assert "can't be had from https://download.pytorch.org/whl/cpu. Leave" in made("cpu").stderr
    assert "TORCH is 'gpu'. Set it to cpu" in made("gpu").stderr
    assert len((clone / "asked.txt").read_text().splitlines()) == 1, "and nothing else is installed"
    program(clone / "inner", 'echo "$*" >> asked.txt')
    shutil.copy(clone / "inner", clone / ".venv" / "bin" / "python")
    assert made("cpu").returncode == 0
    first, second = (clone / "asked.txt").read_text().splitlines()[1:3]
    assert first.endswith("--no-deps -i https://download.pytorch.org/whl/cpu torch torchvision")
    assert second.endswith("-c constraints.txt -e .[test]")


def test_ci_runs_make_test_from_anywhere(tmp_path: Path) -> None:
    make = program(tmp_path / "bin" / "make", 'echo "$PWD: make $*"')
    for name in ("chromium", "npm"):
        program(tmp_path / "bin" / name, "exit 0")
    environment = os.environ | {"PATH": f"{make.parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(
        [ROOT / ".ci" / "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"{ROOT}: make test\n"


def test_the_workflows_call_what_there_is() -> None:
    """Each `make` of a workflow is a target, each path and extra exists."""
    makefile = (ROOT / "Makefile").read_text()
    runs = []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            runs += [step["run"] for step in job["steps"] if "run" in step]
    assert len(runs) > 5
    for line in runs:
        for target in re.findall(r"make (\w+)", line):
            assert f"\n{target}:" in makefile, line
        for path in re.findall(r"\btests/\S+", line):
            assert (ROOT / path).exists(), line
        for extra in re.findall(r"\.\[(\w+)\]", line):
            assert extra in PROJECT["optional-dependencies"], line

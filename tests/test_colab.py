"""A notebook in Colab's place: only its file at hand, no lensdiff, and `google.colab` loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement
from toys_setup import git

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STUB = "import google.colab\n"  # as each session of Colab has done
CLONE = f"lensdiff-v{PROJECT['version']}"
FIVE_MINUTES = 300  # seconds, to the first lenses
slow = pytest.mark.slow
linux = pytest.mark.skipif(sys.platform == "win32", reason="Colab is Linux")


def colab(test: object) -> object:
    """The marks of what runs in Colab's place."""
    return slow(linux(test))


def repository(folder: Path) -> Path:
    """A clone of the files as they are, whose only commit carries the version's tag."""
    place = folder / "origin"
    names = git("ls-files", "-co", "--exclude-standard", "-z", folder=ROOT).split(b"\0")
    for name in filter(None, names):
        path = Path(os.fsdecode(name))
        if (ROOT / path).is_file():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, place / path)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        git(*words, folder=place)
    git("tag", f"v{PROJECT['version']}", folder=place)
    return place


def kernel(folder: Path, given: str | None = None) -> None:
    """A kernel without lensdiff: `given`, or one that has the dependencies of this one, by path."""
    if given:
        describe(folder, given)
        return
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout
    site = Path(site.strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text("")
    describe(folder, str(python))


def describe(folder: Path, python: str) -> None:
    """Where Jupyter finds the kernel."""
    spec = folder / "jupyter" / "kernels" / "colab"
    spec.mkdir(parents=True)
    start = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "Colab"}))


def test_colabs_versions_are_within_the_bounds() -> None:
    """So that pip leaves them as they are: a session can't take another version of what it runs."""
    lines = (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8").splitlines()[1:]
    colab = dict(line.split("==") for line in lines)
    needs = [Requirement(text) for text in PROJECT["dependencies"]]
    shared = [one for one in needs if one.name in colab]
    assert len(shared) > 15 and {"torch", "ipywidgets", "ipykernel"} < {one.name for one in shared}
    assert [
        f"{one}, not {colab[one.name]}" for one in shared if colab[one.name] not in one.specifier
    ] == []


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /content, and a kernel without lensdiff.

    LENSDIFF_COLAB, a Python with Colab's own versions (tests/colab.txt), takes its place.
    """
    kernel(tmp_path, os.environ.get("LENSDIFF_COLAB"))
    instead = f"url.file://{repository(tmp_path)}.insteadOf"
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": instead}
    given |= {"GIT_CONFIG_VALUE_0": PROJECT["urls"]["Repository"]}
    given |= {"JUPYTER_PATH": str(tmp_path / "jupyter"), "LENSDIFF_PROFILE": "standard"}
    given |= {"LENSDIFF_QUIET": "1", "LENSDIFF_RUNS": str(tmp_path / "runs")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def opening(content: Path) -> nbformat.NotebookNode:
    """The first page up to its first picture; its cell for Colab installs below `content`."""
    page = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    shown = [
        any("image/png" in o.get("data", {}) for o in c.get("outputs", [])) for c in page.cells
    ]
    page.cells = page.cells[: shown.index(True) + 1]
    own = colab_cell(page)
    own.source = STUB + own.source.replace("/content", str(content))
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    return page


def colab_cell(page: nbformat.NotebookNode) -> nbformat.NotebookNode:
    (own,) = [cell for cell in page.cells if "colab" in cell.metadata.get("tags", [])]
    return own


def run(page: nbformat.NotebookNode, content: Path) -> None:
    place = {"metadata": {"path": str(content)}}
    NotebookClient(page, timeout=FIVE_MINUTES, kernel_name="colab", resources=place).execute()


@colab
def test_its_own_cell_leads_to_the_first_lenses_within_five_minutes(content: Path) -> None:
    """At profile standard; then in a session that was restarted, where all is installed."""
    page = opening(content)
    again = nbformat.v4.new_code_cell(colab_cell(page).source)  # as after Run all, once more
    page.cells.insert(page.cells.index(colab_cell(page)) + 1, again)
    start = time.monotonic()
    run(page, content)
    assert time.monotonic() - start < FIVE_MINUTES
    (words,) = colab_cell(page).outputs
    assert words.text.startswith("lensdiff is installed; notebooks and data lie in ")
    assert again.outputs == [], "what is installed is not installed again"
    assert any("image/png" in output.get("data", {}) for output in page.cells[-1].outputs)
    kept = (content / CLONE / "colab-constraints.txt").read_text().splitlines()
    assert {"torch", "numpy", "ipykernel", "ipywidgets"} <= {line.split("==")[0] for line in kept}
    assert len({line.split("==")[0] for line in kept}) == len(kept), "no package has two versions"
    restarted = opening(content)
    restarted.cells = restarted.cells[: restarted.cells.index(colab_cell(restarted)) + 1]
    restarted.cells.append(nbformat.v4.new_code_cell("import lensdiff as ld\nprint(ld.__file__)"))
    run(restarted, content)
    assert colab_cell(restarted).outputs == []
    assert restarted.cells[-1].outputs[0].text.strip().endswith(f"{CLONE}/lensdiff/__init__.py")


@colab
def test_a_failed_installation_stops_the_page_with_a_sentence_and_can_be_tried_again(
    content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opening(content)
    page.cells = page.cells[: page.cells.index(colab_cell(page)) + 1]
    with monkeypatch.context() as patch:
        patch.setenv("PIP_CONSTRAINT", str(content / "no-such-file"))
        with pytest.raises(CellExecutionError, match="lensdiff could not be installed: see above"):
            run(page, content)
    run(page, content)
    assert "lensdiff is installed" in colab_cell(page).outputs[-1].text


@colab
def test_without_a_network_the_page_stops(content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{content}/no-such-place.insteadOf")
    page = opening(content)
    page.cells = page.cells[: page.cells.index(colab_cell(page)) + 1]
    with pytest.raises(CellExecutionError, match=r"fatal: |No such file"):
        run(page, content)

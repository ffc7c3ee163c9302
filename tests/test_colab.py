"""A notebook in Colab's place: only its file at hand, no lensdiff, and `google.colab` loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STUB = "import google.colab\n"  # as each session of Colab has done


def repository(folder: Path) -> Path:
    """A clone of the files as they are, whose only commit carries the version's tag."""
    place = folder / "origin"
    listed = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0")
    for name in filter(None, names):
        path = Path(os.fsdecode(name))
        if (ROOT / path).is_file():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, place / path)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    subprocess.run(["git", "tag", f"v{PROJECT['version']}"], cwd=place, check=True)
    return place


def kernel(folder: Path) -> None:
    """A kernel whose environment has the dependencies of this one, by path, and no lensdiff."""
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout
    site = Path(site.strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text("")
    spec = folder / "jupyter" / "kernels" / "colab"
    spec.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Colab is Linux")
def test_its_own_cell_makes_the_notebook_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(tmp_path)
    url = PROJECT["urls"]["Repository"]
    instead = f"url.file://{repository(tmp_path)}.insteadOf"
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": instead, "GIT_CONFIG_VALUE_0": url}
    given |= {"JUPYTER_PATH": str(tmp_path / "jupyter"), "LENSDIFF_PROFILE": "smoke"}
    given |= {"LENSDIFF_QUIET": "1", "LENSDIFF_RUNS": str(tmp_path / "runs")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    content = tmp_path / "content"
    content.mkdir()
    page = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    (first,) = [cell for cell in page.cells if "colab" in cell.metadata.get("tags", [])]
    first.source = STUB + first.source.replace("/content", str(content))
    again = nbformat.v4.new_code_cell(first.source)  # as after Run all, once more
    page.cells.insert(page.cells.index(first) + 1, again)
    place = {"metadata": {"path": str(content)}}
    NotebookClient(page, timeout=300, kernel_name="colab", resources=place).execute()
    (words,) = first.outputs
    assert words.text.startswith("lensdiff is installed; notebooks and data lie in ")
    assert again.outputs == [], "what is installed is not installed again"
    kept = (content / "lensdiff" / "colab-constraints.txt").read_text()
    assert {"torch==", "numpy==", "ipykernel==", "ipywidgets=="} <= {
        line[: line.index("==") + 2] for line in kept.splitlines()
    }
    assert sum("image/png" in o.get("data", {}) for c in page.cells for o in c.get("outputs", []))

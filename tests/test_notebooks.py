"""Every committed notebook: how it opens and closes, what its outputs show, and that a wrong
parameter gives a sentence.
"""

from __future__ import annotations

import ast
import base64
import re
import statistics
from pathlib import Path

import pytest

from lensdiff.errors import LensdiffError
from lensdiff.notebook import files

ROOT = Path(__file__).resolve().parents[1]

PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
# checked where they are read
FOLDERS = (
    "checkpoint",
    "numbers_checkpoint",
    "judge_checkpoint",
    "data_folder",
    "inception_weights",
)
every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code(path: Path) -> list:
    return [cell for cell in files.read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n\n".join(
        cell.source for cell in files.read(path).cells if cell.cell_type == "markdown"
    )


def parameters(path: Path) -> dict[str, object]:
    """Name and committed value of each parameter."""
    cell = next(cell for cell in code(path) if "parameters" in cell.metadata.get("tags", []))
    return {
        node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body
    }


def test_the_series_is_there() -> None:
    assert [path.stem[:2] for path in PATHS][:6] == ["00", "01", "02", "03", "04", "05"]


@every
def test_it_opens_and_closes_as_the_series_does(path: Path) -> None:
    text = prose(path)
    assert text.startswith(f"# {path.stem[:2]} · ")
    for needed in (
        "**You will learn**",
        "**Run time**",
        "## Parameters",
        "## Summary",
        "## Common misconceptions",
        "## Exercises",
        "<details><summary><b>Answers</b>",
        "## References",
    ):
        assert needed in text, needed
    assert next(iter(parameters(path))) == "profile" and parameters(path)["profile"] == ""
    assert any("ld.notebook.versions()" in cell.source for cell in code(path))
    assert not re.findall(r"@[A-Z0-9]+@|TODO|TBD", text)


@every
def test_cells_are_short(path: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in code(path)]
    assert statistics.median(lengths) < 10 and max(lengths) <= 40


@every
def test_it_is_committed_executed_and_clean(path: Path) -> None:
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), (
        "run make notebooks"
    )
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"], (
        "a warning in an output is a defect"
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    shown = [output.get("text", "") for output in outputs]
    shown += [
        str(text)
        for output in outputs
        for kind, text in output.get("data", {}).items()
        if kind.startswith("text/")
    ]
    assert not [text for text in shown if "/tmp/" in text or str(ROOT) in text]


@every
def test_every_exercise_is_checked_and_its_answers_are_proved(path: Path) -> None:
    sources = [cell.source for cell in code(path)]
    text = prose(path)
    number = len(re.findall(r"^\*\*(\d)\.\*\*", text[text.index("## Exercises") :], re.M))
    assert 4 <= number <= 6
    for k in range(1, number + 1):
        check = rf"^answer_{k} = None.*^check_{k} = ld\.notebook\.check\(\s*answer_{k},"
        assert any(re.search(check, source, re.M | re.S) for source in sources), k
    answers = next(cell for cell in code(path) if "answers" in cell.metadata.get("tags", []))
    assert answers.metadata["jupyter"]["source_hidden"] and "ld.notebook.prove(" in answers.source
    assert f"{number} stored answers pass their checks" in "".join(
        output.get("text", "") for output in answers.outputs
    )


@every
def test_its_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    for target in targets:
        if not target.startswith(("http", "#")):
            file, _, anchor = target.partition("#")
            there = path.parent / file
            assert there.exists(), target
            if anchor:
                titles = [
                    title.strip().replace(" ", "-")
                    for title in re.findall(r"^#+ (.+)$", prose(there), re.M)
                ]
                assert anchor in titles, target


def lensdiff_imports(path: Path) -> list[str]:
    """The lines of a notebook that import lensdiff."""
    lines = [line for cell in code(path) for line in cell.source.splitlines()]
    return [line for line in lines if re.match(r"\s*(import|from) lensdiff", line)]


@every
def test_it_imports_lensdiff_in_one_line_and_opens_at_most_two_modules(path: Path) -> None:
    lines = lensdiff_imports(path)
    assert lines.count("import lensdiff as ld") == 1
    assert len(lines) <= 3, lines


def test_the_series_is_light() -> None:
    sizes = {path.name: path.stat().st_size / 1e6 for path in PATHS}
    assert sum(sizes.values()) < 8, sizes


@every
def test_its_figures_have_a_palette(path: Path) -> None:
    for cell in code(path):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output.data["image/png"])
                assert len(png) < 1.02 * len(files.palette(png)), "run make notebooks"


def wrong_values() -> list:
    """A value that can't be meant, for each parameter that is no folder."""
    found = []
    for path in PATHS:
        for name, value in parameters(path).items():
            if name not in FOLDERS:
                wrong = ["no-such-thing"] if isinstance(value, str | bool) else [-7, "three"]
                found += [
                    pytest.param(path, name, one, id=f"{path.stem[:2]}-{name}-{one}")
                    for one in wrong
                ]
    return found


@pytest.mark.parametrize("path, name, value", wrong_values())
def test_a_wrong_parameter_gives_a_sentence(
    path: Path, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells up to the one that checks the parameters, with one of them wrong."""
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("LENSDIFF_PROFILE", "smoke")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {}
    for cell in code(path):
        source = cell.source.replace("%matplotlib inline", "")
        if "ld.notebook.resolve_profile(" in source:
            with pytest.raises(LensdiffError, match=name):
                exec(source, namespace)
            return
        exec(source, namespace)
        if "parameters" in cell.metadata.get("tags", []):
            namespace[name] = value
    pytest.fail("no cell checks the parameters")

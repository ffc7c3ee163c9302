"""Each notebook as GitHub shows it: its widgets, its size, its pictures, its equations.

GitHub finds `$...$` by its own rules (https://docs.github.com/en/get-started/writing-on-github),
before MathJax sees them; in a table, a bar ends the cell even inside an equation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lensdiff.notebook import files
from lensdiff.storage import root

PATHS = sorted((root() / "notebooks").glob("*.ipynb"))
PAGES = [*PATHS, root() / "README.md", *sorted((root() / "data").rglob("README.md"))]
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
LARGEST = 1_500_000  # bytes; GitHub shows no notebook of several megabytes
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.S)
INLINE = re.compile(r"(?<![\\$])\$([^$\n]+?)(?<!\\)\$(?!\$)")
# macros that GitHub's MathJax refuses or does not know
REFUSED = re.compile(
    r"\\(?:newcommand|renewcommand|def|let|require|href|class|style|cssId|label|ref|eqref|tag|bm"
    r"|begin\{(?:align|equation|gather)\*?\})"
)


def texts(path: Path) -> list[str]:
    """The Markdown that GitHub sets: text cells, and outputs that are Markdown."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    found = []
    for cell in files.read(path).cells:
        if cell.cell_type == "markdown":
            found.append(cell.source)
        for output in cell.get("outputs", []):
            found.append(output.get("data", {}).get("text/markdown", ""))
    return found


def faults(text: str) -> list[str]:
    """What GitHub would not set as it is meant."""
    text = CODE.sub("", text)
    found = [f"refused: {one}" for one in REFUSED.findall(text)]
    shown = DISPLAY.findall(text)
    for equation in shown:
        if "\n\n" in equation:
            found.append(f"an empty line ends it: {equation}")
    rest = DISPLAY.sub("", text)
    for match in INLINE.finditer(rest):
        inner = match[1]
        before = rest[: match.start()][-1:]
        after = rest[match.end() :][:1]
        if inner[0].isspace() or inner[-1].isspace():
            found.append(f"a space inside the dollars: {match[0]}")
        if before.isalnum() or after.isalnum():
            found.append(f"a letter at the dollar: {before}{match[0]}{after}")
        line = rest[rest.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0]
        if line.startswith("|") and re.search(r"(?<!\\)\|", inner):
            found.append(f"a bar in a table: {match[0]}")
    for equation in [*shown, *(match[1] for match in INLINE.finditer(rest))]:
        if re.search(r"<[A-Za-z/!]", equation):
            found.append(f"it reads as HTML: {equation}")
        if equation.count("{") != equation.count("}"):
            found.append(f"braces don't pair: {equation}")
    left = INLINE.sub("", rest)
    found += [f"a dollar alone: {one}" for one in re.findall(r"(?<!\\)\$.{0,20}", left)]
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_its_equations_are_in_the_dialect_that_github_reads(path: Path) -> None:
    assert [fault for text in texts(path) for fault in faults(text)] == []


def test_equations_are_found() -> None:
    text = CODE.sub("", "".join(text for path in PAGES for text in texts(path)))
    assert len(DISPLAY.findall(text)) > 30 and len(INLINE.findall(DISPLAY.sub("", text))) > 300


@pytest.mark.parametrize(
    "text",
    [
        "for $ x$ here",
        "an $x$th",
        "| a | $|x|$ |",
        "$a<b$",
        "$$\\begin{align} x \\end{align}$$",
        "$\\bm{x}$",
        "costs $5",
        "${x$",
        "$$a\n\nb$$",
    ],
)
def test_a_fault_is_seen(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text", ["($x$), $y < z$; `$HOME`", "| a | $\\lvert x \\rvert$ |", "$$\\frac{a}{b}$$", "\\$5"]
)
def test_what_github_sets_is_no_fault(text: str) -> None:
    assert faults(text) == []


@each
def test_its_widgets_have_a_state_or_none_is_claimed(path: Path) -> None:
    """GitHub shows "Invalid Notebook" where `metadata.widgets` has no `state`."""
    page = json.loads(path.read_text(encoding="utf-8"))
    widgets = page["metadata"].get("widgets")
    assert widgets is None or all("state" in kind for kind in widgets.values())
    assert page["nbformat"] == 4 and page["metadata"]["kernelspec"]["language"] == "python"
    assert page["metadata"]["language_info"]["name"] == "python"
    if widgets is None:
        text = json.dumps([cell.get("outputs") for cell in page["cells"]])
        assert "application/vnd.jupyter.widget-view+json" not in text


@each
def test_it_is_small_and_its_pictures_are_in_it_or_lie_beside_it(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    for text in texts(path):
        for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", text):
            assert not target.startswith("http"), target
            assert target.startswith("data:image/") or (path.parent / target).is_file(), target
        for source in re.findall(r"<img[^>]*src=[\"']([^\"']+)", text):
            assert source.startswith("data:image/") or (path.parent / source).is_file(), source

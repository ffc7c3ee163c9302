"""Every committed notebook: how it opens and closes, what its outputs show, and that a wrong
parameter gives a sentence.
"""

from __future__ import annotations

import ast
import base64
import io
import re
import statistics
import tomllib
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from lensdiff.errors import LensdiffError
from lensdiff.notebook import files, opening, pictures, rules
from lensdiff.notebook.lessons import LESSONS, lesson

ROOT = Path(__file__).resolve().parents[1]

PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWNER = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code(path: Path) -> list:
    """The code cells that hold something."""
    cells = files.read(path).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def prose(path: Path) -> str:
    return "\n\n".join(
        cell.source for cell in files.read(path).cells if cell.cell_type == "markdown"
    )


def parameter_cells(path: Path) -> list:
    return [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]


def assigned(source: str) -> dict[str, object]:
    """Name and value of each assignment in a cell of parameters."""
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def parameters(path: Path) -> dict[str, object]:
    """Name and committed value of each parameter."""
    return assigned("\n".join(cell.source for cell in parameter_cells(path)))


def test_the_series_is_there() -> None:
    numbers = [path.stem[:2] for path in PATHS]
    assert numbers == [
        "00",
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
        "10",
        "11",
        "12",
        "13",
    ]
    assert numbers == sorted(LESSONS)


def test_the_map_of_the_series_and_the_readme_have_every_notebook() -> None:
    others = [path.name for path in PATHS[1:]]
    map_ = prose(PATHS[0]).partition("## The map of the series")[2].partition("## ")[0]
    assert re.findall(r"^\| \[[^]]*\]\((\S+)\)", map_, re.M) == others
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[\d\d [^]]*\]\(notebooks/(\S+)\)", readme, re.M)[1:] == others


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
        "## An open task",
        "## References",
    ):
        assert needed in text, needed
    assert next(iter(parameters(path))) == "profile" and parameters(path)["profile"] == ""
    assert not re.findall(r"@[A-Z0-9]+@|TODO|TBD", text)


@every
def test_cells_are_short(path: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in code(path)]
    assert statistics.median(lengths) < 10 and max(lengths) <= 30


@every
def test_paragraphs_are_short(path: Path) -> None:
    """No wall of text: a paragraph, or an item of a list, has at most 160 words."""
    texts = [cell.source for cell in files.read(path).cells if cell.cell_type == "markdown"]
    parts = [part for text in texts for part in re.split(r"\n\n+|\n(?=- |\d+\. |\|)", text)]
    assert not [part[:60] for part in parts if len(part.split()) > 160]


@every
def test_it_opens_in_colab_at_its_own_version(path: Path) -> None:
    """The badge and the first cell name this file, and what pyproject.toml says."""
    version = f"v{PROJECT['version']}"
    colab = f"https://colab.research.google.com/github/{OWNER}/blob/{version}/notebooks"
    page = files.read(path)
    assert f"[![Open in Colab](../figures/colab.svg)]({colab}/{path.name})" in page.cells[0].source
    (own,) = [cell for cell in page.cells if cell.metadata.get("tags") == ["colab"]]
    assert own.outputs == [] and '"google.colab" not in sys.modules' in own.source
    assert f"-b {version} https://github.com/{OWNER}" in own.source
    imports = [cell for cell in page.cells if "import lensdiff as ld" in cell.source]
    assert page.cells.index(own) < page.cells.index(imports[0])
    assert opening.opened(files.read(path), path.name) == files.read(path)


@every
def test_it_is_short(path: Path) -> None:
    assert len(files.read(path).cells) <= 70
    assert path.stat().st_size <= files.LARGEST


@every
def test_its_parameters_are_few_and_have_rules(path: Path) -> None:
    cells = parameter_cells(path)
    assert len(assigned(cells[0].source)) <= 8 and len(cells) <= 2
    for cell in cells[1:]:
        assert cell.source.startswith("# for experts:")
    number = path.stem[:2]
    assert set(parameters(path)) == {"profile", *lesson(number).PARAMETERS}
    assert sum(f'ld.notebook.start("{number}", globals())' in c.source for c in code(path)) == 1
    # papermill puts what is passed from outside in place of this cell, after all defaults
    tags = [cell.metadata.get("tags", []) for cell in files.read(path).cells]
    placed = [index for index, found in enumerate(tags) if "injected-parameters" in found]
    last = max(index for index, found in enumerate(tags) if "parameters" in found)
    assert placed == [last + 1]


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
def test_every_exercise_is_asked_and_answered_in_the_package(path: Path) -> None:
    number = path.stem[:2]
    text = prose(path)
    asked = re.findall(rf"^\*\*{number}\.(\d)\*\*", text[text.index("## Exercises") :], re.M)
    assert [int(k) for k in asked] == list(lesson(number).EXERCISES) and 4 <= len(asked) <= 6
    sources = [cell.source for cell in code(path)]
    for k in asked:
        answer = f"answer_{number}_{k}"
        cell = rf'{answer} = None(  #.*)?\nld\.check\("{number}\.{k}", {answer}\)'
        assert sum(bool(re.fullmatch(cell, source)) for source in sources) == 1, k
    whole = "\n".join([text, *sources])
    assert "<details><summary><b>Answers" not in whole


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
    assert sum(sizes.values()) < 1.0 * len(PATHS), sizes


@every
def test_its_figures_have_a_palette(path: Path) -> None:
    for cell in code(path):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output.data["image/png"])
                small = Image.open(io.BytesIO(png)).mode == "P"
                assert small or len(png) <= len(pictures.palette(png)), "run make notebooks"


def wrong_for(path: Path, name: str, value: object) -> list:
    """Values that a parameter can't have."""
    if name == "profile":
        return ["no-such-thing"]
    rule = lesson(path.stem[:2]).PARAMETERS[name]
    if isinstance(rule, rules.Text | rules.Place):
        return [3]
    if isinstance(rule, rules.Number):
        return [rule.low - 1, rule.high + 1, "three"]
    return ["no-such-thing"] if isinstance(value, str | bool) else [-7, "three"]


def wrong_values() -> list:
    """A value that can't be meant, for each parameter; a folder is checked where it is read."""
    found = []
    for path in PATHS:
        for name, value in parameters(path).items():
            wrong = wrong_for(path, name, value)
            if wrong:
                found += [
                    pytest.param(path, name, one, id=f"{path.stem[:2]}-{name}-{one}")
                    for one in wrong
                ]
    return found


@pytest.mark.parametrize("path, name, value", wrong_values())
def test_a_wrong_parameter_gives_a_sentence(
    path: Path, name: str, value: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cells up to the one that checks the parameters, with one of them wrong."""
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("LENSDIFF_PROFILE", "smoke")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("LENSDIFF_RUNS", str(tmp_path))
    namespace: dict[str, object] = {}
    for cell in code(path):
        source = TransformerManager().transform_cell(cell.source)  # of lines as !git and %run
        source = source.replace("get_ipython().run_line_magic('matplotlib', 'inline')", "")
        if "ld.notebook.start(" in source:
            with pytest.raises(LensdiffError, match=name):
                exec(source, namespace)
            return
        exec(source, namespace)
        if "parameters" in cell.metadata.get("tags", []):
            namespace[name] = value
    pytest.fail("no cell checks the parameters")


# ---- numbers in prose ----------------------------------------------------------------------------

UNREAD = (
    r"```.*?```",
    r"`[^`\n]*`",
    r"\$\$.*?\$\$",
    r"\$[^$]*\$",
    r"\[[^\]]*\]\([^)]*\)",  # a link, with the title it leads to
    r"https?://\S+",
    r"<[^>]*>",
    r'\*"[^"]*"\*',  # what a misconception says
    # decimals that are names: section 3.5, eq. 4.10, exercise 12.1
    r"\b(exercises?|sections?|eqs?\.|equations?|tables?|figures?) \d+\.\d+",
    r"^#+ [^\n]*$",
    r"^\s*\d+\. ",
    r"^\*\*\d\d\.\d\*\*",
    # the recorded run time, which the runner writes
    r"Run time on .*?\(recorded [^()]*\)\.",
)
NAMED = (
    # years, and the numbers of notebooks, sections, equations and the like
    r"\b(19|20)\d\d\b",
    r"\b(notebooks?|exercises?|sections?|eqs?\.|equations?|algorithm|table|figure|chapter|appendix)"
    r"\s+\[?\d[\d.]*(( to | and |, )\d[\d.]*)*",
    r"\bCommon Test \w+",
    r"\b\d\d · ",
    r"\*\*\d\d \w+",
    r"\b[A-Z]+-\d+\b",
    # a letter makes it a name: lens64, x0, H100, 2D; a power is a unit or a size
    r"\b\w*[A-Za-z]\w*\d\w*\b|\b\d+[A-Za-z]\w*\b",
    # sizes and shapes: 8 × 8, 64², (n, 1, 64, 64), 0 to 1
    r"\d[\d,]*\s*[×x]\s*\d[\d,]*(\s*[×x]\s*\d[\d,]*)*",
    r"\b\d+[²³]",
    r"\((n|\d+)(, [\w/]+)+\)|\[[-\d., ]+\]",
    # what a thing is by definition
    r"\b(mean|variance|multiple of|stride|factor of|level|group|class|seed|width) \d+\b",
    r"\bstep \d+",
    r"\b\d[\d,]*( (to|and|or) \d[\d,]*)?(\s|-)(pixels?|px|channels?|levels?|images?|groups?"
    r"|classes|places|heads|numbers|sinusoids?|frequencies|bits?|lenses|updates"
    r"|steps|samples|blocks?|arcsec|seeds)\b",
    r"\b[012]\b",
)


def typed_results(text: str) -> list[str]:
    """Numbers in Markdown that no definition explains, each with the words around it."""
    text = re.split(r"^## References", text, flags=re.M)[0]
    # what an exercise gives is given
    text = re.sub(r"^## Exercises.*?(?=^## |\Z)", "", text, flags=re.M | re.S)
    for pattern in UNREAD:
        text = re.sub(pattern, " ", text, flags=re.M | re.S)
    # a decimal or a percentage is never a definition
    measured = [m.span() for m in re.finditer(r"\d*\.\d+|\d[\d,.]*\s*%", text)]
    allowed = [m.span() for pattern in NAMED for m in re.finditer(pattern, text, re.I)]
    found = []
    for number in re.finditer(r"\d[\d,.]*", text):
        inside = [low <= number.start() < high for low, high in allowed]
        if any(low <= number.start() < high for low, high in measured) or not any(inside):
            found.append(text[max(0, number.start() - 30) : number.end() + 20].strip())
    return found


@every
def test_its_prose_holds_no_typed_result(path: Path) -> None:
    assert not typed_results(prose(path))


@pytest.mark.parametrize(
    "text",
    [
        "The distance is 0.033.",
        "It falls by 40 %.",
        "It takes 17 ms an image.",
        "The model has 6.2 million weights.",
        "It needs 3 minutes.",
        "It costs 38 MFLOPs.",
        "That is 5 times as far as in `x = 3`.",
        "After 91 of them the loss was below.",
        "# 02 · The U-Net\n\nIt falls by 40 %.\n\n## Exercises\n\nGiven 8 %.\n",
        '- *"It is 0.9."* No: it is 0.8.',
    ],
)
def test_a_typed_result_is_found(text: str) -> None:
    assert typed_results(text)


@pytest.mark.parametrize(
    "text",
    [
        "# 02 · The U-Net\n\nSee notebook 03, section 3.5, and [notebook 00](00_quickstart.ipynb).",
        "Vaswani et al. (2017), eq. 1; Ho et al. 2020, algorithm 2",
        "A map of 8 × 8 places from images of 64 pixels, 64² in all; lens150 folds 2 × 2.",
        "$\\sigma = 0.5$ and $$x = 0.25$$ and `width = 48`",
        "1. first\n2. second\n\n**02.3** What is it?",
        "## Exercises\n\n**02.3** At 8 %, what is it?\n\n## An open task\n\nTry it.",
        '- *"FID 6.0 beats 12.4."* By what?',
        "It has mean 0 and variance 1, and a multiple of 16.",
        "## 3.5 things\n\n## References\n\n- arXiv 1234.5678",
        "Run time on 2 CPU cores: 46 s with bfloat16 instructions (recorded 2026-11-27).",
    ],
)
def test_a_definition_may_stand_in_prose(text: str) -> None:
    assert not typed_results(text)


def test_every_lesson_has_its_page() -> None:
    assert {path.stem for path in PATHS} == {name[1:] for name in LESSONS.values()}

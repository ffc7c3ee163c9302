"""The student edition: the series without outputs and solutions; and a table of filled-in answers.

`python -m lensdiff notebooks --student` writes runs/student/NN_name.ipynb, in which every exercise
has a cell to work in, one for the answer and one that checks it. These carry nbgrader's metadata
(schema 3, https://nbgrader.readthedocs.io), so that a course may collect and grade them as they
are. `--check FILE` runs a filled-in page and says which answers are right.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from .. import storage
from ..errors import ParameterError
from . import exercises
from .files import read, series, tidy
from .lessons import lesson
from .opening import BADGE, project

FOLDER = "student"  # below runs/
# the sentence that tells where the solution is, with what comes before it on its line
TOLD = re.compile(r"^.*`ld\.solution\([^)]*\)` shows .*$", re.M)
ASKED = (
    "Work in the first cell of an exercise, put your answer in place of `None` in the second, and "
    "run the third, which checks it."
)
ANSWERED = re.compile(r'(answer_\d\d_\d) = None(?:  #.*)?\nld\.check\("(\d\d\.\d)", \1\)')
MARK = "lensdiff answers "  # begins the line that a checked page prints last
SECONDS = 900  # that a cell of a checked page may take


# ---- writing -------------------------------------------------------------------------------------


def edition(notebook: NotebookNode) -> NotebookNode:
    """A page of the series as students get it; the one that is given is changed.

    Outputs go, and where solutions are shown; each exercise gets three cells.
    """
    cells = []
    for cell in tidy(notebook).cells:
        found = ANSWERED.fullmatch(cell.source) if cell.cell_type == "code" else None
        if found is not None:
            cells += work(found[2], cell.source)
            continue
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        else:
            cell.source = elsewhere(TOLD.sub(ASKED, BADGE.sub("", cell.source)))
        cells.append(cell)
    notebook.cells = cells
    return notebook


def elsewhere(text: str) -> str:
    """Links to other folders of the repository, as addresses: a page may lie anywhere."""
    url, version = project()
    text = re.sub(r"(!\[[^\]]*\]\()\.\./", rf"\1{url}/raw/v{version}/", text)  # pictures
    return text.replace("](../", f"]({url}/blob/v{version}/")


def work(name: str, source: str) -> list[NotebookNode]:
    """The three cells of an exercise ("02.3"), from the one of the series."""
    answer, check = source.split("\n")
    place = name.replace(".", "-")
    free = new_code_cell(f"# your work on exercise {name}", metadata={"tags": ["work"]})
    given = new_code_cell(answer)
    checked = new_code_cell(check, metadata={"nbgrader": graded(f"check-{place}")})
    cells = [free, given, checked]
    for cell, kind in zip(cells, ("work", "answer", "check"), strict=True):
        cell.id = f"{kind}-{place}"
    return cells


def graded(name: str) -> dict:
    """nbgrader's metadata of a cell that grades an answer with one point.

    The answer's own cell has none: nbgrader empties a cell of that kind before it hands it out.
    """
    kind = {"grade_id": name, "schema_version": 3, "task": False, "cell_type": "code"}
    return {"grade": True, "solution": False, "locked": True, "points": 1, **kind}


def write(folder: Path, root: Path | None = None) -> list[Path]:
    """Write the student edition of every page into `folder`; returns the files.

    Raises ParameterError where a file is there already: it may hold somebody's answers.
    """
    pages = series((root or storage.root()) / "notebooks")
    there = [folder / page.name for page in pages if (folder / page.name).exists()]
    if there:
        cure = "Move it away, or give another folder: --runs DIR"
        raise ParameterError(f"{there[0]} is there already, perhaps with answers in it. {cure}.")
    if not pages:
        raise ParameterError("There are no notebooks here. Run this in a clone of the repository.")
    written = []
    for page in pages:
        path = folder / page.name
        storage.write_text(path, nbformat.writes(edition(read(page))) + "\n")
        written.append(path)
    return written


# ---- checking ------------------------------------------------------------------------------------


def check(path: Path, timeout: float = SECONDS) -> dict[str, str]:
    """What `ld.check` says of each answer of a filled-in page, which is run for it, from the top.

    A cell that fails leaves later ones to run; the answers that need it are then missing. Raises
    ParameterError for a file that is no page of the series, or whose kernel dies or hangs.
    """
    notebook = read(path)
    number = path.stem[:2]
    known = lesson(number).EXERCISES
    names = {f"{number}.{k}": f"answer_{number}_{k}" for k in known}
    notebook.cells.append(new_code_cell(grading(names)))
    options = {"timeout": timeout, "kernel_name": "python3", "allow_errors": True}
    place = {"metadata": {"path": str(storage.root() / "notebooks")}}
    try:
        NotebookClient(notebook, resources=place, **options).execute()
    except (CellTimeoutError, DeadKernelError) as error:
        first = str(error).strip().splitlines()[0]
        raise ParameterError(f"{path} does not run to its end: {first}") from error
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    found = [line for line in printed.splitlines() if line.startswith(MARK)]
    if not found:
        raise ParameterError(f"{path} printed no answers. Run it in Jupyter, and see its errors.")
    return json.loads(found[-1].removeprefix(MARK))


def grading(names: dict[str, str]) -> str:
    """The cell that is run last: the verdict on each of `names`, which a page may not have.

    What an answer prints while it is checked is not shown.
    """
    lines = [
        "import contextlib, io, json",
        "from lensdiff.notebook import exercises",
        f"names = {names!r}",
        "with contextlib.redirect_stdout(io.StringIO()):",
        "    found = {n: exercises.verdict(n, globals().get(own)) for n, own in names.items()}",
        f"print({chr(10) + MARK!r} + json.dumps(found))",
    ]
    return "\n".join(lines)


def pages(path: Path) -> list[Path]:
    """A page, or the pages of a folder. Raises ParameterError where there is none."""
    place = storage.root() / "notebooks"
    known = {page.stem[:2] for page in series(place)}
    if not known:
        raise ParameterError(f"{place} holds no notebooks. Run this in a clone of the repository.")
    found = [path] if path.is_file() else series(path)
    found = [page for page in found if page.stem[:2] in known]
    if not found:
        cure = "Give a page whose name begins with its number, 00_quickstart.ipynb, or a folder"
        raise ParameterError(f"{path} holds no page of the series. {cure}.")
    return found


def report(path: Path) -> int:
    """Print a table of the answers in each page; returns 0 where all are right, else 1.

    A page that can't be checked is named, and the others are gone on with.
    """
    good = True
    for page in pages(path):
        print(page.name)
        try:
            rows = check(page)
        except ParameterError as error:
            print(error)
            good = False
            continue
        for name, words in rows.items():
            state, _, rest = words.removeprefix(f"{name} ").partition(":")
            print(f"{name}  {state.rstrip('.'):14}{rest}")
        right = sum(exercises.is_right(name, words) for name, words in rows.items())
        print(f"{right} of {len(rows)} right", flush=True)
        good = good and right == len(rows)
    return 0 if good else 1

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
from .files import read, tidy
from .lessons import lesson

FOLDER = "student"  # below runs/
QUESTION = re.compile(r"^\*\*(\d\d\.\d)\*\*", re.M)
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
            cell.source = TOLD.sub(ASKED, cell.source)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def work(name: str, source: str) -> list[NotebookNode]:
    """The three cells of an exercise ("02.3"), from the one of the series."""
    answer, check = source.split("\n")
    place = name.replace(".", "-")
    free = new_code_cell(f"# your work on exercise {name}", metadata={"tags": ["work"]})
    given = new_code_cell(answer, metadata={"nbgrader": graded(f"answer-{place}", False)})
    checked = new_code_cell(check, metadata={"nbgrader": graded(f"check-{place}", True)})
    cells = [free, given, checked]
    for cell, kind in zip(cells, ("work", "answer", "check"), strict=True):
        cell.id = f"{kind}-{place}"
    return cells


def graded(name: str, grade: bool) -> dict:
    """nbgrader's metadata of a cell that holds an answer, or that grades it with one point."""
    common = {"grade_id": name, "schema_version": 3, "task": False, "cell_type": "code"}
    points = {"points": 1} if grade else {}
    return {"grade": grade, "solution": not grade, "locked": grade, **points, **common}


def write(folder: Path, root: Path | None = None) -> list[Path]:
    """Write the student edition of every page into `folder`; returns the files.

    Raises ParameterError where a file is there already: it may hold somebody's answers.
    """
    pages = sorted(((root or storage.root()) / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    there = [folder / page.name for page in pages if (folder / page.name).exists()]
    if there:
        cure = "Move it away, or give another folder: --runs DIR"
        raise ParameterError(f"{there[0]} is there already, perhaps with answers in it. {cure}.")
    written = []
    for page in pages:
        path = folder / page.name
        folder.mkdir(parents=True, exist_ok=True)
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
    place = {"metadata": {"path": str(storage.root() / "notebooks")}}
    client = NotebookClient(notebook, timeout=timeout, allow_errors=True, resources=place)
    try:
        client.execute()
    except (CellTimeoutError, DeadKernelError) as error:
        first = str(error).strip().splitlines()[0]
        raise ParameterError(f"{path} does not run to its end: {first}") from error
    for output in notebook.cells[-1].outputs:
        for line in output.get("text", "").splitlines():
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
    raise ParameterError(f"{path} printed no answers. Run it in Jupyter and look at its errors.")


def grading(names: dict[str, str]) -> str:
    """The cell that is run last: the verdict on each of `names`, which a page may not have."""
    lines = [
        "import json",
        "from lensdiff.notebook import exercises",
        f"names = {names!r}",
        "found = {n: exercises.verdict(n, globals().get(own)) for n, own in names.items()}",
        f"print({MARK!r} + json.dumps(found))",
    ]
    return "\n".join(lines)


def pages(path: Path) -> list[Path]:
    """A page, or the pages of a folder. Raises ParameterError where there is none."""
    found = [path] if path.is_file() else sorted(path.glob("[0-9][0-9]_*.ipynb"))
    known = {page.stem[:2] for page in (storage.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    found = [page for page in found if page.stem[:2] in known]
    if not found:
        cure = "Give a page whose name begins with its number, 00_quickstart.ipynb, or a folder"
        raise ParameterError(f"{path} holds no page of the series. {cure}.")
    return found


def report(path: Path) -> int:
    """Print a table of the answers in a page or a folder; returns 0 where all are right, else 1."""
    rows = {}
    for page in pages(path):
        rows |= check(page)
    for name, words in rows.items():
        state, _, rest = words.removeprefix(f"{name} ").partition(":")
        print(f"{name}  {state.rstrip('.'):14}{rest}")
    right = sum(exercises.is_right(name, words) for name, words in rows.items())
    print(f"{right} of {len(rows)} right")
    return 0 if right == len(rows) else 1

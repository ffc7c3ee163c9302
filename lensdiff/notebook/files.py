"""Notebook files: read them, see what they are made of, and tidy executed ones to be committed."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path

import nbformat

from ..errors import ParameterError
from ..storage import root, write_text
from .opening import opened
from .pictures import keep_alike, shrink

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LARGEST = 1_500_000  # bytes of a committed notebook, which GitHub still shows quickly
WIDGET = "application/vnd.jupyter.widget-view+json"
LANGUAGE = {
    "name": "python",
    "version": "3",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`. Raises ParameterError with a sentence if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        reason = ANSI.sub("", str(error))
        raise ParameterError(f"{path} can't be read as a notebook: {reason}") from error


def sources(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Kind and source of each cell: all that an execution depends on, no output."""
    return [[cell.cell_type, cell.source] for cell in notebook.cells]


def parameter_names(notebook: nbformat.NotebookNode) -> set[str]:
    """The names assigned in the cells tagged `parameters`; none where those aren't Python."""
    cells = [
        c.source
        for c in notebook.cells
        if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])
    ]
    names: set[str] = set()
    try:
        tree = ast.parse("\n".join(cells))
    except SyntaxError:
        return names
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def anchor(title: str) -> str:
    """What follows the # of a link to a heading, as Jupyter has it."""
    return title.strip().replace(" ", "-")


# ---- what GitHub can render ----------------------------------------------------------------------


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook as committed, changed in place and returned.

    It has no widget state, run-time metadata, colour codes or machine paths.
    """
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if renders(output)]
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.pop("metadata", None)
                clean_text(output)
            shrink(cell)
    return notebook


def renders(output: nbformat.NotebookNode) -> bool:
    """Takes the live widget out of an output; False where nothing but its name would be left."""
    had_widget = output.get("data", {}).pop(WIDGET, None) is not None
    return not had_widget or bool(set(output.data) - {"text/plain"})


def clean_text(output: nbformat.NotebookNode) -> None:
    """Strip colour codes and machine paths from an output's texts; pictures are left alone."""
    for key in ("text", "evalue"):
        if key in output:
            output[key] = plain(output[key])
    data = output.get("data", {})
    for key in data:
        if key.startswith("text/"):
            data[key] = plain(data[key])
    if "traceback" in output:
        output.traceback = [plain(line) for line in output.traceback]


def plain(text: str) -> str:
    """`text` without colour codes, and with paths as they are from the repository's top."""
    text = re.sub(r"(?<!\S)\S*/ipykernel_\d+/\d+\.py", "<cell>", ANSI.sub("", text))
    text = text.replace(f"{root()}{os.sep}", "").replace(str(root()), ".")
    text = text.replace(sys.prefix, "<python>")
    return re.sub(re.escape(str(Path.home())) + r"(?=[/\\])", "~", text)


# ---- writing -------------------------------------------------------------------------------------


def too_large(notebook: nbformat.NotebookNode) -> str:
    """A sentence with the size and the largest cells of a notebook above `LARGEST`; else empty."""
    size = len(nbformat.writes(notebook).encode())
    if size <= LARGEST:
        return ""
    sizes = [(len(json.dumps(cell)), index) for index, cell in enumerate(notebook.cells)]
    largest = []
    for bytes_of_cell, index in sorted(sizes, reverse=True)[:3]:
        count = notebook.cells[index].get("execution_count")
        name = f"[{count}]" if count else f"Markdown at index {index}"
        largest.append(f"{name} {bytes_of_cell / 1e6:.2f} MB")
    limit = f"more than {LARGEST / 1e6:g} MB"
    return f"is {size / 1e6:.2f} MB, {limit}; its largest cells: {', '.join(largest)}."


def series(folder: Path) -> list[Path]:
    """The notebooks of a folder, in their order, without copies of JupyterLab and broken writes."""
    pages = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    return [page for page in pages if "-Copy" not in page.stem and not page.stem.endswith(".part")]


def open_again(folder: Path) -> list[Path]:
    """Give the pages of a folder badge and opening cell as they are now, and run nothing.

    For another address or version in pyproject.toml. Returns the pages that changed.
    """
    changed = []
    for path in series(folder):
        text = nbformat.writes(opened(read(path), path.name)) + "\n"
        if text != path.read_text(encoding="utf-8"):
            write_text(path, text)
            changed.append(path)
    return changed


def publish(run: Path, committed: Path) -> None:
    """Replace the committed notebook by its tidied run, unless someone edited it while it ran.

    A page of the series opens as all do: see `opening`. Pictures that look as before stay.
    One that is too large is written all the same, with a sentence that names its largest cells.
    """
    executed = read(run)
    before = read(committed)
    if sources(executed) != sources(before):
        print(f"{committed.name} was edited while it ran and is left as it is; run it again.")
        return
    tidy(executed)
    for cell, stored in zip(executed.cells, before.cells, strict=True):
        keep_alike(cell, stored)
    if committed.parent == root() / "notebooks":
        opened(executed, committed.name)
    problem = too_large(executed)
    if problem:
        print(f"{committed.name} {problem}")
    write_text(committed, nbformat.writes(executed) + "\n")

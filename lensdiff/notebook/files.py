"""Notebook files: read them, see what they are made of, and tidy them so that an executed one is
fit to be committed.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
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
    """The notebook at `path`. Raises SystemExit with a sentence if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise SystemExit(
            f"{path} can't be read as a notebook: {ANSI.sub('', str(error))}"
        ) from error


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
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


# ---- what GitHub can render ----------------------------------------------------------------------


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook as committed: no widget state, run-time metadata, colour codes or
    machine paths; changed in place and returned.
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
                output.pop("metadata", None) if output.output_type == "stream" else None
                clean_text(output)
    return notebook


def renders(output: nbformat.NotebookNode) -> bool:
    """Takes the live widget out of an output; False where nothing but its name would be left."""
    had_widget = output.get("data", {}).pop(WIDGET, None) is not None
    return not had_widget or bool(set(output.data) - {"text/plain"})


def clean_text(output: nbformat.NotebookNode) -> None:
    """Strip colour codes and machine paths from an output's texts; pictures are left alone."""
    for holder, key in [(output, key) for key in ("text", "evalue") if key in output] + [
        (output.get("data", {}), key) for key in output.get("data", {}) if key.startswith("text/")
    ]:
        holder[key] = plain(holder[key])
    if "traceback" in output:
        output.traceback = [plain(line) for line in output.traceback]


def plain(text: str) -> str:
    """`text` without colour codes, and with paths as they are from the repository's top."""
    text = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "<cell>", ANSI.sub("", text))
    text = (
        text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".").replace(sys.prefix, "<python>")
    )
    return re.sub(re.escape(str(Path.home())) + r"(?=[/\\])", "~", text)


# ---- writing -------------------------------------------------------------------------------------


def save(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def publish(run: Path, committed: Path) -> None:
    """Replace the committed notebook by its tidied run, unless someone edited it while it ran."""
    executed = read(run)
    if sources(executed) != sources(read(committed)):
        print(f"{committed.name} was edited while it ran and is left as it is; run it again.")
        return
    save(committed, nbformat.writes(tidy(executed)) + "\n")

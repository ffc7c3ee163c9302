"""How each page of the series opens: a badge for Colab, and a cell that installs or looks."""

from __future__ import annotations

import tomllib

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ..storage import root

TAG = "colab"  # of the cell
CELL = """\
# In Colab this installs lensdiff, at this notebook's version; elsewhere it only looks for it.
import importlib.util
import pathlib
import runpy
import subprocess
import sys

if "google.colab" in sys.modules:
    url, place = "{url}", pathlib.Path("/content/lensdiff")
    options = ["-c", "advice.detachedHead=false", "-q", "--depth", "1", "-b", "v{version}"]
    if not (place / "notebooks").exists():
        subprocess.run(["git", "clone", *options, url, str(place)], check=True)
    runpy.run_path(str(place / "notebooks" / "colab.py"))
if importlib.util.find_spec("lensdiff") is None:
    cure = "Start Jupyter by `make lab`, or choose the kernel of the environment that it made."
    raise ImportError(f"This kernel has no lensdiff. {{cure}}")"""


def project() -> tuple[str, str]:
    """The repository's address and the version, of pyproject.toml."""
    about = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return about["urls"]["Repository"], about["version"]


def badge(name: str) -> str:
    """The link that opens the page `name` (00_quickstart.ipynb) in Colab, as a picture."""
    url, version = project()
    colab = url.replace("https://github.com", "https://colab.research.google.com/github")
    return f"[![Open in Colab](../figures/colab.svg)]({colab}/blob/v{version}/notebooks/{name})"


def is_opening(cell: NotebookNode) -> bool:
    """Whether a cell is the one of this module."""
    return TAG in cell.metadata.get("tags", [])


def opened(notebook: NotebookNode, name: str) -> NotebookNode:
    """The page with badge and first cell as they are now, changed in place and returned.

    Execution counts are those of a run from the top.
    """
    title, *others = notebook.cells[0].source.split("\n")
    others = [line for line in others if not line.startswith("[![Open in Colab]")]
    rest = "\n".join(others).strip()
    notebook.cells[0].source = f"{title}\n\n{badge(name)}\n\n{rest}".rstrip()
    url, version = project()
    first = new_code_cell(CELL.format(url=url, version=version), metadata={"tags": [TAG]})
    first.id = TAG
    cells = [cell for cell in notebook.cells if not is_opening(cell)]
    notebook.cells = [cells[0], first, *cells[1:]]
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    if any(cell.execution_count for cell in code):
        for number, cell in enumerate(code, 1):
            cell.execution_count = number
    return notebook

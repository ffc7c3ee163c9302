"""How each page of the series opens in Colab: a badge, and a cell that installs the package."""

from __future__ import annotations

import re
import tomllib

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ..storage import root

TAG = "colab"  # of the cell
BEFORE = "injected-parameters"  # the tag of the cell that it follows: the imports come next
BADGE = re.compile(r"^\[!\[Open in Colab\].*\n+", re.M)
CELL = """\
import importlib.util  # Colab has no lensdiff at first, and installs this page's version of it
import runpy
import sys

if not getattr(importlib.util.find_spec("lensdiff"), "origin", None):  # a clone has none
    if "google.colab" not in sys.modules:
        raise ImportError("This kernel has no lensdiff: take that of .venv, as `make lab` does.")
    !git -C /content -c advice.detachedHead=false clone -q --depth 1 \\
        -b v{version} {url} lensdiff-v{version}
    runpy.run_path("/content/lensdiff-v{version}/notebooks/colab.py")"""


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
    """The page with badge and cell as they are now, changed in place and returned.

    Execution counts are those of a run from the top.
    """
    title, _, rest = BADGE.sub("", notebook.cells[0].source).partition("\n")
    notebook.cells[0].source = f"{title}\n\n{badge(name)}\n\n{rest.strip()}"
    url, version = project()
    own = new_code_cell(CELL.format(url=url, version=version), metadata={"tags": [TAG]})
    own.id = TAG
    cells = [cell for cell in notebook.cells if not is_opening(cell)]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    place = next(i for i, found in enumerate(tags) if BEFORE in found) + 1
    notebook.cells = [*cells[:place], own, *cells[place:]]
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    if any(cell.execution_count for cell in code):
        for number, cell in enumerate(code, 1):
            cell.execution_count = number
    return notebook

"""Small notebooks that the tests of the runner write and read."""

from __future__ import annotations

from pathlib import Path

import nbformat

LEAVES_A_MARK = (
    "import os, pathlib\nmark = pathlib.Path(os.environ['LENSDIFF_RUNS']) / 'mark.txt'\n"
)
SEEN = (
    "print(os.environ['LENSDIFF_PROFILE'], os.environ['LENSDIFF_QUIET'], pathlib.Path.cwd().name)"
)
FIRST = LEAVES_A_MARK + "mark.write_text('lens')\n" + SEEN
SECOND = LEAVES_A_MARK + "print('found', mark.read_text())"


def write(path: Path, *cells: str, parameters: str = "") -> None:
    """A notebook of these code cells, with a parameters cell before them where one is given."""
    nodes = [nbformat.v4.new_markdown_cell("# A notebook")]
    if parameters:
        nodes.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nodes += [nbformat.v4.new_code_cell(cell) for cell in cells]
    for number, node in enumerate(nodes):
        node.id = f"cell-{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=nodes), path)


def printed(notebook: Path) -> str:
    """All that the notebook printed."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))

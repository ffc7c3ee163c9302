"""A cell of a page that is run again, after any other, finds the names that it found at first.

A name that one cell hands to another is written by that cell alone, and a parameter by no other:
else a cell that is run again would take what a later one left there.
"""

from __future__ import annotations

import dis
import json
from collections.abc import Iterator
from types import CodeType

import pytest

from lensdiff.storage import root

# Functions run when they are called, these where they stand (a lambda mostly)
AT_ONCE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>")
PAGES = sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def traffic(code: CodeType, before: frozenset = frozenset()) -> tuple[set, set]:
    """Global names that a cell takes from outside, and those that it writes."""
    taken = set()
    written = set(before)
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_NAME", "STORE_GLOBAL"):
            written.add(step.argval)
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in written:
            taken.add(step.argval)
        elif isinstance(step.argval, CodeType):
            known = frozenset(written) if step.argval.co_name in AT_ONCE else frozenset()
            inner, more = traffic(step.argval, known)
            taken |= inner
            written |= more
    return taken, written


def cells_of(text: str) -> Iterator[tuple[str, set, set]]:
    """Of each code cell its place, what it takes and what it writes; Colab's are left out."""
    for number, cell in enumerate(json.loads(text)["cells"]):
        lines = "".join(cell["source"]).splitlines()
        shell = any(line.lstrip().startswith("!") or line.startswith("%%") for line in lines)
        if cell["cell_type"] != "code" or shell or "%pip" in "".join(lines):
            continue
        plain = "\n".join(line for line in lines if not line.startswith("%"))
        words = "parameters" if "parameters" in cell["metadata"].get("tags", []) else f"{number}"
        yield words, *traffic(compile(plain, words, "exec"))


def written_twice(text: str) -> dict[str, list[str]]:
    """Names that a cell takes from another, or that are parameters, and the cells that write them.

    Only those that more than one cell writes.
    """
    cells = list(cells_of(text))
    given = {name for words, _, writes in cells if words == "parameters" for name in writes}
    for _, taken, _ in cells:
        given |= taken
    by = {name: [words for words, _, writes in cells if name in writes] for name in given}
    return {name: sorted(set(places)) for name, places in by.items() if len(set(places)) > 1}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_cells_share_has_one_writer(page) -> None:
    assert not written_twice(page.read_text(encoding="utf-8"))


def a_page(*cells: str, parameters: str = "n = 3") -> str:
    kinds = [{"tags": ["parameters"]}, *[{}] * len(cells)]
    sources = (parameters, *cells)
    made = [
        {"cell_type": "code", "metadata": kind, "source": source.splitlines(keepends=True)}
        for kind, source in zip(kinds, sources, strict=True)
    ]
    return json.dumps({"cells": made})


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (("x = 1", "print(x)", "x = 2"), {"x": ["1", "3"]}),
        (("x = 1", "def f():\n    return x", "x = 2"), {"x": ["1", "3"]}),
        (("x = 1\ndef f():\n    return x", "x = 2", "f()"), {"x": ["1", "2"]}),
        (("x = [1]", "y = [x for _ in range(2)]", "x = 2"), {"x": ["1", "3"]}),
        (("x = 1", "x = x + 1"), {"x": ["1", "2"]}),
        (("n = 4",), {"n": ["1", "parameters"]}),
        (("for n in range(3):\n    pass",), {"n": ["1", "parameters"]}),
        (("x = 1\nprint(x)", "x = 2\nprint(x)"), {}),
        (("x = 1", "y = [x * x for x in range(3)]"), {}),
        (("%matplotlib inline\nx = 1", "print(x, f'{n}')"), {}),
        (("!ls\nx = 1", "x = 2", "print(x)"), {}),
    ],
)
def test_names_that_would_not_survive_are_found(cells, found) -> None:
    assert written_twice(a_page(*cells)) == found

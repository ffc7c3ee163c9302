"""A repository of two small notebooks, for the tests of the runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys_notebooks import FIRST, SECOND, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of two notebooks, of which the second needs what the first leaves."""
    write(tmp_path / "notebooks" / "00_first.ipynb", FIRST)
    write(tmp_path / "notebooks" / "01_second.ipynb", SECOND)
    for name in ("lensdiff/model.py", "constraints.txt", "data/checkpoints/lens/weights"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    return tmp_path

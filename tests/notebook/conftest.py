"""What the tests of notebooks share: a repository of two small ones, and a figure."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from toys_notebooks import FIRST, SECOND, write

from lensdiff.notebook import plots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of two notebooks, of which the second needs what the first leaves."""
    write(tmp_path / "notebooks" / "00_first.ipynb", FIRST)
    write(tmp_path / "notebooks" / "01_second.ipynb", SECOND)
    for name in ("lensdiff/model.py", "constraints.txt", "data/checkpoints/lens/weights"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    return tmp_path


@pytest.fixture
def figure() -> bytes:
    """A figure as a notebook has it: lenses in the map of colours, titles, a curve."""
    rng = np.random.default_rng(0)
    smooth = np.outer(np.hanning(40), np.hanning(40))
    images = smooth * rng.random((8, 1, 1)) + 0.05 * rng.random((8, 40, 40))
    made = plots.grid(images[:, None], columns=4, titles=list("abcdefgh"), heading="eight lenses")
    data = io.BytesIO()
    made.savefig(data, format="png")
    plt.close(made)
    return data.getvalue()

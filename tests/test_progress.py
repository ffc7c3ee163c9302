"""Progress bars: shown to a user, silent where nobody watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lensdiff import runtime
from lensdiff.data.images import simulated
from lensdiff.lensing.survey import diverse
from lensdiff.runtime import progress
from lensdiff.training.state import Curve

SURVEY = diverse(16)


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a user runs it: conftest.py sets LENSDIFF_QUIET."""
    monkeypatch.delenv("LENSDIFF_QUIET")
    runtime.quiet.cache_clear()
    yield
    runtime.quiet.cache_clear()


def test_progress_is_silent_where_that_is_requested(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    runtime.quiet.cache_clear()
    assert list(progress(range(3), what="counting")) == [0, 1, 2]
    simulated(SURVEY, 3, 3, cache=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_to_a_user(
    tmp_path: Path, capfd: pytest.CaptureFixture, loud: None
) -> None:
    assert list(progress(range(3), what="counting")) == [0, 1, 2]
    assert "counting" in capfd.readouterr().err
    simulated(SURVEY, 3, 3, cache=tmp_path)
    assert "diverse-16: 3 images" in capfd.readouterr().err


@pytest.mark.parametrize("first", [1, 251])
def test_a_resumed_training_is_shown_from_where_it_goes_on(
    first: int, monkeypatch: pytest.MonkeyPatch, loud: None
) -> None:
    bars = []
    shown = runtime.tqdm

    def kept(*given: object, **named: object) -> runtime.tqdm:
        bars.append(shown(*given, **named))
        return bars[-1]

    monkeypatch.setattr(runtime, "tqdm", kept)
    steps = [SimpleNamespace(number=n, loss=1.0, held_out=None) for n in range(first, 401)]
    numbers = []
    for step in Curve(None).watch(steps, 400, "training"):
        numbers.append(step.number)
        assert bars[0].n == step.number
        assert bars[0].last_print_n >= first - 1  # what its speed is measured from
    assert numbers == list(range(first, 401))
    assert (bars[0].initial, bars[0].total) == (first - 1, 400)


def test_progress_is_silent_under_papermill(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, loud: None
) -> None:
    class Process:
        def parent(self) -> Process:
            return self

        def cmdline(self) -> list[str]:
            return ["/usr/bin/python", "/venv/bin/papermill", "in.ipynb", "out.ipynb"]

    monkeypatch.setattr(runtime.psutil, "Process", Process)
    assert list(progress(range(3), what="counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")

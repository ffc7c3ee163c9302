"""Progress bars: shown to a user, silent where nobody watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lensdiff import runtime
from lensdiff.data.images import simulated
from lensdiff.lensing.survey import diverse
from lensdiff.runtime import progress

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

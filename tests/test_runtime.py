"""Where a computation runs."""

from __future__ import annotations

import pytest

from lensdiff import runtime


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["python", "bin/papermill", "a.ipynb"], True), (["python", "bin/jupyter-lab"], False)],
)
def test_no_progress_bar_under_papermill(
    monkeypatch: pytest.MonkeyPatch, words: list[str], expected: bool
) -> None:
    monkeypatch.delenv("LENSDIFF_QUIET", raising=False)
    monkeypatch.setattr(runtime.psutil.Process, "cmdline", lambda self: words)
    runtime.quiet.cache_clear()
    try:
        assert runtime.quiet() is expected
        assert runtime.progress(total=3).disable is expected
    finally:
        runtime.quiet.cache_clear()

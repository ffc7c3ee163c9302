"""Where a computation runs."""

from __future__ import annotations

import pytest

from lensdiff import runtime
from lensdiff.errors import ParameterError


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


def test_a_precision_can_be_chosen_for_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSDIFF_PRECISION", raising=False)
    own = runtime.best_precision("cpu")
    assert own == ("bf16" if runtime.cpu_has_bf16() else "fp32")
    for precision in ("fp32", "bf16"):
        monkeypatch.setenv("LENSDIFF_PRECISION", precision)
        assert runtime.best_precision("cpu") == precision
    monkeypatch.setenv("LENSDIFF_PRECISION", "")
    assert runtime.best_precision("cpu") == own
    monkeypatch.setenv("LENSDIFF_PRECISION", "fp8")
    with pytest.raises(ParameterError, match=r"^LENSDIFF_PRECISION is 'fp8'\. Set it to 'fp32' or"):
        runtime.best_precision()

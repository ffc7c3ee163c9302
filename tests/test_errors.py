"""Errors on purpose are one family, and show themselves in a notebook as one sentence."""

from __future__ import annotations

import pytest

from lensdiff import errors
from lensdiff.errors import LensdiffError

BUILT_IN = {
    "DataError": ValueError,
    "CheckpointError": ValueError,
    "TrainingError": RuntimeError,
    "SamplingError": ValueError,
    "MetricError": ValueError,
    "ParameterError": ValueError,
    "StorageError": OSError,
}


def test_all_of_them_are_known() -> None:
    found = [one for one in vars(errors).values() if isinstance(one, type)]
    assert {one.__name__ for one in found} == {"LensdiffError", *BUILT_IN}


@pytest.mark.parametrize(("name", "built_in"), BUILT_IN.items())
def test_errors_are_one_family(name: str, built_in: type) -> None:
    """A notebook shows a LensdiffError as one sentence; a program may catch the built-in kind."""
    error = getattr(errors, name)
    assert issubclass(error, LensdiffError) and issubclass(error, built_in)
    assert error("No. Do so.")._render_traceback_() == [f"{name}: No. Do so."]

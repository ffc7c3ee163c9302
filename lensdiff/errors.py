"""Errors that lensdiff raises on purpose.

Each names what is wrong and the cure; a notebook shows the sentence, not a stack trace.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable


class LensdiffError(Exception):
    """Base of all of them."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a stack trace."""
        return [f"{type(self).__name__}: {self}"]


class DataError(LensdiffError, ValueError):
    """Something is wrong with the data."""


class CheckpointError(LensdiffError, ValueError):
    """A checkpoint is missing, damaged or of another make."""


class TrainingError(LensdiffError, RuntimeError):
    """Training can't go on."""


class SamplingError(LensdiffError, ValueError):
    """A sampler was asked for something it can't do, or gave no finite images."""


class MetricError(LensdiffError, ValueError):
    """A score can't be computed or would mean nothing."""


class ParameterError(LensdiffError, ValueError):
    """A notebook was given a parameter it can't use."""


def in_one_sentence(main: Callable[[], int]) -> Callable[[], int]:
    """A script's `main` that says what is wrong on stderr, and ends with status 1, in place of a
    stack trace.
    """

    @functools.wraps(main)
    def told() -> int:
        try:
            return main()
        except (LensdiffError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1

    return told

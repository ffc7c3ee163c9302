"""Errors that lensdiff raises on purpose.

Each names what is wrong and the cure; a notebook shows the sentence, not a stack trace.
"""

from __future__ import annotations


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
    """A setting or a parameter that can't be used."""


class StorageError(LensdiffError, OSError):
    """A file or folder can't be written."""

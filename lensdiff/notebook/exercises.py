"""Exercises: an answer is right, not yet (with the hint that its mistake calls for), or missing."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from IPython.display import Markdown, display

from ..errors import ParameterError
from .lessons import lesson

NBGRADER = "NBGRADER_EXECUTION"  # what it sets where it grades or validates


@dataclass(frozen=True)
class Exercise:
    """An exercise of a notebook, without its question, which stands on the page.

    - `answer`: the stored answer: a number, a text, a list, or a function
    - `explanation`: why it is right; its first line is shown with "right"
    - `mistakes`: five or more pairs of a wrong answer and the hint for whoever gives it
    - `hint`: for any other mistake
    - `probe`: makes of an answer what is compared; for a function, its result on some input
    - `test`: whether an answer is right, where more than the stored one is
    - `tolerance`: of numbers, relative to the largest
    """

    answer: object
    explanation: str
    mistakes: tuple[tuple[object, str], ...]
    hint: str
    probe: Callable[[object], object] = lambda answer: answer
    test: Callable[[object], bool] | None = None
    tolerance: float = 1e-3

    def right(self, answer: object) -> bool:
        """Whether an answer is right; raises whatever the answer raises."""
        if self.test is not None:
            return bool(self.test(answer))
        given = self.probe(answer)
        wanted = self.probe(self.answer)
        return alike(given, wanted, self.tolerance) or rounded(given, wanted)

    def hint_for(self, answer: object) -> str:
        """The hint that belongs to a wrong answer."""
        given = self.probe(answer)
        for wrong, hint in self.mistakes:
            if alike(given, self.probe(wrong), self.tolerance):
                return hint
        return self.hint


def find(name: str) -> Exercise:
    """The exercise of a name such as "02.3". Raises ParameterError where there is none."""
    notebook, _, number = str(name).partition(".")
    exercises = lesson(notebook).EXERCISES
    if not number.isdigit() or int(number) not in exercises:
        last = max(exercises)
        raise ParameterError(
            f"There is no exercise {name!r}; try {notebook}.1 to {notebook}.{last}."
        )
    return exercises[int(number)]


def check(name: str, answer: object) -> None:
    """Print whether an answer to the exercise ("02.3") is right, not yet, or missing.

    It doesn't raise, so that a wrong answer doesn't stop a run; but under nbgrader, which counts
    the cells that fail, whatever isn't right raises AssertionError.
    """
    try:
        words = verdict(name, answer)
    except ParameterError as error:
        words = str(error)
    print(words)
    if NBGRADER in os.environ and not is_right(name, words):
        raise AssertionError(words)


def is_right(name: str, words: str) -> bool:
    """Whether a verdict on the exercise says that the answer is right."""
    return words.startswith(f"{name} right: ")


def verdict(name: str, answer: object) -> str:
    """The sentence for an answer to the exercise ("02.3"): right, not yet, or missing.

    Raises ParameterError where there is no such exercise.
    """
    exercise = find(name)
    if answer is None:
        return f"{name} no answer yet."
    try:
        if exercise.right(answer):
            return f"{name} right: {exercise.explanation.splitlines()[0]}"
        return f"{name} not yet: {exercise.hint_for(answer)}"
    except (Exception, SystemExit) as error:  # a student's function may raise anything
        raised = type(error).__name__
        return f"{name} not yet: checking it raised {raised}{_message(error)}. {exercise.hint}"


def _message(error: BaseException) -> str:
    """The error's own text after a colon, empty where it has none or can't say it."""
    try:
        text = str(error).strip().rstrip(".")
    except Exception:
        return ""
    return f": {text}" if text else ""


def solution(name: str) -> None:
    """Show the answer to the exercise ("02.3") and why it is right.

    Raises ParameterError where there is no such exercise.
    """
    exercise = find(name)
    if callable(exercise.answer):
        source = textwrap.dedent(inspect.getsource(exercise.answer))
        shown = f"\n\n```python\n{source}```"
    else:
        shown = f" `{exercise.answer}`"
    display(Markdown(f"**{name}**{shown}\n\n{exercise.explanation}"))


# ---- comparing -----------------------------------------------------------------------------------


def alike(given: object, wanted: object, tolerance: float = 1e-3) -> bool:
    """Whether two answers are the same: texts but for case, numbers within the tolerance.

    Arrays and tensors must have the same shape; `tolerance` is relative to the largest of `wanted`.
    """
    if isinstance(wanted, str) or isinstance(given, str):
        both = isinstance(wanted, str) and isinstance(given, str)
        return both and given.strip().casefold() == wanted.strip().casefold()
    if isinstance(wanted, bool) or isinstance(given, bool):
        return isinstance(wanted, bool) and isinstance(given, bool) and given == wanted
    if isinstance(wanted, set | frozenset | dict):
        return given == wanted
    if isinstance(wanted, list | tuple):
        parts = given.tolist() if hasattr(given, "tolist") else given
        same = isinstance(parts, list | tuple) and len(parts) == len(wanted)
        return same and all(alike(a, b, tolerance) for a, b in zip(parts, wanted, strict=True))
    return _close(given, wanted, tolerance)


def rounded(given: object, wanted: object) -> bool:
    """Whether a number is `wanted` rounded to two or three digits; not where it has no more."""
    if not isinstance(wanted, float) or float(f"{wanted:.3g}") == wanted:
        return False
    return any(alike(given, float(f"{wanted:.{digits}g}"), 1e-9) for digits in (2, 3))


def _close(given: object, wanted: object, tolerance: float) -> bool:
    """Whether two numbers or arrays agree; False for what is neither."""
    try:
        here = _array(given)
        there = _array(wanted)
    except (TypeError, ValueError):
        return False
    if not there.shape and here.size == 1:
        here = here.reshape(())
    if here.shape != there.shape or not there.size:
        return False
    largest = float(np.abs(there).max())
    return bool(np.allclose(here, there, rtol=0, atol=max(tolerance * largest, 1e-9)))


def _array(value: object) -> np.ndarray:
    """Numbers as float64; raises TypeError or ValueError for anything else."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(value, dtype=float)

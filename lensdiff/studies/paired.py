"""Timings that can be compared: contenders take turns, and what is said of them is a ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ParameterError
from ..runtime import best_device, synchronize


@dataclass(frozen=True)
class Ratio:
    """How many times the seconds of one contender are those of another.

    `median` is the ratio of their medians, `low` and `high` are the least and the greatest ratio of
    a single round, in which one followed the other.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def alternate(works: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of each of `works`, A B C, A B C, ..., after one turn that isn't counted.

    What disturbs the machine for a while then disturbs all of them. Raises ParameterError below
    three rounds, of which a spread says nothing.
    """
    if rounds < 3:
        raise ParameterError(f"{rounds} rounds have no spread. Take three or more.")
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    synchronize(best_device())
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            synchronize(best_device())
            found[name].append(time.perf_counter() - start)
    return found


def ratio(slow: list[float], fast: list[float], per_slow: float = 1, per_fast: float = 1) -> Ratio:
    """The ratio of two contenders' seconds, each over what it made of them (images, say)."""
    a = np.array(slow) / per_slow
    b = np.array(fast) / per_fast
    each = a / b
    return Ratio(float(np.median(a) / np.median(b)), float(each.min()), float(each.max()))

"""Rules for the parameters of a notebook: what each may be, said in a sentence where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ParameterError
from .helpers import number, pick


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, both allowed; a `whole` one is returned as an int.

    With `multiple`, a multiple of that; with `least`, at least that, or 0 (the default is taken).
    """

    low: float
    high: float
    whole: bool = False
    multiple: int = 1
    least: float = 0

    def check(self, name: str, value: object) -> float | int:
        """The number; raises ParameterError for another value."""
        found = number(name, value, self.low, self.high, self.whole)
        if self.whole and found % self.multiple:
            raise ParameterError(f"{name} is {found}; it must be a multiple of {self.multiple}.")
        if 0 < found < self.least:
            raise ParameterError(f"{name} is {found:g}; it must be 0, or at least {self.least:g}.")
        return found


@dataclass(frozen=True, init=False)
class Choice:
    """One of a few texts or numbers: Choice("ddim", "heun")."""

    values: tuple

    def __init__(self, *values: str | int):
        object.__setattr__(self, "values", values)

    def check(self, name: str, value: object) -> object:
        """The value; raises ParameterError if it is none of those allowed."""
        if isinstance(value, bool):
            raise ParameterError(f"{name} is {value}; it must be one of {self._listed()}.")
        return self.values[self.values.index(pick(name, value, self.values))]

    def _listed(self) -> str:
        return ", ".join(map(repr, self.values))


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def check(self, name: str, value: object) -> bool:
        """The flag; raises ParameterError for another value."""
        if not isinstance(value, bool):
            raise ParameterError(f"{name} is {value!r}; it must be True or False.")
        return value


@dataclass(frozen=True)
class Text:
    """Any text."""

    cure: ClassVar[str] = "it must be text in quotes"

    def check(self, name: str, value: object) -> str:
        """The text; raises ParameterError for another value."""
        if not isinstance(value, str):
            raise ParameterError(f"{name} is {value!r}; {self.cure}.")
        return value


@dataclass(frozen=True)
class Place(Text):
    """A folder, a file, or a shipped model's name, "" for none.

    Whether it is there is checked by its reader.
    """

    cure: ClassVar[str] = "give a path or a name in quotes"


SEED = Number(0, 2**31, whole=True)

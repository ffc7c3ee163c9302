"""The start of a notebook: its parameters checked by its lesson's rules, and what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ParameterError
from ..runtime import best_device
from . import times
from .helpers import resolve_profile, results, versions
from .lessons import lesson


@dataclass(frozen=True)
class Run:
    """What a notebook runs with; each checked parameter is an attribute too: `run.seed`.

    - `profile`: "smoke", "standard" or "full"; `smoke`: whether it is the first
    - `device`: "cuda", "mps" or "cpu"
    - `results`: the folder for what the notebook makes
    - `values`: the checked parameters by name
    """

    profile: str
    smoke: bool
    device: str
    results: Path
    values: Mapping[str, object] = field(default_factory=dict)

    def __getattr__(self, name: str) -> object:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(f"This notebook has no parameter named {name!r}.")

    def scaled(self, smoke: object, standard: object, full: object) -> object:
        """The one of three values that belongs to the profile."""
        return {"smoke": smoke, "standard": standard, "full": full}[self.profile]


def start(notebook: str, names: Mapping[str, object]) -> Run:
    """Check the parameters of the notebook ("02") in its `globals()`, and print what runs it.

    Raises ParameterError, which names the parameter, for one that is wrong or missing, and for a
    notebook without a lesson.
    """
    rules = lesson(notebook).PARAMETERS
    missing = [name for name in ("profile", *rules) if name not in names]
    if missing:
        cell = "run the cells of parameters above first"
        raise ParameterError(f"{missing[0]} is not set; {cell}.")
    profile = resolve_profile(names["profile"])
    values = {name: rule.check(name, names[name]) for name, rule in rules.items()}
    print(versions())
    print(f"{times.machine()}; profile {profile}")
    if profile == "standard" and times.expected(notebook):
        print(times.sentence(notebook))
    return Run(profile, profile == "smoke", best_device(), results(profile, notebook), values)

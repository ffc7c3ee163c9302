"""What each notebook's parameters may be, and its exercises with their answers."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from ...errors import ParameterError

LESSONS = {
    module.name[1:3]: module.name
    for module in pkgutil.iter_modules(__path__)
    if module.name[0] == "n" and module.name[1:3].isdigit()
}


def lesson(notebook: str) -> ModuleType:
    """The lesson of a notebook ("02"): a module with PARAMETERS and EXERCISES.

    Raises ParameterError where it has none.
    """
    if notebook not in LESSONS:
        raise ParameterError(f"There is no lesson {notebook!r}; there are {', '.join(LESSONS)}.")
    return importlib.import_module(f"{__name__}.{LESSONS[notebook]}")

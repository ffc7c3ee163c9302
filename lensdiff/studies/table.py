"""A stored table: rows that are computed once each and kept in a JSON file at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from ..runtime import machine
from ..storage import read_json, write_json


class Table:
    """The rows of a study in `path`, for one set of circumstances `about`.

    The file holds `about`, the machine, and `rows`, each with its key and its values. A row that is
    there is not computed again, so that a study may be killed at any moment and called again; rows
    of other circumstances (weights, numbers of images) are dropped when the first new one is kept.
    Raises DataError for a file that can't be read.
    """

    def __init__(self, path: Path, about: dict):
        self.path = path
        self.about = about
        self.rows: list[dict] = []
        self.more: dict = {}
        if path.exists():
            cure = "Delete it; the study makes it again."
            old = read_json(path, cure)
            if not isinstance(old, dict) or not isinstance(old.get("rows"), list):
                raise DataError(f"{path}: it is no table of a study: it has no rows. {cure}")
            if all(old.get(key) == value for key, value in about.items()):
                self.rows = old["rows"]
                known = {*about, "rows", "machine"}
                self.more = {key: value for key, value in old.items() if key not in known}

    def find(self, **key: object) -> dict | None:
        """The first row with this key, or None."""
        for row in self.rows:
            if all(row.get(name) == value for name, value in key.items()):
                return row
        return None

    def row(
        self, key: dict, compute: Callable[[], dict], describe: Callable[[dict], str] | None = None
    ) -> dict:
        """The row with this key; where it is not there, it is computed, kept and reported."""
        found = self.find(**key)
        if found is None:
            found = {**key, **compute()}
            self.rows.append(found)
            self.write()
            words = f": {describe(found)}" if describe else ""
            name = ", ".join(f"{name} {value}" for name, value in key.items())
            print(f"{time.strftime('%H:%M')}  {name}{words}", flush=True)
        return found

    def write(self, **more: object) -> None:
        """Write the file, with `more` beside the rows."""
        self.more |= more
        content = {**self.about, "machine": machine(), **self.more, "rows": self.rows}
        write_json(self.path, content)

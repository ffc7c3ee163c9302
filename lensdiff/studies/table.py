"""A stored table: rows that are computed once each and kept in a JSON file at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError, ParameterError
from ..runtime import machine
from ..storage import locked, read_json, root, studies_folder, write_json
from ..storage.places import check_writable


def check_trial(trial: object, out: Path, options: str) -> None:
    """Raise ParameterError for a trial in the place of the results; `options` make it one."""
    if trial and out.resolve() == studies_folder().resolve():
        raise ParameterError(f"{options} make a trial: give it --out, a folder.")


class Table:
    """The rows of a study in `path`, for one set of circumstances `about`.

    The file holds `about`, the machine that computed last, and `rows`, each with its key and its
    values. A row that is there is not computed again, so that a study may be killed at any moment
    and called again; rows of other circumstances (weights, numbers of images) are dropped when the
    first new one is kept. Rows that another process has written meanwhile are taken in, so that
    parts of a study may run beside each other. Raises DataError for a file that can't be read,
    ParameterError for one that comes with the project and is of other circumstances.
    """

    def __init__(self, path: Path, about: dict):
        self.path = path
        self.about = about
        self.rows: list[dict] = []
        self.more: dict = {}
        self.machine = ""  # where the last row was computed
        self.read: set[str] = set()  # the file's rows as they were last read or written
        self._take_in()

    def _take_in(self) -> None:
        """Take in what the file has and had not when it was last read or written."""
        if not self.path.exists():
            return
        cure = "Delete it; the study makes it again."
        old = read_json(self.path, cure)
        if not isinstance(old, dict) or not isinstance(old.get("rows"), list):
            raise DataError(f"{self.path}: it is no table of a study: it has no rows. {cure}")
        if all(old.get(key) == value for key, value in self.about.items()):
            self.rows += [row for row in old["rows"] if json.dumps(row) not in self.read]
            known = {*self.about, "rows", "machine"}
            self.more = {key: old[key] for key in old if key not in known} | self.more
            self.machine = old.get("machine", "")
            self.read.update(map(json.dumps, old["rows"]))
        elif old["rows"] and self.path.resolve().is_relative_to(root() / "data"):
            differ = [key for key, value in self.about.items() if old.get(key) != value]
            cure = "Take those, or another folder; or delete the file, to make it anew"
            kept = f"{self.path} keeps results of another {', '.join(differ)}"
            raise ParameterError(f"{kept}. {cure}.")

    def __str__(self) -> str:
        return f"{self.path}: {len(self.rows)} rows"

    def find(self, **key: object) -> dict | None:
        """The first row with this key, or None."""
        for row in self.rows:
            if all(row.get(name) == value for name, value in key.items()):
                return row
        return None

    def row(
        self, key: dict, compute: Callable[[], dict], describe: Callable[[dict], str] | None = None
    ) -> dict:
        """The row with this key; where it is not there, it is computed, kept and reported.

        Where another process has kept one of this key meanwhile, that one stays.
        """
        found = self.find(**key)
        if found is None:
            check_writable(self.path.parent)  # a computed row would be lost
            with locked(self.path):
                pass  # and where there can be no lock
            computed = {**key, **compute()}
            with locked(self.path):
                self._take_in()
                found = self.find(**key) or computed
                if found is computed:
                    self.rows.append(computed)
                    self.machine = machine()
                self._write()
            words = f": {describe(found)}" if describe else ""
            name = ", ".join(f"{name} {value}" for name, value in key.items())
            print(f"{time.strftime('%H:%M')}  {name}{words}", flush=True)
        return found

    def write(self, **more: object) -> None:
        """Write the file, with `more` beside the rows."""
        with locked(self.path):
            self._take_in()
            self.more |= more
            self._write()

    def _write(self) -> None:
        by = self.machine or machine()
        content = {**self.about, "machine": by, **self.more, "rows": self.rows}
        write_json(self.path, content)
        self.read.update(map(json.dumps, self.rows))

"""The stored ablations, read back: their rows, several tables in one, and paired differences."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import t as student

from ..errors import DataError
from ..storage import atomic, studies_folder
from .ablation_runs import LATER, RUNS
from .table import Table

FILE = "ablations.json"
CURE = "Run it again: python -m lensdiff study ablations"
AGAIN = "basis-again"  # the basis with seed 1, where rows are asked for by name alone


def _rows(folder: Path | None) -> list[dict]:
    """The rows of the table in `folder`; those without a seed have seed 0."""
    path = (folder or studies_folder()) / FILE
    if not path.exists():
        raise DataError(f"{path} is not there. {CURE} all")
    return [{"seed": 0, **row} for row in Table(path, {}).rows]


def stored(folder: Path | None = None) -> dict[str, dict]:
    """The stored runs of seed 0 by name, in the order of `RUNS`, with their `pictures`.

    Pictures are (n, H, W) in [0, 1]. After `basis` comes `basis-again`, the same with seed 1 and
    without pictures, where that is stored. Runs added later may be missing. Raises DataError for
    another missing run or damaged files.
    """
    folder = folder or studies_folder()
    rows = {(row["name"], row["seed"]): row for row in _rows(folder)}
    found = {}
    for name in RUNS:
        if (name, 0) in rows:
            found[name] = {**rows[name, 0], "pictures": stored_pictures(folder, name)}
        elif name not in LATER:
            raise DataError(f"{folder / FILE}: the run {name} is not stored. {CURE} {name}")
        if name == "basis" and (name, 1) in rows:
            words = "the same with another seed"
            found[AGAIN] = {**rows[name, 1], "name": AGAIN, "description": words}
    return found


def stored_pictures(folder: Path, name: str) -> np.ndarray:
    """A run's pictures (n, H, W) in [0, 1]. Raises DataError where they are missing or damaged."""
    path = folder / "ablations" / f"{name}.png"
    try:
        strip = np.asarray(Image.open(path), np.float32) / 255
        return strip.reshape(len(strip), -1, len(strip)).swapaxes(0, 1)
    except (OSError, ValueError) as error:
        cure = f"Take the run out of {FILE}, and run it again: python -m lensdiff study ablations"
        raise DataError(f"{path}: can't be read ({error}). {cure} {name}") from error


def seeds_of(name: str, folder: Path | None = None) -> list[dict]:
    """The rows of a run, one for each training seed, by ascending seed, without pictures.

    Raises DataError where there is none.
    """
    rows = [row for row in _rows(folder) if row["name"] == name]
    if not rows:
        path = (folder or studies_folder()) / FILE
        raise DataError(f"{path}: the run {name} is not stored. {CURE} {name}")
    return sorted(rows, key=lambda row: row["seed"])


@dataclass(frozen=True)
class Difference:
    """The mean over n training seeds of (score of one run - score of another), paired by seed.

    `error` is the standard error of that mean, std / sqrt(n), with the std of the n differences
    (n - 1 in its denominator). For the few seeds there are, the mean is that of a Student t
    distribution: see `interval`.
    """

    mean: float
    error: float
    n: int

    @classmethod
    def of(cls, differences: np.ndarray) -> Difference:
        """That of the differences (n,), one for each seed; n is 2 or more."""
        n = len(differences)
        error = float(np.std(differences, ddof=1)) / math.sqrt(n)
        return cls(float(np.mean(differences)), error, n)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The Student t interval of the true mean, with n - 1 degrees of freedom.

        For three seeds and 95 percent it is mean ± 4.3 standard errors.
        """
        half = float(student.ppf((1 + level) / 2, self.n - 1)) * self.error
        return self.mean - half, self.mean + half


def compare(name: str, other: str, key: str = "distance", folder: Path | None = None) -> Difference:
    """How much higher the run `name` scores than `other`, over the seeds that both have.

    `key` is a number of the first card: "distance" or "kid" (lower is better). Two runs of one seed
    are paired: they see the images in one order. Raises DataError where fewer than two seeds are
    stored for both, the card has no such number, or the runs were not sampled alike.
    """
    path = (folder or studies_folder()) / FILE
    one = {row["seed"]: row["cards"][0] for row in seeds_of(name, folder)}
    two = {row["seed"]: row["cards"][0] for row in seeds_of(other, folder)}
    both = sorted(one.keys() & two.keys())
    if len(both) < 2:
        few = f"{path}: {name} and {other} have {len(both)} seeds in common, 2 are needed"
        raise DataError(f"{few}. {CURE} {name} {other}")
    for card in (card for cards in (one, two) for card in cards.values()):
        if not isinstance(card.get(key), int | float):
            raise DataError(f"{path}: no number {key!r} on every card. Take distance or kid.")
    if len({card["sampling"] for cards in (one, two) for card in cards.values()}) > 1:
        reason = f"the first cards of {name} and {other} are of several samplings"
        raise DataError(f"{path}: {reason}. Compare runs of one sampling.")
    return Difference.of(np.array([one[seed][key] - two[seed][key] for seed in both]))


def merge(folders: list[Path], into: Path | None = None, replace: bool = False) -> int:
    """Take the rows of several folders' tables, and their pictures, into one; returns how many.

    Of two rows with one name and seed the stored one stays, or the new one with `replace`. Raises
    DataError where a table is missing, damaged, or of other steps or numbers of images.
    """
    into = into or studies_folder()
    tables = [Table(folder / FILE, {}) for folder in folders if _rows(folder)]
    about = {key: tables[0].more.get(key) for key in ("steps", "scored_images")}
    target = Table(into / FILE, {})
    if not target.rows:
        target.more = dict(about)
    for table in (*tables, target):
        if {key: table.more.get(key) for key in about} != about:
            reason = f"it has not the steps and scored images of {tables[0].path}: {about}"
            raise DataError(f"{table.path}: {reason}. Leave one of them out.")
    rows = {(row["name"], row.get("seed", 0)): row for row in target.rows}
    count = 0
    for table in tables:
        for row in table.rows:
            key = (row["name"], row.get("seed", 0))
            if key in rows and not replace:
                continue
            rows[key] = row
            count += 1
            picture = Path("ablations") / f"{row['name']}.png"
            if key[1] == 0 and (table.path.parent / picture).exists():
                with atomic(into / picture) as part:
                    shutil.copyfile(table.path.parent / picture, part)
    target.rows = [rows[key] for key in sorted(rows, key=_place)]
    target.write()
    return count


def _place(key: tuple[str, int]) -> tuple[int, int]:
    """A row's place in the table: the order of `RUNS`, then the seed."""
    names = list(RUNS)
    return names.index(key[0]) if key[0] in names else len(names), key[1]

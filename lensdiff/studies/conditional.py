"""Does a conditional model draw what is requested? Scored at several scales of guidance.

A model of classes: a classifier's accuracy and the distance of each class from real images of it,
and at the scale with the smallest distance, by either extractor, again on other images; at the
classifier's own choice on more of them, so that each class has a small interval. A model of lens
parameters: what was requested against what a fit to the image finds. An hour on two cores.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.images import ImageSet, lenses
from ..errors import MetricError
from ..lensing import fit as modelling
from ..lensing import parameters
from ..lensing.population import KINDS
from ..lensing.survey import diverse
from ..model import Model
from ..networks import classifier
from ..scores import conditional
from ..scores.card import FIRST_SEED
from ..scores.classification import report
from ..scores.features import extractor
from ..scores.statistics import to_uint8
from ..storage import read_json
from .table import Table

FILE = "conditional.json"
FEWEST = 16  # real lenses of a class whose fits are compared
MOST = 682  # images of a class: features of more than 2,048 images are not kept
REFERENCE = 1_998  # test images that distances are taken from, 666 a class; the floor's come next


def stored(folder: Path, most: int | None = None) -> dict:
    """What conditional.json of a model holds, arranged by what its rows are for.

    The second look is that of `most` images a class, by default of the most that has all its rows.

    A model of classes has `floor`, `scales` (a list by guidance), `best` (by extractor) and
    `best_floor`, and `more` and `more_floor`, None where they were not made; one of parameters has
    `real`, `real_of_classes` (by name) and `scales`. Raises MetricError where it is missing,
    damaged, or not complete.
    """
    path = folder / FILE
    cure = f"Make it: python -m lensdiff score {folder}"
    found = read_json(path, cure, MetricError)
    try:
        rows = found.pop("rows")
        scales = _rows_for("scale", rows)
        if _rows_for("real", rows):
            classes = {row["class"]: row["fits"] for row in _rows_for("real of a class", rows)}
            real = _rows_for("real", rows)[0]["fits"]
            return {**found, "scales": scales, "real": real, "real_of_classes": classes}
        floor = _rows_for("floor", rows)[0]
        chosen = {name: conditional.nearest(scales, name) for name in floor["distance"]}
        looks = _second_look({name: row["guidance"] for name, row in chosen.items()}, rows, most)
        looks |= _more(found["judge_extractor"], looks["best"], rows)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise MetricError(f"{path}: it is not complete. {cure}") from error
    return {**found, "scales": scales, "floor": floor, **looks}


def _second_look(chosen: dict[str, float], rows: list[dict], most: int | None) -> dict:
    """The rows of the chosen guidance, by extractor, and their floor. KeyError where one lacks."""
    floors = {row["most"]: row for row in _rows_for("best floor", rows)}
    again = {(row["guidance"], row["most"]): row for row in _rows_for("best", rows)}
    whole = [n for n in floors if all((scale, n) in again for scale in chosen.values())]
    most = max(whole, default=None) if most is None else most
    best = {name: again[scale, most] for name, scale in chosen.items()}
    return {"best": best, "best_floor": floors[most]}


def _more(judge: str, best: dict, rows: list[dict]) -> dict:
    """The last rows of more images at the judge's scale, and of as many real ones; None without."""
    found = {"more": None, "more_floor": None}
    for row in _rows_for("more", rows):
        for floor in _rows_for("more floor", rows):
            if (row["guidance"], row["most"]) == (best[judge]["guidance"], floor["most"]):
                found = {"more": row, "more_floor": floor}
    return found


def second_looks(models: Mapping[str, dict]) -> tuple[list[list[str]], list[str]]:
    """Rows and heads of the second looks of some models of classes, as `stored` gives them.

    In each, the share recognised of generated lenses and of as many simulated ones with its 95 %
    interval, and the mean excess of the classes, ± as if all its distances were independent.
    """
    rows = []
    for name, found in models.items():
        looks = [(net, row, found["best_floor"]) for net, row in found["best"].items()]
        if found["more"]:
            looks.append((found["judge_extractor"], found["more"], found["more_floor"]))
        for chose, row, floor in looks:
            shares = [(one["accuracy"], *one["interval"]) for one in (row, floor)]
            cells = ["{:.1%} ({:.0%} to {:.0%})".format(*share) for share in shares]
            cells += [_mean_excess(row, floor, net) for net in found["best"]]
            rows.append([name, f"{row['guidance']:g}, by {chose}", f"{row['n']:,}", *cells])
    heads = ["model", "w, chosen", "lenses", "recognised", "simulated"]
    return rows, [*heads, *(f"excess of {net}" for net in found["best"])]


def _mean_excess(row: dict, floor: dict, net: str) -> str:
    """The excess of a distance over its floor, mean over the classes, with ± where it is stored."""
    far, near = (np.array(list(one["distance"][net].values())) for one in (row, floor))
    if not all("distance_error" in one for one in (row, floor)):
        return f"{(far - near).mean():.2f}"
    errors = [list(one["distance_error"][net].values()) for one in (row, floor)]
    return f"{(far - near).mean():.2f} ± {np.linalg.norm(errors) / len(far):.2f}"


def _rows_for(role: str, rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["role"] == role]


def _describe(row: dict) -> str:
    """A row of a model of classes in words."""
    means = {net: np.mean(list(each.values())) for net, each in row["distance"].items()}
    distance = ", ".join(f"{net} {mean:.2f}" for net, mean in means.items())
    share = f"accuracy {100 * row['accuracy']:.1f} %"
    return f"{share}, macro AUC {row['macro_auc']:.3f}, mean distance {distance}"


@dataclass(frozen=True)
class _Classes:
    """A model of classes, the test set, and what its images are held against."""

    model: Model
    test: ImageSet
    scorer: conditional.ClassScorer

    def generated(self, scale: float, count: int, first_seed: int) -> dict:
        """Scores of `count` generated images of each class."""
        images = conditional.generated_set(self.model, 3 * count, scale, first_seed)
        return self.scorer.row(images.pixels, images.labels)

    def real(self, count: int) -> dict:
        """Scores of `count` real images of each class that are not in the reference."""
        rows = np.arange(REFERENCE, REFERENCE + 3 * count)
        return self.scorer.row(self.test.pixels[rows], self.test.labels[rows])

    def fill(self, table: Table, scales: list[float], each: int, most: int) -> None:
        """Compute the rows that the table does not hold yet."""
        floor = table.row({"role": "floor"}, lambda: self.real(each), _describe)
        for scale in scales:
            key = {"role": "scale", "guidance": scale}
            table.row(key, lambda s=scale: self.generated(s, each, FIRST_SEED), _describe)
        found = _rows_for("scale", table.rows)
        # EfficientNet hardly sees classes; the judge might choose what pleases it: so both choose
        best = {conditional.nearest(found, name)["guidance"] for name in floor["distance"]}
        for scale in sorted(best):
            key = {"role": "best", "guidance": scale, "most": most}

            def others(scale: float = scale) -> dict:
                return self.generated(scale, most, conditional.SECOND_SEED)

            table.row(key, others, _describe)
        table.row({"role": "best floor", "most": most}, lambda: self.real(most), _describe)

    def fill_more(self, table: Table, judge: str, count: int) -> None:
        """Compute what more images at the scale that the judge chose come to."""
        scale = conditional.nearest(_rows_for("scale", table.rows), judge)["guidance"]
        key = {"role": "more", "guidance": scale, "most": count}

        def others() -> dict:
            return self.generated(scale, count, conditional.SECOND_SEED)

        table.row(key, others, _describe)
        table.row({"role": "more floor", "most": count}, lambda: self.real(count), _describe)


def of_classes(
    model: Model,
    judge_folder: Path,
    scales: list[float],
    each: int = 192,
    most: int = 300,
    more: int = 480,
) -> dict:
    """Score a model of classes into its conditional.json; returns it as `stored` does.

    `each` images of a class at every scale, `most` at the best ones, `more` at the judge's own.
    Raises MetricError for another model, or numbers that can't be judged.
    """
    if not model.denoiser.net.classes:
        raise MetricError(f"{model.folder.name} is not conditioned on classes. Take one that is.")
    if not 8 <= min(each, most, more) <= max(each, most, more) <= MOST:
        numbers = f"{each}, {most} and {more} images of a class"
        raise MetricError(f"{numbers}: from 8 to {MOST} can be judged.")
    test = lenses("test", model.shape[-1])
    judge = classifier.load(judge_folder, tuple(model.spec["classes"]))
    nets = [extractor("efficientnet"), extractor("lensnet", path=judge_folder)]
    about = {
        "model_sha256": model.spec["sha256"],
        "judge": judge_folder.name,
        "judge_sha256": classifier.read(judge_folder)[1]["sha256"],
        "judge_extractor": nets[-1].name,
        "sampling": str(model.sampling),
        "reference": f"test set of {test.name}, images 0 to {REFERENCE - 1}",
        "each": each,
    }
    table = Table(model.folder / FILE, about)
    reference = test.subset(np.arange(REFERENCE), "reference")
    scorer = conditional.ClassScorer.of(judge, nets, reference)
    classes = _Classes(model, test, scorer)
    classes.fill(table, scales, each, most)
    classes.fill_more(table, nets[-1].name, more)
    if "real" not in table.more:
        answers = classifier.predict(judge, test)
        table.write(real=report(answers, test.labels, judge.classes))
    return stored(model.folder, most)


def _describe_fits(row: dict) -> str:
    """A row of a model of lens parameters in words."""
    names = row["fits"].items()
    return ", ".join(f"{name} r {one['correlation']:.4f}" for name, one in names)


def _by_class(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each class, of those that have enough for a comparison."""
    rows = {kind: np.flatnonzero(labels == label) for label, kind in enumerate(KINDS)}
    return {kind: found for kind, found in rows.items() if len(found) >= FEWEST}


def of_parameters(model: Model, scales: list[float], n: int = 200) -> dict:
    """Score a model of lens parameters into its conditional.json; returns it as `stored` does.

    The lenses requested are the first `n` of the test set. Raises MetricError for another model, or
    too few or many lenses.
    """
    if not model.denoiser.net.conditions:
        name = model.folder.name
        raise MetricError(f"{name} is not conditioned on lens parameters. Take one that is.")
    survey = diverse(model.shape[-1])
    test = lenses("test", model.shape[-1], noiseless=True)
    if not 8 <= n <= len(test):
        raise MetricError(f"{n} lenses: from 8 to {len(test):,} can be requested.")
    wanted = parameters.of(test.truth[:n])
    seen = [stage["images_seen"] for stage in (*model.spec.get("stages", []), model.spec)]
    about = {
        "model_sha256": model.spec["sha256"],
        "sampling": str(model.sampling),
        "n": n,
        "asked": f"truth of {test.name}, 0 to {n - 1}",
        "images_seen": sum(seen),
        "fit": "caustics.utils.batch_lm",
    }
    table = Table(model.folder / FILE, about)

    def fits(images: object, asked: np.ndarray = wanted) -> dict:
        pixels = to_uint8(images).numpy() / np.float32(255)
        return {"fits": conditional.agreement(asked, modelling.fit(pixels, survey))}

    table.row({"role": "real"}, lambda: fits(test.pixels[:n]), _describe_fits)
    for kind, rows in _by_class(test.labels[:n]).items():
        each = functools.partial(fits, test.pixels[rows], wanted[rows])
        table.row({"role": "real of a class", "class": kind}, each, _describe_fits)
    for scale in scales:

        def generated(scale: float = scale) -> dict:
            return fits(model.draw(n, FIRST_SEED, wanted, scale, observed=False))

        table.row({"role": "scale", "guidance": scale}, generated, _describe_fits)
    return stored(model.folder)

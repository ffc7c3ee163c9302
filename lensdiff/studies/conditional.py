"""Does a conditional model draw what it is asked for? Scored at several scales of guidance.

A model of classes: a classifier's accuracy and the distance of each class from real images of it,
and at the scale with the smallest distance, by either extractor, again on other images. A model of
lens parameters: what was asked against what a fit to the image finds. Half an hour on two cores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.images import lenses
from ..errors import MetricError
from ..lensing import fit as modelling
from ..lensing import parameters
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
MOST = 682  # images of a class: features of more than 2,048 images are not kept
REFERENCE = 1_998  # test images that distances are taken from, 666 a class; the floor's come next


def stored(folder: Path) -> dict:
    """What conditional.json of a model holds, arranged by what its rows are for.

    A model of classes has `floor`, `scales` (a list by guidance), `best` (by extractor), and
    `best_floor`; one of parameters has `real` and `scales`. Raises MetricError where it is missing.
    """
    cure = f"Make it: python -m lensdiff score {folder}"
    found = read_json(folder / FILE, cure, MetricError)
    rows = found.pop("rows")
    by_role = {role: [row for row in rows if row["role"] == role] for role in ROLES}
    found["scales"] = by_role["scale"]
    if not by_role["floor"]:
        return {**found, "real": by_role["real"][0]["fits"]}
    found["floor"] = by_role["floor"][0]
    found["best_floor"] = by_role["best floor"][0]
    again = {row["guidance"]: row for row in by_role["best"]}
    chosen = {name: conditional.nearest(found["scales"], name) for name in again_names(found)}
    found["best"] = {name: again[row["guidance"]] for name, row in chosen.items()}
    return found


ROLES = ("floor", "scale", "best", "best floor", "real")


def again_names(found: dict) -> list[str]:
    """The extractors by which a best scale of guidance was chosen."""
    return list(found["floor"]["distance"])


def _describe(row: dict) -> str:
    """A row of a model of classes in words."""
    means = {net: np.mean(list(each.values())) for net, each in row["distance"].items()}
    distance = ", ".join(f"{net} {mean:.2f}" for net, mean in means.items())
    share = f"accuracy {100 * row['accuracy']:.1f} %"
    return f"{share}, macro AUC {row['macro_auc']:.3f}, mean distance {distance}"


def of_classes(
    model: Model, judge_folder: Path, scales: list[float], each: int = 192, most: int = 300
) -> dict:
    """Score a model of classes into its conditional.json; returns it as `stored` does.

    `each` images of a class at every scale, `most` at the best ones. Raises MetricError for numbers
    that can't be judged.
    """
    if not 4 <= min(each, most) <= max(each, most) <= MOST:
        raise MetricError(f"{each} and {most} images of a class: from 4 to {MOST} can be judged.")
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

    def generated(scale: float, count: int, first_seed: int) -> dict:
        images = conditional.generated_set(model, 3 * count, scale, first_seed)
        return scorer.row(images.pixels, images.labels)

    def real(count: int) -> dict:
        rows = np.arange(REFERENCE, REFERENCE + 3 * count)
        return scorer.row(test.pixels[rows], test.labels[rows])

    floor = table.row({"role": "floor"}, lambda: real(each), _describe)
    found = []
    for scale in scales:
        key = {"role": "scale", "guidance": scale}
        found.append(table.row(key, lambda s=scale: generated(s, each, FIRST_SEED), _describe))
    # EfficientNet hardly sees classes; the judge might choose what pleases it: so both choose
    best = {conditional.nearest(found, name)["guidance"] for name in floor["distance"]}
    for scale in sorted(best):
        key = {"role": "best", "guidance": scale, "most": most}

        def others(scale: float = scale) -> dict:
            return generated(scale, most, conditional.SECOND_SEED)

        table.row(key, others, _describe)
    table.row({"role": "best floor", "most": most}, lambda: real(most), _describe)
    answers = classifier.predict(judge, test)
    table.write(real=report(answers, test.labels, judge.classes))
    return stored(model.folder)


def of_parameters(model: Model, scales: list[float], n: int = 200) -> dict:
    """Score a model of lens parameters into its conditional.json; returns it as `stored` does.

    The lenses asked for are the first `n` of the test set. Raises MetricError for too few or many.
    """
    survey = diverse(model.shape[-1])
    test = lenses("test", model.shape[-1], noiseless=True)
    if not 8 <= n <= len(test):
        raise MetricError(f"{n} lenses: from 8 to {len(test):,} can be asked for.")
    wanted = parameters.of(test.truth[:n])
    seen = [stage["images_seen"] for stage in (*model.spec.get("stages", []), model.spec)]
    about = {
        "model_sha256": model.spec["sha256"],
        "sampling": str(model.sampling),
        "n": n,
        "asked": f"truth of {test.name}, 0 to {n - 1}",
        "images_seen": sum(seen),
    }
    table = Table(model.folder / FILE, about)

    def fits(images: object) -> dict:
        pixels = to_uint8(images).numpy() / np.float32(255)
        return {"fits": conditional.agreement(wanted, modelling.fit(pixels, survey))}

    def describe(row: dict) -> str:
        names = row["fits"].items()
        return ", ".join(f"{name} r {one['correlation']:.4f}" for name, one in names)

    table.row({"role": "real"}, lambda: fits(test.pixels[:n]), describe)
    for scale in scales:

        def drawn(scale: float = scale) -> dict:
            return fits(model.draw(n, FIRST_SEED, wanted, scale, observed=False))

        table.row({"role": "scale", "guidance": scale}, drawn, describe)
    return stored(model.folder)

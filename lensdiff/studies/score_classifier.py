"""Score a classifier: its answers to test images, in a report beside the weights."""

from __future__ import annotations

from pathlib import Path

from ..data import folders
from ..data.digits import digits
from ..data.images import ImageSet
from ..data.labels import check_classes
from ..errors import DataError, ParameterError
from ..networks import classifier
from ..networks.classifier import predict
from ..scores import classification
from ..storage import is_shipped, write_json
from ..training.fit import HELD_OUT
from ..training.recipes import CLASSIFIERS
from .samplers import learnt_by
from .score_parts import refuse_a_trial

# the recipe of a classifier, by the name of the set it learnt
LEARNT = {"model_i-150": "lensnet", "diverse-64": "judge64", "digits-train": "judge-digits"}
PARTS = ("all", "tenth")  # of its test images


def _images_of(folder: Path, recipe: str, data: Path | None) -> tuple[ImageSet, ImageSet]:
    """Training and test images: of MNIST's files or Common Test I in `data`, or of the recipe."""
    if data and learnt_by(classifier.read(folder)[1]).startswith("digits"):
        return digits("train", data), digits("test", data)
    if data:
        return folders.common_test(data)
    return CLASSIFIERS[recipe].images("train"), CLASSIFIERS[recipe].images("test")


def recipe_of(folder: Path) -> str:
    """The recipe with the training set that a classifier learnt. ParameterError without one."""
    learnt = learnt_by(classifier.read(folder)[1])
    found = [recipe for name, recipe in LEARNT.items() if learnt.startswith(name)]
    if not found:
        cure = f"Say by --recipe which test images it gets: {', '.join(CLASSIFIERS)}."
        if learnt.startswith("digits-all"):
            cure = "Give the folder of MNIST's files by --data."
        raise ParameterError(f"{folder} learnt {learnt or 'images without a name'}. {cure}")
    return found[0]


def of_classifier(
    folder: Path, recipe: str | None = None, data: Path | None = None, dry: bool = False
) -> str:
    """Classify the test images, all and the published tenth of them, and write report.json.

    The images are those of `recipe`, by default of the one whose training set it learnt, or of
    `data`: a folder of Common Test I, or of MNIST's files for a classifier of digits. A set that is
    too small for its tenth is reported as a whole. Returns the accuracies in words. Raises
    ParameterError where no recipe has its training set.
    """
    other = recipe and is_shipped(folder) and recipe != recipe_of(folder)
    refuse_a_trial(folder, dry, data or other)
    recipe = recipe or ("" if data else recipe_of(folder))
    train, test = _images_of(folder, recipe, data)
    model = classifier.load(folder)
    _, held = train.split(HELD_OUT)
    check_classes(test, model.classes, unbalanced=True)
    logits = predict(model, test)
    temperature = classification.temperature(predict(model, train, held), train.labels[held])
    calibrated = classification.calibration_error(logits / temperature, test.labels)
    found = {
        "weights_sha256": classifier.read(folder)[1]["sha256"],
        "data": {"name": test.name, "fingerprint": test.fingerprint},
        "all": classification.report_with_interval(logits, test.labels, model.classes),
        "temperature": temperature,
        "calibration_error_after": calibrated,
    }
    said = ""
    try:
        tenth = classification.published_tenth(test.labels)
        found["tenth"] = classification.report_with_interval(
            logits[tenth], test.labels[tenth], model.classes
        )
    except DataError as error:
        said = f"\nWithout the published tenth: {error}"
    if not dry:
        write_json(folder / "report.json", found)
    lines = [classification.in_words(name, found[name]) for name in PARTS if name in found]
    return "\n".join(lines) + said

"""Does a conditional model draw what it is asked for? `python scripts/asked.py
data/checkpoints/classes64` writes its asked.json.

A model of classes: the judge's accuracy and the distance of each class from real images of it, at
several guidance scales; and at the scale with the smallest distance, by either extractor, again on
more and other images. A model of lens parameters: what was asked against what a fit to the image
finds. Rows that are done are kept in asked.part.json, so that the run can be killed and called
again. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data import images as data
from ..data.images import write_json
from ..errors import MetricError, in_one_sentence
from ..lensing import fit as modelling
from ..lensing import parameters as conditions
from ..lensing.survey import diverse
from ..model import Checkpoint, load, shipped
from ..networks.classifier import load as load_classifier
from ..networks.classifier import predict, read
from ..notebook import helpers as nb
from ..scores import classification as judge
from ..scores import conditional as asked
from ..scores.card import FIRST_SEED
from ..scores.distances import to_uint8
from ..scores.features import extractor

MOST = 682  # images of a class: features of more than 2,048 images are not kept
# test images that distances are taken from, 666 a class; the floor's come behind them
REFERENCE = 1_998


class Rows:
    """Rows by name, each computed once and kept in `path` at once, for one set of weights."""

    def __init__(self, path: Path, about: dict):
        old = json.loads(path.read_text()) if path.exists() else {}
        same = all(old.get(key) == value for key, value in about.items())
        self.path = path
        self.about = about
        self.rows = old.get("rows", {}) if same else {}

    def get(self, name: str, compute: Callable[[], dict], says: Callable[[dict], str]) -> dict:
        """The row, computed where it is not there yet."""
        if name not in self.rows:
            self.rows[name] = compute()
            write_json(self.path, {**self.about, "rows": self.rows})
            print(f"{time.strftime('%H:%M')}  {name}: {says(self.rows[name])}", flush=True)
        return self.rows[name]


def says(row: dict) -> str:
    """A row of a model of classes in words."""
    far = ", ".join(
        f"{net} {np.mean(list(each.values())):.2f}" for net, each in row["distance"].items()
    )
    return f"accuracy {100 * row['accuracy']:.1f} %, macro AUC {row['macro_auc']:.3f}, mean distance {far}"


def of_classes(
    model: Checkpoint, judge_folder: Path, scales: list[float], each: int, most: int
) -> dict:
    """Everything that asked.json of a model of classes holds."""
    if not model.denoiser.net.classes:
        raise MetricError(
            f"{model.folder}: it is told neither classes nor lens parameters. Score it with "
            "scripts/score.py."
        )
    if not 4 <= min(each, most) <= max(each, most) <= MOST:
        raise MetricError(f"{each} and {most} images of a class: from 4 to {MOST} can be judged.")
    test = data.lenses("test", model.shape[-1])
    judge_net = load_classifier(judge_folder, tuple(model.spec["classes"]))
    nets = [extractor("efficientnet"), extractor("lensnet", path=judge_folder)]
    about = {
        "model_sha256": model.spec["sha256"],
        "judge": judge_folder.name,
        "judge_sha256": read(judge_folder)[1]["sha256"],
    }
    about["judge_ruler"] = nets[-1].name
    about |= {
        "sampling": str(model.sampling),
        "reference": f"test set of {test.name}, images 0 to {REFERENCE - 1}",
        "each": each,
    }
    keep = Rows(model.folder / "asked.part.json", about)
    bench = asked.Bench.of(judge_net, nets, test.subset(np.arange(REFERENCE), "reference"))

    def drawn(scale: float, count: int, first_seed: int = FIRST_SEED) -> dict:
        images = asked.drawn_set(model, 3 * count, scale, first_seed)
        return {"guidance": scale, **bench.row(images.pixels, images.labels)}

    def real(count: int) -> dict:
        rows = np.arange(REFERENCE, REFERENCE + 3 * count)
        return bench.row(test.pixels[rows], test.labels[rows])

    found = {"floor": keep.get(f"real, {3 * each} images", lambda: real(each), says)}
    found["scales"] = [
        keep.get(f"guidance {s:g}, {3 * each} images", lambda s=s: drawn(s, each), says)
        for s in scales
    ]
    best = {
        name: asked.nearest(found["scales"], name)["guidance"]
        for name in found["floor"]["distance"]
    }
    again = {
        s: keep.get(
            f"guidance {s:g}, {3 * most} others", lambda s=s: drawn(s, most, asked.AGAIN), says
        )
        for s in set(best.values())
    }
    # EfficientNet hardly sees classes; the judge might choose what pleases it
    found["best"] = {name: again[s] for name, s in best.items()}
    found["best_floor"] = keep.get(f"real, {3 * most} images", lambda: real(most), says)
    whole = judge.report(predict(judge_net, test), test.labels, judge_net.classes)
    return {**about, "machine": nb.machine(), "real": whole, **found}


def of_parameters(model: Checkpoint, scales: list[float], n: int) -> dict:
    """Everything that asked.json of a model of lens parameters holds: the lenses asked for are
    the first of the test set.
    """
    survey = diverse(model.shape[-1])
    test = data.lenses("test", model.shape[-1], noiseless=True)
    if not 8 <= n <= len(test):
        raise MetricError(f"{n} lenses: from 8 to {len(test):,} can be asked for.")
    wanted = conditions.of(test.truth[:n])
    about = {
        "model_sha256": model.spec["sha256"],
        "sampling": str(model.sampling),
        "n": n,
        "asked": f"truth of {test.name}, 0 to {n - 1}",
    }
    about["images_seen"] = sum(
        stage["images_seen"] for stage in (*model.spec.get("stages", []), model.spec)
    )
    keep = Rows(model.folder / "asked.part.json", about)

    def row(images: np.ndarray) -> dict:
        return asked.agreement(wanted, modelling.fit(images, survey))

    def words(found: dict) -> str:
        return ", ".join(
            f"{name} r {one['correlation']:.4f}, scatter {one['scatter']:.3f}"
            for name, one in found.items()
        )

    def drawn(scale: float) -> dict:
        pictures = asked.draw(model, wanted, FIRST_SEED, scale, observed=False)
        return row(pictures.numpy() / np.float32(255))

    found = {
        "real": keep.get(
            "real", lambda: row(to_uint8(test.pixels[:n]).numpy() / np.float32(255)), words
        )
    }
    found["scales"] = [
        {"guidance": s, "fits": keep.get(f"guidance {s:g}", lambda s=s: drawn(s), words)}
        for s in scales
    ]
    return {**about, "machine": nb.machine(), **found}


@in_one_sentence
def main() -> int:
    """Read the command line, draw, judge, and write asked.json beside the weights; returns the
    exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument(
        "--judge",
        type=Path,
        default=shipped("judge64"),
        help="a lens classifier of the same classes",
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        help="guidance scales (default: 1 1.5 2.5 4 for classes, 1 2 for parameters)",
    )
    parser.add_argument("--each", type=int, default=192, help="images of a class at each scale")
    parser.add_argument("--most", type=int, default=300, help="images of a class at the best scale")
    parser.add_argument("-n", type=int, default=200, help="lenses asked for by their parameters")
    args = parser.parse_args()
    model = load(args.folder)
    if model.denoiser.net.conditions:
        found = of_parameters(model, args.scales or [1.0, 2.0], args.n)
    else:
        found = of_classes(
            model, args.judge, args.scales or [1.0, 1.5, 2.5, 4.0], args.each, args.most
        )
    write_json(args.folder / "asked.json", found)
    (args.folder / "asked.part.json").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

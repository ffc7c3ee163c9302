"""Autoguidance: what does a worse version of a model add to it, at equal numbers of calls?

Every row draws the same seeds. A guided step makes a call of each network, so that beside each
scale at the model's own steps stands the same scale at half of them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import model as models
from ..data.images import lenses
from ..diffusion.sampling import autoguided
from ..errors import ParameterError
from ..model import Model
from ..runtime import best_device
from ..scores.card import FIRST_SEED, check_numbers
from ..scores.distances import frechet, precision_recall
from ..scores.features import extractor
from ..scores.statistics import Statistics, as_stored, reference, statistics
from ..storage import read_json, studies_folder
from .ablations import keep_pictures
from .census import SHOWN as SHARES
from .census import counts, shares
from .samplers import check_of_lenses, difference, error, with_groups
from .table import Table

EXAMPLE = "python -m lensdiff study autoguidance lens150-long lens150 --scales 1 1.5"
FILE = "autoguidance.json"
SCALES = (1.0, 1.3, 1.6, 2.0)
SHOWN = 6
TRIALS = {  # the stored tables, by whom they lead away from whom
    "lens150-long, from lens150": FILE,
    "lens64-long, from a tiny network": "autoguidance-64.json",
    "lens64-long, from fewer updates": "autoguidance-64-early.json",
}
HEADS = ("led away", "w", "calls", "excess (± of the distance alone)", "less that of w = 1")
COUNTED = ("two_or_ring", "three_images")  # what is shown of `census.SHOWN`
HEADS += ("precision", "recall", *(SHARES[key] for key in COUNTED))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("weak", help="the same of a smaller or less trained model")
    parser.add_argument("-n", type=int, default=512, help="images a row")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help="1: not guided")
    parser.add_argument("--name", default="", help="of the pair, added to the table's name")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def file_of(model: Model, name: str = "") -> str:
    """The table's file: `FILE`, with the pixels in its name unless they are 150, and `name`."""
    side = model.shape[-1]
    words = ["" if side == 150 else f"-{side}", f"-{name}" if name else ""]
    return FILE.replace(".", f"{''.join(words)}.")


class Guided(nn.Module):
    """Two denoisers as one, in the place of a model's own."""

    def __init__(self, strong: nn.Module, weak: nn.Module, scale: float):
        super().__init__()
        self.strong = strong
        self.weak = weak
        self.net = strong.net
        self.guess = autoguided(strong, weak, scale)

    def forward(self, x: Tensor, sigma: Tensor | float, label: Tensor | None = None) -> Tensor:
        """E[x0 | x], led away from the weak one's."""
        return self.guess(x, sigma, label)


def pair(name: str, weak: str) -> tuple[Model, Model]:
    """Both models. Raises ParameterError where they don't denoise the same things."""
    both = [models.load(one) for one in (name, weak)]
    if not all(isinstance(one, Model) for one in both):
        raise ParameterError(f"{name} and {weak} must both draw lenses. Take diffusion models.")
    check_of_lenses(both[0], name)
    first, second = (
        (m.denoised_shape, m.stretch, m.spec.get("autoencoder"), m.spec.get("classes"))
        for m in both
    )
    if first != second:
        cure = "Take an earlier or a smaller model of the same data, as lens150 to lens150-long."
        raise ParameterError(
            f"{name} and {weak} denoise different things: {first}, {second}. {cure}"
        )
    return both[0], both[1]


def ways(model: Model, scales: list[float]) -> list[tuple[float, int]]:
    """(scale, steps): each at the model's own steps, and guided ones at as many calls as alone."""
    own = model.sampling.steps
    found = [(scale, own) for scale in scales]
    return found + [(scale, max(2, own // 2)) for scale in scales if scale != 1]


def look(
    model: Model, weak: Model, way: tuple[float, int], net: nn.Module, real: Statistics, kept: Path
) -> dict:
    """Distance, KID, precision, recall and counts of `real.n` images; `kept` gets the first."""
    scale, steps = way
    denoiser = Guided(model.denoiser, weak.denoiser, scale)
    sampling = replace(model.sampling, steps=steps)
    images = as_stored(
        replace(model, denoiser=denoiser).draw(real.n, FIRST_SEED, sampling=sampling)
    )
    keep_pictures(kept / f"{scale:g}-{steps}.png", images[:SHOWN], SHOWN)
    found = statistics(net, torch.from_numpy(images).split(64), real.n, f"scale {scale:g}")
    precision, recall = precision_recall(real.rows, found.rows)
    calls = sampling.calls * (1 if scale == 1 else 2)
    scored = {**with_groups(found, real), "precision": precision, "recall": recall}
    return {"calls": calls, **scored, "counts": counts(images)}


def lines(who: str, trial: dict) -> list[tuple[str, ...]]:
    """Of a stored table: scale, calls, distance less its floor, that less the model's own, shares.

    The counts of images are empty where none are stored.
    """
    found = []
    alone = trial["rows"][0]
    for row in sorted(trial["rows"], key=lambda row: (row["scale"], -row["steps"])):
        apart = "{:+.2f} ± {:.2f}".format(*difference(row, alone)) if row is not alone else ""
        excess = f"{row['distance'] - trial['floor']:.2f} ± {error(row):.2f}"
        counted = shares(row["counts"], trial["n"], COUNTED) if "counts" in row else ("", "")
        cells = (f"{row['precision']:.2f}", f"{row['recall']:.2f}", *counted)
        found.append((who, f"{row['scale']:g}", str(row["calls"]), excess, apart, *cells))
    return found


def stored() -> list[tuple[str, ...]]:
    """The `lines` of all stored tables. Raises DataError where one is missing or damaged."""
    cure = "data/README.md has the command that makes it."
    tables = {who: read_json(studies_folder() / file, cure) for who, file in TRIALS.items()}
    return [line for who, trial in tables.items() for line in lines(who, trial)]


def run(args: argparse.Namespace) -> None:
    """Draw and score every scale that is not stored yet."""
    model, weak = pair(args.model, args.weak)
    net = extractor("efficientnet", best_device())
    about = {"model_sha256": model.spec["sha256"], "weak_sha256": weak.spec["sha256"]}
    about |= {"n": args.n, "extractor_sha256": net.sha256}
    place = args.out / file_of(model, args.name)
    table = Table(place, about)
    test = lenses("test", model.shape[-1])
    check_numbers(test, args.n, model.shape)
    real = reference(net, test, range(args.n))
    if "floor" not in table.more:
        table.write(floor=frechet(reference(net, test, range(args.n, 2 * args.n)), real))
    for way in ways(model, args.scales):
        table.row(
            {"scale": way[0], "steps": way[1]},
            lambda way=way: look(model, weak, way, net, real, place.with_suffix("")),
            lambda row: f"distance {row['distance']:.2f}, recall {row['recall']:.2f}",
        )

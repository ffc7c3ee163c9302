"""What the commands leave to look at: a page of drawn images, a page of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from .. import model as models
from ..lensing import parameters
from ..notebook import html, plots
from ..scores.card import Card
from ..storage import is_shipped, is_working_copy, read_json, root
from . import conditional

FILE = "page.html"
SHOWN = 16
MOST = 50  # steps of an image that is drawn for a page
COLUMNS = 8
MOST_SHOWN = 64  # of many images
CURE = "Take another copy of the folder."
SETTINGS = ("batch", "lr", "ema", "weight", "criterion", "seed")  # of a recipe, in a table


def pictured(images: Tensor) -> tuple[Figure, str]:
    """A figure of images (n, C, H, W), of many the first, and how many these are."""
    shown = images[:MOST_SHOWN]
    of = f" of {len(images)}" if len(shown) < len(images) else ""
    return plots.grid(shown, columns=min(len(shown), COLUMNS)), f"{len(shown)}{of} images"


def of_model(name: Path | str) -> Path:
    """The page of a model's folder: images, curve, card or report, recipe; returns where it lies.

    Images are drawn where there is something that draws. The page lies in the folder, that of a
    shipped model in runs/.
    """
    folder = models.find(name)
    how = ""
    spec = read_json(folder / models.SPEC, CURE)
    images = None
    if "prediction" in spec and not by_request(spec):
        model = models.load(folder)
        sampling = replace(model.sampling, steps=min(model.sampling.steps, MOST))
        images = model.draw(SHOWN, seed=0, sampling=sampling)
        how = f", first seed 0; {sampling}"
        if sampling != model.sampling:
            how += f", in place of its own {model.sampling.steps}"
    return html.write(place(folder), folder.name, parts(folder, spec, images, how))


def by_request(spec: dict) -> bool:
    """Whether a model draws only what it is asked for."""
    return bool(spec["network"]["arguments"].get("conditions"))


def place(folder: Path) -> Path:
    """Where the page of a folder goes."""
    if is_working_copy() and is_shipped(folder):
        return root() / "runs" / f"{folder.name}.html"
    return folder / FILE


def parts(folder: Path, spec: dict, images: Tensor | None, how: str = "") -> Iterator[str]:
    """What a model's page shows, from top to bottom."""
    if images is not None:
        figure, count = pictured(images)
        yield html.picture(figure, f"{count} that it drew{how}")
    yield from scores(folder)
    rows = [row for row in spec.get("curve", []) if row.get("held_out") is not None]
    if rows:
        figure = plots.curve(rows).figure
        yield html.picture(figure, "training and held-out loss against the images seen")
    yield html.heading("How it was made")
    yield html.table(made(spec))


def scores(folder: Path) -> Iterator[str]:
    """The card, the report or the table of what was asked for, whichever lies in the folder."""
    card = folder / "card.json"
    if card.exists():
        yield html.heading("Its score")
        yield html.table(Card(**read_json(card, CURE)).rows())
    report = folder / "report.json"
    if report.exists():
        found = read_json(report, CURE)["all"]
        low, high = found["interval"]
        right = f"{100 * found['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"
        rows = [("right", f"{right} of {found['n']:,}"), ("macro AUC", f"{found['macro_auc']:.4f}")]
        yield html.heading("Its report")
        yield html.table(rows)
    if (folder / conditional.FILE).exists():
        yield html.heading("What was asked for, and what it drew")
        yield html.table(asked(conditional.stored(folder)))


def asked(found: dict) -> Iterator[tuple[str, ...]]:
    """Rows of what a conditional model was asked for: of classes, or of lens parameters."""
    if "floor" in found:
        for row in found["scales"]:
            right = f"{100 * row['accuracy']:.1f} % of {row['n']:,} recognised"
            yield f"guidance {row['guidance']:g}", right
        return
    for name, (title, *_) in parameters.NAMES.items():
        each = (f"{r['fits'][name]['correlation']:.3f}" for r in found["scales"])
        scales = (f"guidance {row['guidance']:g}" for row in found["scales"])
        pairs = ", ".join(f"{a} ({b})" for a, b in zip(each, scales, strict=True))
        yield f"{title}: correlation", pairs


def listed(values: dict) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def made(spec: dict) -> Iterator[tuple[str, object]]:
    """Rows of a table: recipe, data, budget, machine, and the weights' fingerprint."""
    recipe = dict(spec.get("recipe") or {})
    train = dict(recipe.get("train") or spec.get("config") or {})
    network = spec.get("network") or {"name": spec.get("kind"), "arguments": spec["arguments"]}
    yield "network", f"{network['name']}: {listed(network['arguments'])}"
    rows = {"recipe": recipe.get("name"), "predicts": spec.get("prediction")}
    rows |= {"noise levels": listed(train.get("sigmas") or {})}
    rows |= {"weights that learn": ", ".join(train.get("learns") or ())}
    rows |= {"loss": "balanced over noise levels"} if train.get("balance") else {}
    rows |= {name: train.get(name) for name in SETTINGS}
    rows |= {"data": dict(spec.get("data") or {}).get("name")}
    for name, value in rows.items():
        if value not in (None, ""):
            yield name, value
    if spec.get("images_seen"):
        yield "images seen", f"{spec['images_seen']:,}"
    if spec.get("seconds"):
        yield "minutes", f"{spec['seconds'] / 60:.0f}, pauses and all"
    yield "machine", spec.get("machine", "not said")
    yield "SHA-256 of the weights", spec["sha256"]

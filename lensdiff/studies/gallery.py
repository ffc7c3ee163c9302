"""What the shipped models are worth, as Markdown from their JSON files.

It writes data/checkpoints/README.md, and the README's table of results between its two comments.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import DataError
from ..lensing import parameters
from ..scores.card import Card
from ..storage import read_json, root, shipped, write_text
from . import conditional

EXAMPLE = "python -m lensdiff study gallery"
BLOCK = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)", re.S)
CURE = "Score the model: python -m lensdiff score"

INTRODUCTION = """# The shipped models

Made from the JSON files beside the weights by `python -m lensdiff study gallery`; a test holds this
page against them. Each folder has `weights.safetensors` (fp16, the average of the weights) and
`spec.json` (network, recipe, data, curve, SHA-256), and describes itself: `ld.load("lens150")`
reads it. How a model came to be stands on the page beside its weights.

FD-EfficientNet is the Fréchet distance in the features of EfficientNet-Lite0. It is not FID, and
can't be compared with one. The floor is what as many other simulated images get, and the
excess over it is what compares with other numbers of images; the reference is held out of training.
"""

REPRODUCE = """## The same again

A run can be killed at any moment and called again; on the CPUs of one machine it ends with the same
weights, bit for bit. `--start` goes on from other weights as a new stage, which the new model
records. On a GPU the same recipes scale by `--batch`, `--width`, `--steps` and `--lr`. In all about
six hours on two cores, and for `lens150-long`, which was trained on a GPU, as much again by
calculation; [its page](lens150-long/README.md) says how the run differed from this command:

```bash
python -m lensdiff train lens64 runs/lens64 --state runs/s1
python -m lensdiff train lens150 runs/lens150 --state runs/s2 --start runs/lens64
python -m lensdiff train lens150-long runs/long --state runs/s10 --start runs/lens150
python -m lensdiff train classes64-first runs/first --state runs/s3 --start runs/lens64
python -m lensdiff train classes64 runs/classes64 --state runs/s4 --start runs/first
python -m lensdiff train parameters64-first runs/p-first --state runs/s5 --start runs/first
python -m lensdiff train parameters64 runs/parameters64 --state runs/s6 --start runs/p-first
python -m lensdiff train judge64 runs/judge64 --state runs/s7
python -m lensdiff train lensnet runs/l-first --state runs/s8
python -m lensdiff train lensnet runs/lensnet --state runs/s9 --start runs/l-first \\
    --lr 4e-4 --steps 5000
python -m lensdiff score runs/lens64
python -m lensdiff score runs/lens150 --images 1024 --legacy
python -m lensdiff score runs/long
python -m lensdiff score runs/classes64 --judge runs/judge64
python -m lensdiff score runs/parameters64
python -m lensdiff score runs/judge64 --recipe judge64
python -m lensdiff score runs/lensnet --recipe lensnet
```
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share in per cent, with one digit behind the point."""
    return f"{100 * share:.1f} %"


def _json(model: str, name: str) -> dict:
    return read_json(shipped(model) / name, f"{CURE} {shipped(model)}")


def _training(model: str) -> str:
    spec = _json(model, "spec.json")
    stages = [*spec.get("stages", []), spec]
    images = sum(stage["images_seen"] for stage in stages)
    minutes = {}
    for stage in stages:
        on_gpu = stage["machine"].startswith("NVIDIA")
        where = f"an {stage['machine']}" if on_gpu else "two CPU cores"
        minutes[where] = minutes.get(where, 0.0) + stage["seconds"] / 60
    times = ", ".join(f"{spent:.0f} min on {where}" for where, spent in minutes.items())
    return f"{images:,} images, {times}"


# ---- the README's table --------------------------------------------------------------------------


def _drawing_row(model: str, what: str) -> list[str]:
    card = Card(**_json(model, "card.json"))
    error = "" if card.excess_error is None else f" ± {card.excess_error:.2f}"
    excess = f"FD-EfficientNet {card.distance:.2f}, {card.excess:.2f}{error} above the floor"
    kid = f"KID x 1000 {card.kid:.1f} ± {card.kid_std:.1f}"
    result = f"{excess}, {kid}, {card.n_generated:,} images, {card.calls} calls"
    return [model, what, _training(model), result, f"{card.floor:.2f}, {card.kid_floor:.2f}"]


def _classes_row() -> list[str]:
    found = conditional.stored(shipped("classes64"))
    best = found["best"][found["judge_extractor"]]
    low, high = best["interval"]
    answer = f"`judge64` finds the class in {percent(best['accuracy'])} of {best['n']}"
    result = f"{answer} ({percent(low)} to {percent(high)}), guidance {best['guidance']:g}"
    real = percent(found["real"]["accuracy"])
    return ["classes64", "64 x 64, of a class", _training("classes64"), result, real]


def _parameters_row() -> list[str]:
    found = conditional.stored(shipped("parameters64"))
    name = "einstein_radius_arcsec"
    fits = found["scales"][0]["fits"][name]
    radius = f"Einstein radius, requested against measured: correlation {fits['correlation']:.3f}"
    result = f"{radius} ({fits['n']} lenses)"
    real = f"{found['real'][name]['correlation']:.3f}"
    what = "64 x 64, of given parameters"
    return ["parameters64", what, _training("parameters64"), result, real]


def _classifier_row(model: str, what: str) -> list[str]:
    found = _json(model, "report.json")["all"]
    low, high = found["interval"]
    share = f"{percent(found['accuracy'])} ({percent(low)} to {percent(high)}) of {found['n']:,}"
    low, high = found["macro_auc_interval"]
    result = f"{share} right, macro AUC {found['macro_auc']:.3f} ({low:.3f} to {high:.3f})"
    return [model, what, _training(model), result, ""]


def results() -> str:
    """One table of results with a row a model."""
    rows = [
        _drawing_row("lens150-long", "150 x 150, trained on"),
        _drawing_row("lens150", "150 x 150"),
        _drawing_row("lens64", "64 x 64"),
        _classes_row(),
        _parameters_row(),
        _classifier_row("lensnet", "classifier of Common Test I"),
        _classifier_row("judge64", "classifier of 64 x 64"),
    ]
    linked = [[f"[{name}](data/checkpoints/README.md#{name})", *rest] for name, *rest in rows]
    return table(["model", "what", "training", "result", "simulated lenses get"], linked)


# ---- the page of the models ----------------------------------------------------------------------


def _head(model: str, words: str) -> str:
    page = f" [How it was made]({model}/README.md)."
    return f"## {model}\n\n{words} {_training(model)}.{page}\n"


def _drawing(model: str, words: str) -> str:
    parts = [_head(model, words), Card(**_json(model, "card.json")).markdown()]
    legacy = shipped(model) / "legacy.json"
    if legacy.exists():
        old = _json(model, "legacy.json")
        rules = f"{old['n_generated']:,} images at {old['resolution']} against *training* images"
        parts.append(f"\nScored as earlier reports are, {rules}: {old['distance']:.2f}.")
    return "\n".join(parts) + "\n"


def _class_row(name: str, row: dict, floor: dict) -> list[str]:
    low, high = row["interval"]
    cells = [name, f"{row['n']:,}", percent(row["accuracy"]), f"{percent(low)} to {percent(high)}"]
    cells.append(f"{row['macro_auc']:.3f}")
    for net, each in row["distance"].items():
        mean = sum(each.values()) / len(each)
        least = sum(floor["distance"][net].values()) / len(each)
        cells.append(f"{mean:.2f} ({least:.2f})")
    return cells


def _classes(model: str, words: str) -> str:
    found = conditional.stored(shipped(model))
    rows = [
        _class_row(f"guidance {row['guidance']:g}", row, found["floor"]) for row in found["scales"]
    ]
    others = {row["guidance"]: row for row in found["best"].values()}
    for guidance, row in sorted(others.items()):
        rows.append(_class_row(f"guidance {guidance:g}, others", row, found["best_floor"]))
    rows.append(_class_row("simulated lenses", found["best_floor"], found["best_floor"]))
    nets = [f"{net} (floor)" for net in found["floor"]["distance"]]
    head = ["images", "n", "recognised", "95 % interval", "macro AUC", *nets]
    count = f"{found['real']['n']:,} simulated test lenses"
    real = f"{percent(found['real']['accuracy'])} of all {count}"
    explained = (
        f"`{found['judge']}` says how many are recognised as the class that was asked for; it "
        f"recognises {real}. Distances are means over the classes, with those of simulated lenses "
        'behind them. "Others" are seeds that did not choose the guidance.'
    )
    return f"{_head(model, words)}\n{explained}\n\n{table(head, rows)}\n"


def _parameters(model: str, words: str) -> str:
    found = conditional.stored(shipped(model))
    columns = [("simulated", found["real"])]
    columns += [(f"guidance {row['guidance']:g}", row["fits"]) for row in found["scales"]]
    rows = []
    for name, (title, unit, *_) in parameters.NAMES.items():
        row = [f"{title} ({unit})" if unit else title]
        for _, fits in columns:
            one = fits[name]
            row.append(f"{one['correlation']:.3f}, {one['scatter']:.3f}, {one['rms']:.3f}")
        rows.append(row)
    unfitted = ", ".join(f"{next(iter(fits.values()))['unfitted']}" for _, fits in columns)
    explained = (
        f"Parameters of {found['n']} test lenses, requested against those that a fit to the image "
        "finds, from the image alone: correlation, scatter (1.4826 times the median absolute "
        f"deviation), rms. No lens fits {unfitted} of them, which are left out."
    )
    head = ["", *(name for name, _ in columns)]
    return f"{_head(model, words)}\n{explained}\n\n{table(head, rows)}\n"


def _classifier(model: str, words: str) -> str:
    report = _json(model, "report.json")
    rows = []
    for name, title in (("all", "all test images"), ("tenth", "a tenth of them")):
        found = report[name]
        low, high = found["interval"]
        auc = " / ".join(f"{value:.4f}" for value in found["auc"].values())
        share = f"{100 * found['accuracy']:.2f} %"
        interval = f"{percent(low)} to {percent(high)}"
        low, high = found["macro_auc_interval"]
        macro = f"{found['macro_auc']:.4f} ({low:.4f} to {high:.4f})"
        rows.append([title, f"{found['n']:,}", share, interval, auc, macro])
    classes = " / ".join(report["all"]["auc"])
    head = ["", "n", "accuracy", "95 % interval", f"AUC {classes}", "macro AUC, 95 % interval"]
    return f"{_head(model, words)}\n{table(head, rows)}\n"


def page() -> str:
    """data/checkpoints/README.md."""
    parts = [
        INTRODUCTION,
        _drawing("lens150-long", "lens150, trained on at the noise that decides a lens's shape."),
        _drawing("lens150", "Draws lenses of 150 x 150 pixels; a telescope adds the noise."),
        _drawing("lens64", "Draws lenses of 64 x 64 pixels, noise and all."),
        _classes("classes64", "Draws lenses of a class: `no_sub`, `cdm` or `axion`."),
        _parameters("parameters64", "Draws lenses of seven given parameters."),
        _classifier("lensnet", "Common Test I, on DeepLenseSim's Model I at 150 x 150 pixels."),
        _classifier("judge64", "Tells the classes of lenses of 64 x 64 pixels apart."),
        REPRODUCE,
    ]
    return "\n".join(parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options: none."""


def with_results(readme: str) -> str:
    """The README with its table made anew. Raises DataError where it has no place for one."""
    if not BLOCK.search(readme):
        raise DataError("README.md has no <!-- results: ... --> block. Put it back.")
    return BLOCK.sub(lambda found: f"{found[1]}{results()}\n{found[2]}", readme)


def run(args: argparse.Namespace) -> None:
    """Write both pages."""
    readme = root() / "README.md"
    write_text(readme, with_results(readme.read_text(encoding="utf-8")))
    write_text(shipped("README.md"), page())
    print(f"{Path('data/checkpoints/README.md')} and README.md are up to date")

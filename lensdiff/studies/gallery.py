"""What the shipped models are worth, as Markdown from their JSON files.

It writes data/checkpoints/README.md, and the tables of results between the two comments of the
README and of docs/deeplense.md.
"""

from __future__ import annotations

import argparse
import math
import re
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..lensing import parameters
from ..lensing.population import KINDS
from ..scores.card import Card
from ..scores.spread import share_error
from ..storage import checkpoints, read_json, root, shipped, studies_folder, write_json, write_text
from . import benchmark, census, conditional, first_level, paired, peer_quality
from .conditional_report import correlation
from .gallery_page import guided, json_of, page, percent, table, training
from .peers import BUILDERS

EXAMPLE = "python -m lensdiff study gallery"
HEADS = ["model", "what", "training", "result", "simulated or real images get"]
LENSNET = (
    "classifier of Common Test I's three kinds, on lenses simulated here; the size of a ring helps "
    "it ([07](notebooks/07_classifier.ipynb))"
)
TUNED = "; its sampling was chosen on these test images"
BLOCK = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)", re.S)

# ---- the README's table --------------------------------------------------------------------------


def _drawing_row(model: str, what: str, more: str = "") -> list[str]:
    card = Card(**json_of(model, "card.json"))
    error = "" if card.excess_error is None else f" ± {card.excess_error:.2f}"
    excess = f"FD-EfficientNet {card.distance:.2f}, {card.excess:.2f}{error} above the floor"
    kid = f"KID x 1000 {card.kid:.1f} ± {card.kid_std:.1f}"
    more += _begun_higher(model)
    result = f"{excess}, {kid}, {card.n_generated:,} images, {card.calls} calls{more}"
    floor = f"floor {card.floor:.2f}, KID x 1000 {card.kid_floor:.2f}"
    return [model, what, training(model), result, floor]


def _begun_higher(model: str) -> str:
    """What a card has whose sampling begins at the level that `study first_level` found."""
    rows = read_json(studies_folder() / first_level.FILE, f"Make it: {first_level.EXAMPLE}")["rows"]
    own, *others = [row for row in rows if (row["name"], row["role"]) == (model, "card")] or [None]
    if not others:
        return ""
    excess = f"{others[0]['distance'] - own['floor']:.2f} ± {others[0]['excess_error']:.2f}"
    high = f"{others[0]['high']:g}"
    command = f"python -m lensdiff draw {model} --high {high}"
    return f"; begun at σ = {high}, not {own['high']:g}, {excess} (`{command}`)"


def _classes_row() -> list[str]:
    found = conditional.stored(shipped("classes64"))
    best = found["more"] or found["best"][found["judge_extractor"]]
    low, high = best["interval"]
    answer = f"`judge64` finds the class in {percent(best['accuracy'])} of {best['n']:,}"
    answer += f" ({percent(low)} to {percent(high)}; {_by_class(best)})"
    result = f"{answer}; guidance {best['guidance']:g}, which the judge's own features chose"
    many = found["more_floor"] or found["best_floor"]
    low, high = many["interval"]
    real = f"{percent(many['accuracy'])} of {many['n']:,} ({percent(low)} to {percent(high)}; "
    real += f"{_by_class(many)})"
    return ["classes64", "64 x 64, of a class", training("classes64"), result, real]


def _by_class(report: dict) -> str:
    """The share of each class that a judge finds."""
    rows = enumerate(report["confusion"])
    return ", ".join(f"{KINDS[k]} {percent(row[k] / sum(row))}" for k, row in rows)


def _title(name: str) -> str:
    """What a lens parameter is called."""
    return parameters.NAMES[name][0]


def _parameters_row(model: str) -> list[str]:
    found = conditional.stored(shipped(model))
    fits = found["scales"][0]["fits"]
    names = list(fits)
    weakest = min(names, key=lambda name: fits[name]["correlation"])
    shown = ["einstein_radius_arcsec", weakest]
    each = [f"{_title(name)} {correlation(fits[name])}" for name in shown]
    each[1] = each[1].replace(")", "; weakest of seven)")
    told = f"requested against measured, correlation: {each[0]}, {each[1]}"
    told += f", guidance {found['scales'][0]['guidance']:g}"
    fitted = fits[weakest]
    result = f"{told}, {fitted['n']} lenses; no lens fits {fitted['unfitted']} more"
    real = " and ".join(correlation(found["real"][name]) for name in shown)
    real += f", {found['real'][weakest]['n']} lenses"
    what = "64 x 64, of given parameters"
    return [model, what, training(model), result, real]


def _digits_row() -> list[str]:
    _, *scales = guided()
    test = json_of("judge-digits", "report.json")["all"]  # digits that the judge never saw
    best = min(scales, key=lambda row: row["distance"])
    low, high = best["interval"]
    answer = f"`judge-digits` finds the digit in {percent(best['accuracy'])} of {best['n']:,}"
    result = f"{answer} ({percent(low)} to {percent(high)}), guidance {best['guidance']:g}"
    what = "28 x 28 digits, in latents"
    real = f"{percent(test['accuracy'])} of test digits"
    return ["latent-digits", what, training("latent-digits"), result, real]


def _classifier_row(model: str, what: str) -> list[str]:
    found = json_of(model, "report.json")["all"]
    low, high = found["interval"]
    share = f"{percent(found['accuracy'])} ({percent(low)} to {percent(high)}) of {found['n']:,}"
    low, high = found["macro_auc_interval"]
    result = f"{share} right, macro AUC {found['macro_auc']:.3f} ({low:.3f} to {high:.3f})"
    return [model, what, training(model), result, ""]


def _times(row: dict, slow: str, own: str = "ours") -> str:
    return f"{paired.ratio(row['seconds'][slow], row['seconds'][own])} times"


BENCHMARK = "notebooks/11_benchmark.ipynb"
PHYSICS = "notebooks/13_lens_physics.ipynb"


def _benchmark_row() -> list[str]:
    """Beside other libraries, on a machine with bfloat16: three ratios, each with its spread."""
    cure = "Restore it: git checkout data/studies/benchmark.json"
    stored = read_json(studies_folder() / benchmark.FILE, cure)["rows"]
    rows = {(row["part"], row["row"]): row for row in stored if row["kind"] == "bf16"}
    training = rows["training", "64"]
    fastest = min(BUILDERS, key=lambda name: np.median(training["seconds"][name]))
    speed = (
        f"an update of {fastest}, the fastest peer, takes {_times(training, fastest, 'ours, fp32')}"
        f" as long as ours in float32, {_times(training, f'{fastest}, bf16')} in bfloat16"
    )
    distance = _times(rows["frechet", "10000"], "pytorch-fid")
    result = f"{speed}; {_quality(rows)}; a Fréchet distance takes pytorch-fid {distance}"
    what = "64 x 64, beside other libraries"
    return [f"[benchmark]({BENCHMARK})", what, training["machine"], result, ""]


def _quality(rows: dict) -> str:
    """What equal time buys beside the nearest of the peers that are stored."""
    keys = {name: ("quality", f"{name}, {peer_quality.EQUAL}") for name in BUILDERS}
    cards = {name: rows[key]["card"] for name, key in keys.items() if key in rows}
    name = min(cards, key=lambda name: cards[name]["distance"] - cards[name]["floor"])
    peer = cards[name]
    nearest = f", the nearest of {len(cards)} peers," if len(cards) > 1 else ""
    recipes = read_json(studies_folder() / "recipes.json", "Restore data/studies/recipes.json")
    own = {row["name"]: row["card"] for row in recipes["rows"] if "card" in row}
    ours = own["ours-balanced"]
    return (
        f"after equal time {name}{nearest} has {_over(peer, ours)} times the excess of ours "
        f"({ours['distance'] - ours['floor']:.1f} ± {ours['excess_error']:.1f}; without a balanced "
        f"loss {_over(peer, own['ours'])} times; one training each, {peer['calls']} calls a lens "
        f"against {ours['calls']}, and ours was tuned on this score)"
    )


def _over(peer: dict, ours: dict) -> str:
    """How many times the excess of one card is that of another, and the error of that."""
    theirs, own = (card["distance"] - card["floor"] for card in (peer, ours))
    error = theirs / own * math.hypot(peer["excess_error"] / theirs, ours["excess_error"] / own)
    return f"{theirs / own:.1f} ± {error:.1f}"


def _with_error(count: int, n: int) -> str:
    """A share of n and its binomial standard error, in per cent."""
    share, error = share_error(count, n)
    return f"{100 * share:.1f} ± {100 * error:.1f} %"


def _census_row() -> list[str]:
    """What is measured of the largest model's lenses, and of the population; a classifier's word.

    Beside its accuracy stands that between two sets of test lenses.
    """
    cure = "Restore it: git checkout data/studies/census.json"
    path = studies_folder() / census.FILES[150]
    rows = {row["name"]: row for row in read_json(path, cure)["rows"]}
    flagship = rows["lens150-long"]
    told = []
    for row, judged in ((flagship, flagship), (rows[census.ALL], rows[census.OTHER])):
        names = ("two_or_ring", "three_images", "any_but_three_images")
        shares = [_with_error(row["counts"]["drawn"][name], row["n"]) for name in names]
        accuracy, error = judged["two_sample"]
        of_them = "" if judged is row else f", {judged['n']:,} of them,"
        told.append(
            f"two or more bright images or a ring {shares[0]}, three {shares[1]}, another defect "
            f"{shares[2]}; told from test lenses by a classifier{of_them} in "
            f"{100 * accuracy:.1f} ± {100 * error:.1f} % (50 % by guessing)"
        )
    what = f"{flagship['n']:,} lenses of lens150-long; beside {rows[census.ALL]['n']:,} simulated"
    return [f"[physics]({PHYSICS})", what, "", told[0], told[1]]


def results() -> str:
    """One table of results with a row a model, one of physics, and one of the benchmark."""
    rows = [
        _drawing_row("lens150-long", "150 x 150, lens150 trained further"),
        _drawing_row("lens150", "150 x 150"),
        _drawing_row("lens64-long", "64 x 64, the network of lens150-long"),
        _drawing_row("lens64", "64 x 64, noise and all", TUNED),
        _classes_row(),
        _parameters_row("parameters64"),
        _drawing_row("latent150", "150 x 150, in latents"),
        _digits_row(),
        _classifier_row("lensnet", LENSNET),
    ]
    return table(HEADS, [*linked(rows), _census_row(), _benchmark_row()])


def linked(rows: list[list[str]], up: str = "") -> list[list[str]]:
    """Rows whose first cell is a link into the gallery, from a page that lies `up` folders deep."""
    return [[f"[{name}]({up}data/checkpoints/README.md#{name})", *rest] for name, *rest in rows]


def answers() -> str:
    """The rows that answer DeepLense's test, for a page one folder deep."""
    rows = [
        _drawing_row("lens150-long", "150 x 150, lens150 trained further"),
        _drawing_row("lens150", "150 x 150"),
        _classifier_row("lensnet", LENSNET),
    ]
    found = [*linked(rows, "../"), _census_row()]
    found = [[cell.replace("](notebooks/", "](../notebooks/") for cell in row] for row in found]
    return table(HEADS, found)


TABLES = {"README.md": results, "docs/deeplense.md": answers}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options: none."""


def with_results(text: str, made: str, name: str = "README.md") -> str:
    """A page with its table made anew. Raises DataError where it has no place for one."""
    if not BLOCK.search(text):
        raise DataError(f"{name} has no <!-- results: ... --> block. Put it back.")
    return BLOCK.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text)


def run(args: argparse.Namespace) -> None:
    """Write the gallery, and both tables."""
    for name, make in TABLES.items():
        place = root() / name
        write_text(place, with_results(place.read_text(encoding="utf-8"), make(), name))
    write_text(shipped("README.md"), page())
    described = checkpoints.described(shipped("README.md").parent)
    write_json(Path(str(files("lensdiff.storage") / checkpoints.MANIFEST)), described)
    print(f"{Path('data/checkpoints/README.md')}, {' and '.join(TABLES)} are up to date")

"""The page of the shipped models, data/checkpoints/README.md, from their JSON files."""

from __future__ import annotations

import re

from ..lensing import parameters
from ..networks import latent
from ..scores.card import Card
from ..storage import read_json, shipped, studies_folder
from . import conditional, latents

CURE = "Score the model: python -m lensdiff score"

INTRODUCTION = """# The shipped models

Commands are for an activated environment: `source .venv/bin/activate`, or `conda activate
lensdiff`. Images and minutes include the stages that a model began from (`lens150` those of
`lens64`), and of a model of latents its autoencoder's minutes. Minutes are by the clock and include
pauses; [docs/scale.md](../../docs/scale.md) has some of the stages by calculation.

Made from the JSON files beside the weights (of `latent-digits` also `data/studies/latents.json`) by
`python -m lensdiff study gallery`; a test holds this page against them. Each folder has
`weights.safetensors` (fp16, the average of the weights; of classifiers the last ones) and
`spec.json` (network, recipe, data, curve, SHA-256), and describes itself: `ld.load("lens150")`
reads it. The page beside its weights says how a model was made.

FD-EfficientNet is the Fréchet distance in the features of EfficientNet-Lite0. It is not FID, and
can't be compared with one. The floor is the distance of as many other simulated images; where
numbers of images differ, compare the excess over it. The reference is held out of training.
± of a distance is a standard error, that of KID the spread over random subsets.
"""

REPRODUCE = """## The same again

A run can be killed at any moment and called again; on the CPUs of one machine it ends with the same
weights, bit for bit. `--start` goes on from other weights as a new stage, which the new model
records. On a GPU the same recipes scale by `--batch`, `--width`, `--steps` and `--lr`. All of it
takes eight and a half hours on two cores, without `lens150-long`, which was trained on a GPU:
[its page](lens150-long/README.md) says how the run differed from this command, which takes nearly
six hours more on two cores ([by calculation](../../docs/scale.md)):

```bash
python -m lensdiff train lens64 runs/lens64 --state runs/s1
python -m lensdiff train lens150 runs/lens150 --state runs/s2 --start runs/lens64
python -m lensdiff train lens150-long runs/long --state runs/s10 --start runs/lens150
python -m lensdiff train classes64-first runs/first --state runs/s3 --start runs/lens64
python -m lensdiff train classes64 runs/classes64 --state runs/s4 --start runs/first
python -m lensdiff train parameters64-first runs/p-first --state runs/s5 --start runs/first
python -m lensdiff train parameters64 runs/parameters64 --state runs/s6 --start runs/p-first
python -m lensdiff train lens64-long runs/long64 --state runs/s17 --start runs/long
python -m lensdiff train judge64 runs/judge64 --state runs/s7
python -m lensdiff train lensnet runs/l-first --state runs/s8
python -m lensdiff train lensnet runs/lensnet --state runs/s9 --start runs/l-first \\
    --lr 4e-4 --steps 5000
python -m lensdiff train digits-vq runs/digits-vq --state runs/s11
python -m lensdiff train digits-kl runs/digits-kl --state runs/s12
python -m lensdiff train latent-digits runs/latent-digits --state runs/s13 \\
    --autoencoder runs/digits-vq
python -m lensdiff train judge-digits runs/judge-digits --state runs/s14
python -m lensdiff train lens150-kl runs/lens150-kl --state runs/s15
python -m lensdiff train latent150 runs/latent150 --state runs/s16 --autoencoder runs/lens150-kl
python -m lensdiff score runs/lens64
python -m lensdiff score runs/lens150 --images 1024 --legacy
python -m lensdiff score runs/long
python -m lensdiff score runs/latent150
python -m lensdiff score runs/classes64 --judge runs/judge64
python -m lensdiff score runs/parameters64
python -m lensdiff score runs/long64
python -m lensdiff score runs/judge64 --recipe judge64
python -m lensdiff score runs/judge-digits --recipe judge-digits
python -m lensdiff score runs/lensnet --recipe lensnet
```

Other tables beside the weights: `study samplers MODEL` (of `lens64` with `-n 256`), `study where
MODEL`; in `data/studies`, of `lens150` and `lens150-long`: `study physics` and `study census` (both
names follow), and of `latent-digits` `study latents`.
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share in per cent, with one digit behind the point."""
    return f"{100 * share:.1f} %"


def json_of(model: str, name: str) -> dict:
    """A JSON file of a shipped model. Raises DataError where it is missing or damaged."""
    return read_json(shipped(model) / name, f"{CURE} {shipped(model)}")


def _where(machine: str) -> str:
    """The machine of a training, from what its spec.json has."""
    gpu = re.search(r"NVIDIA [^,]*|GPU of a Mac", machine)
    if gpu:
        return f"{'an' if gpu[0].startswith('NVIDIA') else 'the'} {gpu[0]}"
    threads = re.search(r"(\d+) threads", machine)
    count = int(threads[1]) if threads else 2
    return {1: "one CPU core", 2: "two CPU cores"}.get(count, f"{count} CPU cores")


def training(model: str) -> str:
    """Images that a shipped model has seen, and its minutes, those of its stages included."""
    spec = json_of(model, "spec.json")
    stages = [*spec.get("stages", []), spec]
    images = sum(stage["images_seen"] for stage in stages)
    if spec.get("autoencoder"):  # its minutes count, its images are the same ones again
        stages.append(json_of(spec["autoencoder"]["name"], "spec.json"))
    minutes = {}
    for stage in stages:
        where = _where(stage["machine"])
        minutes[where] = minutes.get(where, 0.0) + stage["seconds"] / 60
    times = ", ".join(f"{spent:.0f} min on {where}" for where, spent in minutes.items())
    return f"{images:,} images, {times}"


def guided() -> list[dict]:
    """The stored rows of `study latents` about digits of a class, by guidance."""
    rows = read_json(studies_folder() / latents.FILE, f"Make it: {latents.EXAMPLE}")["rows"]
    return [row for row in rows if row["role"] in ("real", "guided") and "few" not in row]


# ---- sections ----------------------------------------------------------------------------------


def _head(model: str, words: str) -> str:
    page = f" [How it was made]({model}/README.md)."
    return f"## {model}\n\n{words} {training(model)}.{page}\n"


LENS64_LONG = (
    "Draws lenses of 64 x 64 pixels with the network of lens150-long, of which a sixth of the "
    "weights learnt these pixels; a telescope adds the noise."
)
LENS64 = (
    "Draws lenses of 64 x 64 pixels, noise and all. (Its sampling was chosen among eight settings "
    "by the distance to these same test images, with other seeds.)"
)


def _drawing(model: str, words: str) -> str:
    parts = [_head(model, words), Card(**json_of(model, "card.json")).markdown()]
    legacy = shipped(model) / "legacy.json"
    if legacy.exists():
        old = json_of(model, "legacy.json")
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
    if found["more"]:
        more = found["more"]
        name = f"guidance {more['guidance']:g}, more of these"
        rows.append(_class_row(name, more, found["more_floor"]))
        rows.append(_class_row("as many simulated", found["more_floor"], found["more_floor"]))
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
        f"deviation), rms. Left out of the columns, since no lens fits them: {unfitted}."
    )
    head = ["", *(name for name, _ in columns)]
    return f"{_head(model, words)}\n{explained}\n\n{table(head, rows)}\n"


def _digits(model: str, words: str) -> str:
    rows = []
    for row in guided():
        low, high = row["interval"]
        name = f"guidance {row['guidance']:g}" if "guidance" in row else "training digits"
        interval = f"{percent(low)} to {percent(high)}"
        distance = f"{row['distance']:.2f}"
        rows.append([name, f"{row['n']:,}", percent(row["accuracy"]), interval, distance])
    explained = (
        "`judge-digits` says how many are recognised as the digit that was asked for. The distance "
        "is to all test digits, in that classifier's features."
    )
    head = ["digits", "n", "recognised", "95 % interval", "Fréchet distance"]
    return f"{_head(model, words)}\n{explained}\n\n{table(head, rows)}\n"


def _autoencoder(model: str, words: str) -> str:
    """An autoencoder: what is lost of held-out images, and the latents' size."""
    made = latent.load(shipped(model), "cpu")
    scores = made.spec["scores"]
    channels, height, width = made.shape
    error = f"{100 * scores['error']:.2f} % of the pixels' variance"
    # they lie class by class, and the first 256 have no 7, 8 or 9
    digits = "256 held-out digits, 0 to 6 (of all ten classes: notebook 08)"
    which = digits if "digits" in model else "held out"
    rows = [["latents", f"{height} x {width} x {channels}"], [f"squared error, {which}", error]]
    if "perplexity" in scores:
        used = f"{scores['perplexity']:.0f} of {len(made.net.codes)}"
        rows.append(["perplexity of the codes", used])
    return f"{_head(model, words)}\n{table(['', ''], rows)}\n"


def _classifier(model: str, words: str) -> str:
    report = json_of(model, "report.json")
    areas = report["all"]["auc"]
    named = list(areas) if len(areas) <= 3 else [min(areas, key=areas.get)]  # the smallest
    rows = []
    for name, title in (("all", "all test images"), ("tenth", "a tenth of them")):
        found = report[name]
        low, high = found["interval"]
        auc = " / ".join(f"{found['auc'][one]:.4f}" for one in named)
        share = f"{100 * found['accuracy']:.2f} %"
        interval = f"{percent(low)} to {percent(high)}"
        low, high = found["macro_auc_interval"]
        macro = f"{found['macro_auc']:.4f} ({low:.4f} to {high:.4f})"
        rows.append([title, f"{found['n']:,}", share, interval, auc, macro])
    which = "AUC " if len(areas) <= 3 else f"smallest AUC of {len(areas)}: "
    head = ["", "n", "accuracy", "95 % interval", which + " / ".join(named)]
    head.append("macro AUC, 95 % interval")
    return f"{_head(model, words)}\n{table(head, rows)}\n"


def page() -> str:
    """data/checkpoints/README.md."""
    parts = [
        INTRODUCTION,
        _drawing("lens150-long", "lens150, trained on at the noise that decides a lens's shape."),
        _drawing("lens150", "Draws lenses of 150 x 150 pixels; a telescope adds the noise."),
        _drawing("lens64-long", LENS64_LONG),
        _drawing("lens64", LENS64),
        _classes("classes64", "Draws lenses of a class: `no_sub`, `cdm` or `axion`."),
        _parameters("parameters64", "Draws lenses of seven given parameters."),
        _drawing("latent150", "Draws latents of 150 x 150 lenses, which `lens150-kl` decodes."),
        _autoencoder("lens150-kl", "Lenses without noise, 150 x 150 pixels, as latents."),
        _digits("latent-digits", "Draws latents of digits, which `digits-vq` decodes."),
        _autoencoder("digits-vq", "Digits as latents with a codebook."),
        _autoencoder("digits-kl", "Digits as latents without one."),
        _classifier("lensnet", "Common Test I, on DeepLenseSim's Model I at 150 x 150 pixels."),
        _classifier("judge64", "Tells the classes of lenses of 64 x 64 pixels apart."),
        _classifier("judge-digits", "Tells digits apart."),
        REPRODUCE,
    ]
    return "\n".join(parts)

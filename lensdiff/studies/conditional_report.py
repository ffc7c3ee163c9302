"""Tables and figures of what conditional models were scored with, for notebook 06.

A table is (rows, names of the columns), as `notebook.table` takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import DataError
from ..lensing import parameters
from ..lensing.fit import Fit
from ..notebook import plots
from ..scores.classification import interval
from ..scores.conditional import CONVERGED
from ..storage import read_json
from .ablation_compare import Difference

Table = tuple[list[list[str]], list[str]]
LIMIT = 0.2  # of the peak: a difference shown in full colour
DIVERGING = {"cmap": "RdBu_r", "vmin": -LIMIT, "vmax": LIMIT}


# ---- classes -------------------------------------------------------------------------------------


def shares(report: dict) -> list[tuple[float, float, float]]:
    """Of each class the share recognised and the ends of its 95 % interval (Wilson 1927).

    `report` is one of `classification.report`.
    """
    found = []
    for k, counts in enumerate(report["confusion"]):
        low, high = interval(counts[k], sum(counts))
        found.append((counts[k] / sum(counts), low, high))
    return found


def recognised(reports: Mapping[str, dict], classes: Sequence[str]) -> Table:
    """The shares recognised of each class and of all; a column for each report by its name."""
    rows = []
    for k, name in enumerate(classes):
        each = [shares(report)[k] for report in reports.values()]
        rows.append([name, *(f"{a:.1%} ({low:.0%} to {high:.0%})" for a, low, high in each)])
    totals = [f"{report['accuracy']:.1%}, n = {report['n']:,}" for report in reports.values()]
    return [*rows, ["all", *totals]], ["recognised (95 % interval)", *reports]


def confusions(reports: Mapping[str, dict], classes: Sequence[str]) -> Figure:
    """The confusion matrices of some reports, in shares of the rows."""
    figure, axes = plt.subplots(
        1, len(reports), figsize=(3.6 * len(reports), 3.2), layout="constrained", squeeze=False
    )
    for ax, (words, report) in zip(axes[0], reports.items(), strict=True):
        counts = np.array(report["confusion"])
        table = counts / np.maximum(1, counts.sum(1, keepdims=True))
        ax.imshow(table, cmap="Blues", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(table):
            color = "w" if share > 0.6 else "k"
            ax.text(j, i, f"{share:.0%}", ha="center", va="center", color=color)
        ax.set_xticks(range(len(classes)), classes)
        ax.set_yticks(range(len(classes)), classes)
        ax.set(xlabel="class recognised", title=f"{words} (n = {report['n']:,})")
    axes[0, 0].set_ylabel("true or requested class")
    return figure


def by_level(folder: Path, classes: Sequence[str]) -> Table:
    """The share recognised of lenses of each class, restored from noise levels of `study where`.

    `folder` is that of the model, with where-CLASS.json. Brackets have the 95 % interval (Wilson
    1927). Raises DataError where a file is missing or damaged, without a judge, or of other levels.
    """
    rows = []
    heads = []
    for name in classes:
        path = folder / f"where-{name}.json"
        cure = f"Make it: python -m lensdiff study where {folder} --label {name} --judge judge64"
        found = read_json(path, cure)
        starts = [f"from σ = {row['sigma']:g}" for row in found["rows"][:-1]]
        if "recognised" not in found["floor"] or (heads and heads[3:-1] != starts):
            wrong = "it has no judge, or other levels. Remove it, make all with the same --sigmas"
            raise DataError(f"{path}: {wrong}. {cure}")
        heads = ["class, w = 1", "lenses", "simulated", *starts, "noise alone"]
        shares_of = [found["floor"]["recognised"], *(row["recognised"] for row in found["rows"])]
        ends = [interval(round(share * found["n"]), found["n"]) for share in shares_of]
        both = zip(shares_of, ends, strict=True)
        cells = [f"{share:.0%} ({low:.0%} to {high:.0%})" for share, (low, high) in both]
        rows.append([name, f"{found['n']}", *cells])
    return rows, heads


def scanned(stored: dict) -> Table:
    """The scan of scales of `studies.conditional.stored`: distances are means over the classes."""
    nets = list(stored["floor"]["distance"])
    rows = []
    for row in (*stored["scales"], {**stored["floor"], "guidance": None}):
        w = "simulated" if row["guidance"] is None else f"{row['guidance']:g}"
        low, high = row["interval"]
        cells = [w, f"{row['n']:,}", f"{row['accuracy']:.1%} ({low:.1%} to {high:.1%})"]
        cells += [f"{np.mean(list(row['distance'][name].values())):.2f}" for name in nets]
        rows.append([*cells, f"{row['recall'][nets[0]]:.2f}"])
    return rows, ["w", "n", "recognised", *nets, f"recall, {nets[0][3:]}"]


def second_look(stored: dict) -> list[dict]:
    """The rows of images that did not choose their scale, by scale; those of more where there are.

    `stored` is what `studies.conditional.stored` gives.
    """
    rows = {row["guidance"]: row for row in stored["best"].values()}
    if stored["more"]:
        rows[stored["more"]["guidance"]] = stored["more"]
    return [rows[w] for w in sorted(rows)]


def by_class(stored: dict, classes: Sequence[str]) -> Figure:
    """The second look: the share recognised of each class, beside the band of simulated lenses."""
    rows = second_look(stored)
    figure, axes = plt.subplots(1, len(classes), figsize=(8, 3), layout="constrained", sharey=True)
    for k, (ax, name) in enumerate(zip(axes, classes, strict=True)):
        _, low, high = shares(stored["real"])[k]
        ax.axhspan(100 * low, 100 * high, color="C0", alpha=0.4, label="simulated")
        ax.axhline(100 / len(classes), color="0.5", ls=":", label="chance")
        found = 100 * np.array([shares(row)[k] for row in rows])
        error = np.abs(found[:, 1:] - found[:, :1]).T
        places = range(len(rows))
        ax.errorbar(places, found[:, 0], error, fmt="o", color="C1", capsize=4, label="generated")
        ticks = [f"w = {row['guidance']:g}\nn = {sum(row['confusion'][k]):,}" for row in rows]
        ax.set_xticks(places, ticks)
        ax.set(title=name, xlim=(-0.6, len(rows) - 0.4))
    axes[0].set(ylabel="recognised (%)", ylim=(0, 100))
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def likeness(row: dict, floor: dict) -> Table:
    """Distance, floor, excess and KID of each class, by the features.

    After ± stand standard errors; of KID, the standard deviation over subsets. The excess's adds
    those of distance and floor as if each had a reference of its own. They share one, by which the
    error may be smaller or larger (`jackknife.excess_errors` counts it, from rows of features).

    `row` is of generated images, `floor` of as many simulated ones, both of `ClassScorer.row`.
    """
    rows = []
    for net, classes in row["distance"].items():
        for name, far in classes.items():
            near = floor["distance"][net][name]
            errors = [one["distance_error"][net][name] for one in (row, floor)]
            excess = f"{far - near:.2f} ± {np.hypot(errors[0], errors[1]):.2f}"
            cells = [net, name, f"{far:.2f} ± {errors[0]:.2f}", f"{near:.2f} ± {errors[1]:.2f}"]
            pairs = [(one["kid"][net][name], one["kid_std"][net][name]) for one in (row, floor)]
            rows.append([*cells, excess, *(f"{mean:.2f} ± {std:.2f}" for mean, std in pairs)])
    head = ["features", "class", "distance", "floor", "excess (± as if independent)"]
    return rows, [*head, "KID × 1000", "KID × 1000 of simulated"]


def differences(rows: Sequence[np.ndarray], classes: Sequence[str]) -> Figure:
    """Images of each class, (n, H, W), in a row, and the differences from the first class."""
    columns = len(rows[0])
    count = 2 * len(rows) - 1
    figure, axes = plt.subplots(
        count, columns, figsize=(1.2 * columns + 2.1, 1.22 * count), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    names = [*classes, *(f"{name}\nminus {classes[0]}" for name in classes[1:])]
    for line, words in zip(axes, names, strict=True):
        _name(line[0], words)
    for column in range(columns):
        for k, row in enumerate(rows):
            plots.show(axes[k, column], row[column])
            if k:
                ax = axes[len(rows) + k - 1, column]
                shown = ax.imshow(row[column] - rows[0][column], **DIVERGING)
                ax.set_axis_off()
    bar = {"extend": "both", "label": "difference (of the peak)", "shrink": 0.8}
    figure.colorbar(shown, ax=axes[len(rows) :], **bar)
    return figure


def _name(ax: Axes, words: str) -> None:
    """Words at the left of a row of images."""
    ax.text(-0.08, 0.5, words, transform=ax.transAxes, ha="right", va="center", fontsize=9)


# ---- parameters ----------------------------------------------------------------------------------


def correlation(one: dict) -> str:
    """A correlation of `agreement` and its 95 % interval by Fisher's z."""
    half = 1.96 / np.sqrt(one["n"] - 3)
    z = np.arctanh(one["correlation"])
    low, high = np.tanh([z - half, z + half])
    return f"{one['correlation']:.2f} ({low:.2f} to {high:.2f})"


def agreement(fits: Mapping[str, dict]) -> Table:
    """Correlation, scatter and rms of each parameter; two columns for each entry of `fits`."""
    rows = []
    for name, (words, unit, *_) in parameters.NAMES.items():
        cells = [f"{words} ({unit})" if unit else words]
        for one in fits.values():
            found = one[name]
            cells += [correlation(found), f"{found['scatter']:.3f}, {found['rms']:.3f}"]
        rows.append(cells)
    head = [words for name in fits for words in (f"{name}: correlation", "scatter, rms")]
    return rows, ["", *head]


def residuals(cases: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Data, model and residual in a row for each case: its data and residual, (H, W) both."""
    figure, axes = plt.subplots(
        len(cases), 3, figsize=(6.4, 1.5 * len(cases) + 0.25), layout="constrained", squeeze=False
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for row, (words, (data, left)) in zip(axes, cases.items(), strict=True):
        plots.show(row[0], data)
        plots.show(row[1], data - left)
        shown = row[2].imshow(left, **DIVERGING)
        row[2].set_axis_off()
        _name(row[0], words)
    for ax, title in zip(axes[0], ("data", "model", "residual"), strict=True):
        ax.set_title(title, fontsize=10)
    figure.colorbar(shown, ax=axes, extend="both", label="residual (of the peak)", shrink=0.7)
    return figure


def requested(wanted: np.ndarray, measured: Fit) -> Figure:
    """Each parameter measured against requested, (n, 7), and what the fits leave over."""
    figure, axes = plt.subplots(2, 4, figsize=(10.4, 5), layout="constrained")
    good = measured.rms <= CONVERGED
    about = parameters.NAMES.values()
    for column, (ax, (words, unit, *_)) in enumerate(zip(axes.flat, about, strict=False)):
        ends = (wanted[:, column].min(), wanted[:, column].max())
        ax.plot(ends, ends, color="0.6", lw=1)
        ax.plot(wanted[good, column], measured.values[good, column], ".", color="C0")
        ax.set_title(f"{words} ({unit})" if unit else words, fontsize=9)
        ax.set_xlabel("requested")
    for ax in axes[:, 0]:
        ax.set_ylabel("measured")
    last = axes[1, 3]
    last.hist(measured.rms.clip(1e-3, 0.2), np.geomspace(1e-3, 0.2, 25))
    last.axvline(CONVERGED, color="0.4", lw=1)
    last.set(xscale="log", xlabel="rms that the fit leaves (of the peak)", ylabel="lenses")
    last.set_title("right of the line: left out", fontsize=9)
    return figure


# ---- generated lenses as training images ---------------------------------------------------------


def trained(trial: dict) -> Table:
    """Accuracy (%) of the classifiers of the study `augmentation`: mean and standard error.

    The gains, of accuracy and of 100 times the macro AUC, are paired by seed, with their 95 %
    intervals (Student's t).
    """

    def of(learns: str, n: int, key: str = "accuracy") -> np.ndarray:
        rows = [row for row in trial["rows"] if (row["learns"], row["real"]) == (learns, n)]
        return np.array([100 * row[key] for row in sorted(rows, key=lambda row: row["seed"])])

    def mean(values: np.ndarray) -> str:
        found = Difference.of(values)
        return f"{found.mean:.1f} ± {found.error:.1f}"

    def own(learns: str, n: int) -> str:
        return f"{of(learns, n, 'train_accuracy').mean():.0f}"

    def gain(n: int, key: str) -> str:
        found = Difference.of(of("both", n, key) - of("real", n, key))
        low, high = found.interval()
        return f"{found.mean:+.1f} ({low:+.1f} to {high:+.1f})"

    rows = [["none", "–", mean(of("drawn", 0)), "–", "–", own("drawn", 0)]]
    for n in sorted({row["real"] for row in trial["rows"]} - {0}):
        gains = (gain(n, "accuracy"), gain(n, "macro_auc"))
        known = f"{own('real', n)}, {own('both', n)}"
        rows.append([f"{n:,}", mean(of("real", n)), mean(of("both", n)), *gains, known])
    names = ["simulated lenses", "alone (%)", "with generated ones (%)", "gain (95 %)"]
    return rows, [*names, "gain of 100 × macro AUC (95 %)", "their own training images (%)"]

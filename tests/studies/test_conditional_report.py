"""Tables and figures of conditional models: their numbers, and what the figures show."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lensdiff.errors import DataError
from lensdiff.lensing import parameters
from lensdiff.lensing.fit import Fit
from lensdiff.lensing.population import KINDS
from lensdiff.scores.classification import interval
from lensdiff.storage import read_json, shipped, studies_folder, write_json
from lensdiff.studies import conditional
from lensdiff.studies import conditional_report as report
from lensdiff.training import recipes

CONFUSION = [[30, 5, 15], [10, 40, 0], [25, 0, 25]]
REPORT = {"confusion": CONFUSION, "accuracy": 95 / 150, "n": 150}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_shares_are_those_of_the_rows_with_wilsons_interval():
    found = report.shares(REPORT)
    assert [share for share, *_ in found] == [0.6, 0.8, 0.5]
    assert found[0][1:] == interval(30, 50)
    rows, head = report.recognised({"here": REPORT}, KINDS)
    assert head[1:] == ["here"]
    assert rows[1] == ["cdm", "80.0% (67% to 89%)"]
    assert rows[-1] == ["all", "63.3%, n = 150"]


def test_a_confusion_matrix_shows_shares_of_its_rows():
    figure = report.confusions({"a": REPORT, "b": REPORT}, KINDS)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["60%", "10%", "30%", "20%", "80%", "0%", "50%", "0%", "50%"]
    assert len(figure.axes) == 2


def test_the_second_look_has_no_image_of_the_scan_and_the_larger_number():
    stored = conditional.stored(shipped("classes64"))
    looks = report.second_look(stored)
    assert [row["guidance"] for row in looks] == [1.0, 2.5]
    assert looks[1] is stored["more"]
    assert all(row["role"] in ("best", "more") for row in looks)
    less = report.second_look({**stored, "more": None})
    assert less[1] is stored["best"][stored["judge_extractor"]]
    figure = report.by_class(stored, KINDS)
    assert [ax.get_title() for ax in figure.axes] == list(KINDS)
    shown = figure.axes[0].containers[0].lines[0].get_ydata()
    assert shown == pytest.approx([100 * report.shares(row)[0][0] for row in looks])


def test_the_scan_and_the_distances_are_the_stored_ones():
    stored = conditional.stored(shipped("classes64"))
    rows, head = report.scanned(stored)
    assert [len(row) for row in rows] == [len(head)] * 5
    assert rows[0][:2] == ["1", "576"]
    more = stored["more"]
    rows, head = report.likeness(more, stored["more_floor"])
    assert [len(row) for row in rows] == [len(head)] * 6
    assert head[4] == "excess (± as if independent)"
    net, name, far, near, excess, *_ = rows[0]
    assert far.startswith(f"{more['distance'][net][name]:.2f} ± ")
    difference = more["distance"][net][name] - stored["more_floor"]["distance"][net][name]
    assert excess.startswith(f"{difference:.2f} ± ")
    assert near.startswith(f"{stored['more_floor']['distance'][net][name]:.2f} ± ")


def test_differences_are_from_the_first_class():
    images = np.random.default_rng(0).random((3, 2, 8, 8))
    figure = report.differences(list(images), KINDS)
    shown = figure.axes[3 * 2].images[0].get_array()  # cdm minus no_sub, first column
    np.testing.assert_allclose(shown, images[1, 0] - images[0, 0])
    shown = figure.axes[4 * 2 + 1].images[0].get_array()
    np.testing.assert_allclose(shown, images[2, 1] - images[0, 1])


def test_a_correlation_has_fishers_interval():
    rng = np.random.default_rng(0)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], (2_000, 50)).transpose(2, 0, 1)
    found = [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    low, high = np.quantile(found, [0.025, 0.975])
    text = report.correlation({"correlation": 0.8, "n": 50})
    assert text == "0.80 (0.67 to 0.88)"
    assert [low, high] == pytest.approx([0.67, 0.88], abs=0.03)


def test_the_fits_are_shown_against_what_was_requested():
    rng = np.random.default_rng(1)
    wanted = rng.normal(size=(20, 7))
    fit = Fit(wanted + 0.1, np.zeros((20, 3)), np.where(np.arange(20) < 5, 0.5, 0.01))
    figure = report.requested(wanted, fit)
    x, y = figure.axes[2].lines[1].get_data()
    np.testing.assert_allclose(y - x, 0.1)
    assert len(x) == 15
    left = rng.normal(size=(8, 8))
    data = rng.random((8, 8))
    figure = report.residuals({"one": (data, left)})
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), data - left)
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), left)
    stored = conditional.stored(shipped("parameters64"))
    rows, head = report.agreement({"simulated": stored["real"]})
    assert len(rows) == len(parameters.NAMES)
    assert [len(row) for row in rows] == [len(head)] * len(rows)
    assert rows[0][2] == "{scatter:.3f}, {rms:.3f}".format(
        **stored["real"]["einstein_radius_arcsec"]
    )


def test_a_class_is_lost_from_the_level_on_where_fewer_are_recognised(tmp_path: Path) -> None:
    rows = [{"sigma": 0.5, "recognised": 0.5}, {"sigma": None, "recognised": 0.25}]
    for name in ("no_sub", "cdm"):
        found = {"n": 100, "floor": {"recognised": 0.75}, "rows": rows}
        write_json(tmp_path / f"where-{name}.json", found)
    table, head = report.by_level(tmp_path, ("no_sub", "cdm"))
    assert head == ["class, w = 1", "lenses", "simulated", "from σ = 0.5", "noise alone"]
    assert table[1] == ["cdm", "100", "75% (66% to 82%)", "50% (40% to 60%)", "25% (18% to 34%)"]
    other = found | {"rows": [{**rows[0], "sigma": 1.0}, rows[1]]}
    for wrong in (other, found | {"floor": {}}):
        write_json(tmp_path / "where-cdm.json", wrong)
        with pytest.raises(DataError, match=r"where-cdm.json: it has no judge, or other levels"):
            report.by_level(tmp_path, ("no_sub", "cdm"))
    (tmp_path / "where-cdm.json").unlink()
    with pytest.raises(DataError, match=r"study where .* --label cdm --judge judge64"):
        report.by_level(tmp_path, ("no_sub", "cdm"))


def ends(fit: dict) -> tuple[float, float]:
    """The interval of a correlation, as the table has it."""
    low, high = report.correlation(fit).split("(")[1].strip(")").split(" to ")
    return float(low), float(high)


def test_numbers_are_obeyed_better_by_what_goes_on_from_lens64_long() -> None:
    shipped_rows = conditional.stored(shipped("parameters64"))
    further = read_json(studies_folder() / "numbers-long.json", "")
    assert further["n"] == shipped_rows["n"] and further["asked"] == shipped_rows["asked"]
    recipe = recipes.every()[further["trained"]["recipe"]]
    seen = further["trained"]["images"]
    assert seen == recipe.train.steps * recipe.train.batch and recipe.train.balance
    assert 14 < further["images_seen"] / seen < 16
    for name in ("lens_e1", "lens_e2", "shear_1", "shear_2"):
        for row, other in zip(further["scales"], shipped_rows["scales"], strict=True):
            assert row["guidance"] == other["guidance"]
            assert row["fits"][name]["correlation"] > other["fits"][name]["correlation"]
            assert row["fits"][name]["unfitted"] < other["fits"][name]["unfitted"]
        best = ends(further["scales"][-1]["fits"][name])
        real = ends(further["real"][name])
        assert real[0] < best[1] and best[0] < real[1]  # not told apart


def test_classes_lie_nearer_from_lens64_long_and_are_recognised_as_often() -> None:
    own = conditional.stored(shipped("classes64"))
    further = read_json(studies_folder() / "classes-long.json", "")
    same = ("judge_sha256", "sampling", "reference", "each")
    assert [further[key] for key in same] == [own[key] for key in same]
    recipe = recipes.every()[further["trained"]["recipe"]]
    assert further["trained"]["images"] == recipe.train.steps * recipe.train.batch
    rows, heads = conditional.second_looks({"own": own, "further": further})
    assert [row[:3] for row in rows if row[2] == "1,440"] == [
        ["own", "2.5, by FD-judge64", "1,440"],
        ["further", "2.5, by FD-judge64", "1,440"],
    ]
    far = {row[0]: [cell.split(" ± ") for cell in row[5:]] for row in rows if row[2] == "1,440"}
    errors = []
    for (mean, error), (other, of_other) in zip(far["own"], far["further"], strict=True):
        gap = float(mean) - float(other)
        errors.append(gap / np.hypot(float(error), float(of_other)))
    assert errors[0] > 5 and 1.5 < errors[1] < 2  # by EfficientNet decided, by the judge not quite
    for mine, theirs in zip(*(report.shares(one["more"]) for one in (own, further)), strict=True):
        assert mine[1] < theirs[2] and theirs[1] < mine[2]  # of no class told apart
    chosen = further["best"]["FD-EfficientNet"]["interval"]
    assert chosen[1] < further["best_floor"]["interval"][0] - 0.03
    assert " ± " not in rows[0][5] and heads[:2] == ["model", "w, chosen"]


def test_the_stored_levels_of_the_classes_are_of_the_shipped_weights() -> None:
    spec = read_json(shipped("classes64") / "spec.json", "")
    judge = read_json(shipped("judge64") / "spec.json", "")
    ends = {}
    for name in spec["classes"]:
        found = read_json(shipped("classes64") / f"where-{name}.json", "")
        assert (found["model_sha256"], found["judge"]) == (spec["sha256"], judge["sha256"])
        shares = {row["sigma"]: row["recognised"] for row in found["rows"]}
        ends[name] = [found["floor"]["recognised"], *(shares[s] for s in (0.1, 1.0, 5.0, None))]
    error = 2 * (0.5 / 512) ** 0.5  # two of a difference of shares, at most
    assert ends["no_sub"][1] - ends["no_sub"][2] < error < ends["no_sub"][2] - ends["no_sub"][3]
    assert ends["cdm"][0] - ends["cdm"][1] > 0.06 > ends["cdm"][1] - ends["cdm"][3]
    assert ends["axion"][0] - ends["axion"][4] > 2 * error


def test_the_trained_classifiers_are_means_with_errors_and_the_gain_is_paired():
    trial = read_json(studies_folder() / "augmentation.json", "")
    rows, head = report.trained(trial)
    counts = {row["real"] for row in trial["rows"]}
    assert [len(row) for row in rows] == [len(head)] * len(counts)
    of = {(row["learns"], row["real"], row["seed"]): row["accuracy"] for row in trial["rows"]}
    auc = {(row["learns"], row["real"], row["seed"]): row["macro_auc"] for row in trial["rows"]}
    found = [100 * of["drawn", 0, seed] for seed in range(3)]
    assert rows[0][2] == f"{np.mean(found):.1f} ± {np.std(found, ddof=1) / np.sqrt(3):.1f}"
    for row, n in zip(rows[1:], sorted(counts - {0}), strict=True):
        for column, by in ((3, of), (4, auc)):
            gains = [100 * (by["both", n, seed] - by["real", n, seed]) for seed in range(3)]
            half = 4.302653 * np.std(gains, ddof=1) / np.sqrt(3)
            mean = np.mean(gains)
            assert row[column] == f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"

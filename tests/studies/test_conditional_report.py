"""Tables and figures of conditional models: their numbers, and what the figures show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lensdiff.lensing import parameters
from lensdiff.lensing.fit import Fit
from lensdiff.lensing.population import KINDS
from lensdiff.scores.classification import interval
from lensdiff.storage import read_json, shipped, studies_folder
from lensdiff.studies import conditional
from lensdiff.studies import conditional_report as report

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

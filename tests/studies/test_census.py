"""The census: drawn lenses beside test lenses, in all that is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from toys_scores import Pooled

from lensdiff import __main__ as command
from lensdiff import model as models
from lensdiff.data.images import ImageSet, simulated
from lensdiff.errors import ParameterError
from lensdiff.lensing import measure
from lensdiff.lensing.survey import diverse
from lensdiff.scores import references
from lensdiff.scores.statistics import as_stored
from lensdiff.storage import read_json
from lensdiff.studies import census


@pytest.fixture(scope="module")
def lenses150(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return simulated(diverse(150), 192, 11, cache=tmp_path_factory.mktemp("cache"))


def test_the_error_of_a_distance_is_its_scatter_over_samples() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        found.append(np.abs(rng.normal(0, 1, 400).mean() - rng.normal(3, 1, 400).mean()))
    one = census.w1_error(rng.normal(0, 1, 400), rng.normal(3, 1, 400))
    assert one == pytest.approx(np.std(found), rel=0.25)  # far apart it is that of the means


def test_a_ratio_has_the_errors_of_both_sides() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.gamma(4, 1, 100), rng.gamma(4, 2, 100)) for _ in range(300)]
    values, errors = np.array([census.ratio(*pair) for pair in pairs]).T
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_blurred_lenses_are_told_from_others(lenses150: ImageSet) -> None:
    """Power is lost where arcs are sharp, and not where they are smooth."""
    real, other = (np.asarray(lenses150.pixels[k : k + 96]) for k in (0, 96))
    blurred = ndimage.gaussian_filter(other, (0, 0, 2, 2))
    blurred /= blurred.max((1, 2, 3), keepdims=True)
    plain, soft = (census.numbers(x, real, 0.05) for x in (other, blurred))
    assert abs(plain["power_ratio"]["3 to 6"][0] - 1) < 3 * plain["power_ratio"]["3 to 6"][1]
    assert soft["power_ratio"]["3 to 6"][0] < 0.5
    assert plain["counts"]["test"] == soft["counts"]["test"]
    counts = plain["counts"]["drawn"]
    assert counts["two_or_ring"] >= max(counts["whole_ring"], 96 - counts["one_image"] - 3)
    assert 0 < plain["scalars"]["flux_arcsec2"]["w1_error"] < 1


def test_planted_copies_are_found(lenses150: ImageSet) -> None:
    training = references.training_thumbnails()[0][:5].reshape(-1, 1, 15, 15)
    planted = np.kron(training, np.ones((10, 10)))
    planted = (planted - planted.min((2, 3), keepdims=True)) / np.ptp(
        planted, (2, 3), keepdims=True
    )
    fresh = np.asarray(lenses150.pixels[:20])
    images = np.concatenate([planted, np.asarray(lenses150.pixels[20:40])])
    assert census.copies(images, fresh)["called_copies"] >= 5
    assert census.copies(fresh[:3], fresh)["called_copies"] == 0


def test_the_population_is_counted_in_parts_as_in_one(lenses150: ImageSet) -> None:
    first = lenses150.subset(np.arange(100), "first")
    rest = lenses150.subset(np.arange(100, 192), "rest")
    found = census.population(first, rest, batch=37)
    pixels = as_stored(np.asarray(lenses150.pixels))
    whole = census.counted(pixels, measure.measure(pixels, 0.05), 0.05)
    assert found == {"n": 192, "counts": {"drawn": whole}}


def test_bands_of_power_that_pixels_do_not_reach_are_left_out() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.random((2, 40, 1, 64, 64), np.float32)
    ratios = census.numbers(first, other, 7.5 / 64)["power_ratio"]
    assert set(ratios) == {"0 to 3"} and np.isfinite(ratios["0 to 3"]).all()
    assert set(census.numbers(first, other, 0.05)["power_ratio"]) == set(census.POWER)


def test_of_another_size_copies_are_sought_among_its_own_training_lenses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    first, training = rng.random((2, 30, 1, 64, 64), np.float32)
    monkeypatch.setattr(census, "lenses", lambda *_: ImageSet("own", training, "own"))
    images = np.concatenate([first[:6], training[3:7, :, ::-1]])  # four of them are turned copies
    assert census.thumbnails(images).shape == (10, 1, 15, 15)
    found = census.copies(images, first)
    assert found["called_copies"] == 4 and found["nearest"][1] < 1e-2 < found["nearest"][0]
    assert census.copies(first[6:9], first)["called_copies"] == 0


def test_a_model_of_other_lenses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.load("lens150")
    own = replace(model, spec={**model.spec, "data": {"name": "folder-Samples"}})
    monkeypatch.setattr(models, "load", lambda _: own)
    with pytest.raises(ParameterError, match="runs/own learnt folder-Samples"):
        census.drawn_by("runs/own", 64, 150)


def test_each_set_is_measured_once(
    lenses150: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(census, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(census, "lenses", lambda *_: lenses150)
    calls = []

    def drawn_by(name: str, n: int, pixels: int) -> np.ndarray:
        assert pixels == 150
        calls.append(name)
        return as_stored(np.asarray(lenses150.pixels[64 : 64 + n])[::-1].copy())

    monkeypatch.setattr(census, "drawn_by", drawn_by)
    words = ["study", "census", "lens150", "-n", "64", "--out", str(tmp_path)]
    for _ in range(2):
        assert command.main(words) == 0
    assert calls == ["lens150"]
    whole, other, drawn = read_json(tmp_path / "census.json", "")["rows"]
    assert whole["name"] == census.ALL and whole["n"] == 192 + 64  # the rest of 192, and all
    assert other["name"] == census.OTHER and drawn["name"] == "lens150"
    assert drawn["counts"] == other["counts"]  # the same lenses, in another order
    assert drawn["recall"] == pytest.approx(other["recall"])
    for one in (other, drawn):
        assert one["n"] == 64 and 0.2 < one["two_sample"][0] < 0.8
        assert set(one["power_ratio"]) == set(census.POWER)
    assert command.main([*words[:3], "-n", "97", "--out", str(tmp_path)]) == 1
    assert "-n must be 64 to 96, not 97" in capsys.readouterr().err


def test_a_model_of_another_size_is_a_sentence(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(census.ParameterError, match="lens64 draws no lenses of 150 pixels"):
        census.drawn_by("lens64", 64, 150)

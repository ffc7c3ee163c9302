"""Where sampling begins: levels compared on images that no card uses, and a card of the best."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys_ours import OURS, SIDE, take_small
from toys_scores import Pooled

from lensdiff.data.images import ImageSet, Stretch, lenses
from lensdiff.diffusion import sampling
from lensdiff.errors import ParameterError
from lensdiff.model import Model, Sampling
from lensdiff.scores.card import FIRST_SEED
from lensdiff.scores.statistics import as_stored, reference, statistics
from lensdiff.storage import read_json
from lensdiff.studies import cards, census, first_level
from lensdiff.studies.samplers import difference, with_groups
from lensdiff.training.fit import fit

N = 20
PLAN = replace(OURS, sampling=Sampling(steps=3, high=5.0, low=0.1))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A small model of noiseless lenses, which has no stored features."""
    take_small(monkeypatch)

    def few(split: str, pixels: int, noiseless: bool = False) -> object:
        return lenses(split, pixels, 60, noiseless=noiseless)

    monkeypatch.setattr(first_level, "lenses", few)
    monkeypatch.setattr(census, "lenses", few)
    monkeypatch.setattr(first_level, "extractor", lambda *_: Pooled(2))
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    return fit(PLAN.scaled(steps=2), PLAN.images("train"), tmp_path / "model")


def command(out: Path, *words: str) -> list[dict]:
    parser = argparse.ArgumentParser()
    first_level.add_arguments(parser)
    given = ["-n", str(N), "--out", str(out), "--times", "1", "4", "16"]
    first_level.run(parser.parse_args([*words, *given]))
    return read_json(out / first_level.FILE, "")["rows"]


def test_levels_are_compared_on_other_images_and_the_best_gets_a_card(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first_level.chosen([{"distance": 2.0}, {"distance": 1.0}]) == {"distance": 1.0}
    monkeypatch.setattr(first_level, "chosen", lambda rows: rows[1])
    rows = command(tmp_path, str(model.folder))
    looks = [row for row in rows if row["role"] == "look"]
    assert [row["high"] for row in looks] == [5, 20, 80]
    net = Pooled(2)
    test = lenses("test", SIDE, 60)
    higher = replace(model.sampling, high=20.0)
    drawn = as_stored(model.draw(20, first_level.SEED, sampling=higher))
    found = with_groups(
        statistics(net, np.split(drawn, 2), 20, "drawn"), reference(net, test, range(40, 60))
    )
    assert looks[1]["distance"] == pytest.approx(found["distance"], rel=1e-6)
    own, best = (row for row in rows if row["role"] == "card")
    assert own["high"] == 5 and best["high"] == 20
    again = as_stored(model.draw(N, FIRST_SEED))
    scored = cards.scored(
        statistics(net, np.split(again, 2), N, "drawn"),
        *(reference(net, test, part) for part in cards.halves(N)),
    )
    assert own["distance"] == pytest.approx(scored["distance"], rel=1e-6)
    assert own["census"]["n"] == best["census"]["n"] == N
    monkeypatch.setattr(first_level, "look", None)
    monkeypatch.setattr(cards, "card", None)  # nothing is drawn twice
    assert command(tmp_path, str(model.folder)) == rows
    table = first_level.lines(rows)
    assert [line[2] for line in table[:3]] == ["5", "20", "80"] and table[0][-1] == ""
    assert float(table[1][3]) == pytest.approx(float(table[0][3]) / 4, abs=0.01)


def test_the_shift_is_the_norm_of_the_mean_over_the_level(model: Model) -> None:
    pixels = np.full((8, 1, 4, 4), 0.75, np.float32)
    pixels[::2] -= 0.25
    found = first_level.shift(replace(model, stretch=Stretch(0.5, 0.25)), ImageSet("a", pixels, ""))
    # a mean of 0.625 is half a standard deviation from 0.5, which are ¼ in the network's units
    assert found == pytest.approx(4 * 0.25 / 5.0)


def test_noise_of_too_low_a_level_lacks_the_mean_of_the_images() -> None:
    """With exact guesses of normal data, and in the module's words."""
    mean = 3.0
    std = 0.5

    def exact(x: torch.Tensor, sigma: float, label: object = None) -> torch.Tensor:
        return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)

    begin = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for high in (2.0, 8.0):
        levels = sampling.log_levels(400, high, 1e-3)
        *_, last = sampling.heun(exact, begin, levels)
        assert float(last) == pytest.approx(mean * (1 - std / (std**2 + high**2) ** 0.5), rel=1e-3)


def test_a_stage_is_held_against_what_it_went_on_from() -> None:
    def card(name: str, high: float, distance: float, **more: object) -> dict:
        row = {"name": name, "role": "card", "high": high, "distance": distance}
        groups = [distance + 0.01 * k * high / 640 for k in range(20)]
        return row | {"distances_without": groups} | more

    own = {"census": {"two_sample": [0.6, 0.01]}}
    control = first_level.CONTROL
    rows = [card("lens150-long", 160.0, 2.5), card("lens150-long", 640.0, 2.25, **own)]
    rows += [card("lens64-long", 64.0, 2.0)]
    rows += [card(control, 640.0, 2.0, **own), card(f"{control}-balanced", 640.0, 1.5, **own)]
    found = first_level.stages(rows, {"lens150-long": {"two_sample": [0.7, 0.01]}})
    assert {len(line) for line in found} == {len(first_level.STAGE_HEADS)}
    assert [line[0] for line in found] == ["lens150-long", "lens150-long", "on", "on-balanced"]
    assert found[0][3:] == ("", "", "", "70.0% ± 1.0%")
    apart = f"-0.25 ± {difference(rows[1], rows[0])[1]:.2f}"
    assert found[1][3:6] == ("", apart, "") and not apart.endswith("0.00")
    apart = apart.replace("-0.25", "-1.00")
    assert found[3][3:] == ("-0.75 ± 0.00", apart, "-0.50 ± 0.00", "60.0% ± 1.0%")
    assert first_level.stages(rows[:1], {})[0][-1] == ""  # no census, no accuracy
    measured = card(control, 640.0, 2.0, census={"power_ratio": {"3 to 6": (1, 0.1)}})
    assert first_level.label(measured) == ""
    measured["name"] = "lens150-long"
    assert first_level.label(measured) == "lens150-long, begun at σ = 640"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "-n", "16", "--out", "runs"], "-n must be 20 to 2,048, not 16"),
        (["a", "-n", "64"], "make a trial"),
        (["latent-digits"], "of simulated|draws no|digits"),
    ],
)
def test_what_can_not_be_is_a_sentence(words: list[str], sentence: str) -> None:
    parser = argparse.ArgumentParser()
    first_level.add_arguments(parser)
    with pytest.raises(ParameterError, match=sentence):
        first_level.run(parser.parse_args(words))

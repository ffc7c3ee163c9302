"""Commands in several processes, named as torchrun names them, of which one writes the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys_processes import command, hasty, start, wait
from toys_scores import small_model

import lensdiff as ld
from lensdiff.__main__ import main
from lensdiff.data.images import ImageSet
from lensdiff.training import recipes

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180  # seconds, for a busy machine

TRAIN = ["train", "tiny", "--batch", "8", "--width", "16"]


def training(tmp_path: Path, folder: str, *more: str) -> list[str]:
    """The words of a training whose model and state lie in folders of this name."""
    own = ["--data", str(ROOT / "data" / "sample"), *more]
    places = [str(tmp_path / folder), "--state", str(tmp_path / f"{folder}-state")]
    return [*TRAIN, *places, *own]


@pytest.fixture(autouse=True)
def _alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LENSDIFF_PRECISION", "fp32")


def squares(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The sum of squared differences of two networks' weights."""
    return sum(float((one[key].float() - other[key].float()).square().sum()) for key in one)


@pytest.mark.slow
def test_the_command_in_two_processes_writes_once_and_learns_the_same(tmp_path: Path) -> None:
    """A new cache, one checkpoint, one page; then one process goes on from the state of two."""
    words = training(tmp_path, "both", "--steps", "12")
    both = wait(start(command, words, tmp_path / "said", processes=2), PATIENCE)
    said = [(tmp_path / f"said-{rank}.txt").read_text() for rank in "01"]
    assert both == [0, 0], said
    assert said[0].startswith("2 processes, CPU") and "trained." in said[0] and not said[1]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    alone = training(tmp_path, "one", "--steps", "12")
    assert wait(start(command, alone, tmp_path / "alone"), PATIENCE) == [0]
    expected = load_file(tmp_path / "one" / "weights.safetensors")
    found = load_file(tmp_path / "both" / "weights.safetensors")
    begun = recipes.TINY.widened(16).denoiser("fp32").net.state_dict()
    assert begun.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (found[key].float() - tensor.float()).square().mean().sqrt() < 1e-3, key
    assert any(tensor.float().std() > 0.01 for tensor in expected.values())
    apart = squares(found, expected)
    assert apart < 0.01 * squares(begun, expected)  # a tenth of the way that it went
    assert main(training(tmp_path, "both", "--steps", "12")) == 0
    assert (tmp_path / "both-state" / "00000012").is_dir()


@pytest.mark.slow
def test_a_budget_in_minutes_is_one_for_all(tmp_path: Path) -> None:
    """Each process has a clock of its own, one of them fast; they stop after the same update."""
    words = training(tmp_path, "both", "--minutes", "0.03")
    done = wait(start(hasty, words, tmp_path / "said", processes=2), PATIENCE)
    said = [(tmp_path / f"said-{rank}.txt").read_text() for rank in "01"]
    assert done == [0, 0], said
    assert "trained." in said[0] and not said[1]


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    """Each draws a part, and one joins them: image i depends on its seed alone."""
    words = ["draw", "lens64", "-n", "3", "--steps", "2", "--out", str(tmp_path / "lenses")]
    done = wait(start(command, words, tmp_path / "said", processes=2), PATIENCE)
    said = "".join((tmp_path / f"said-{rank}.txt").read_text() for rank in "01")
    assert done == [0, 0], said
    assert said.count("lenses.npy: (3, 1, 64, 64)") == 1 and "1-of-2" in said
    assert not list(tmp_path.glob("*-of-*"))
    model = ld.load("lens64", device="cpu", precision="fp32")
    alone = model.draw(3, sampling=replace(model.sampling, steps=2))
    found = torch.from_numpy(np.load(tmp_path / "lenses.npy"))
    assert found.std() > 0.01
    assert torch.allclose(found, alone, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::lensdiff.scores.card.SampleSizeWarning")
def test_two_processes_score_what_one_scores(tmp_path: Path, lenses16: ImageSet) -> None:
    """Each draws and looks at a part; one joins the statistics and writes the card."""
    (tmp_path / "files").mkdir()
    for number, image in enumerate(lenses16.pixels[:24]):
        np.save(tmp_path / "files" / f"{number:02}.npy", image[0])
    cards = []
    for name, processes in (("both", 2), ("one", 1)):
        folder = small_model(tmp_path / name).folder
        words = ["score", str(folder), "--data", str(tmp_path / "files"), "-n", "11"]
        done = wait(start(command, words, tmp_path / name, processes=processes), PATIENCE)
        said = [(tmp_path / f"{name}-{rank}.txt").read_text() for rank in range(processes)]
        assert done == [0] * processes, said
        assert sum("excess over the floor" in one for one in said) == 1
        cards.append(json.loads((folder / "card.json").read_text()))
    both, one = cards
    numbers = {key for key, value in one.items() if isinstance(value, float)}
    assert both["n_generated"] == 11 and both["distance"] > 0 and len(numbers) > 5
    for key in one:
        wanted = pytest.approx(one[key], rel=1e-3, abs=1e-6) if key in numbers else one[key]
        assert both[key] == wanted, key

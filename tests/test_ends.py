"""What ends well or in a sentence, before anything long is computed, where it once did not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import small_unet
from toys_scores import small_model

import lensdiff as ld
from lensdiff import __main__ as command
from lensdiff import model as models
from lensdiff import runtime, storage
from lensdiff.data.images import ImageSet
from lensdiff.diffusion.process import CRITERIA, Denoiser, scaling
from lensdiff.errors import CheckpointError, ParameterError, SamplingError, StorageError
from lensdiff.lensing.parameters import SPINS
from lensdiff.model import Model, Sampling
from lensdiff.storage.places import check_writable
from lensdiff.studies import draw, shards, train
from lensdiff.training.checks import check_places
from lensdiff.training.diffusion import TrainConfig
from lensdiff.training.fit import fit
from lensdiff.training.recipe import Recipe
from lensdiff.training.transfer import copy_weights

SMALL = {"channels": (16, 32), "blocks": 1, "attention_levels": ()}
ONE = TrainConfig(steps=1, batch=4)


def images(side: int = 16) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet("made", rng.random((40, 1, side, side), np.float32), "a" * 64)


# ---- where results go ----------------------------------------------------------------------------


def test_a_place_below_a_file_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    for place in (tmp_path / "notes.md", tmp_path / "notes.md" / "deeper"):
        with pytest.raises(StorageError, match=r"can't be written .*Give it room"):
            check_writable(place)
    check_writable(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_a_place_that_can_not_be_entered_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Where asking for it raises, Python 3.11 hands that on."""

    def stat(*_: object, **__: object) -> None:
        raise PermissionError("no entry")

    monkeypatch.setattr("lensdiff.storage.places.os.stat", stat)
    monkeypatch.setattr(Path, "touch", stat)
    with pytest.raises(StorageError, match=r"can't be written \(no entry\)"):
        check_writable(tmp_path / "a")


def test_a_training_sees_first_that_its_model_can_be_kept(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "notes.md").write_text("mine")
    monkeypatch.setattr("lensdiff.training.fit.train", None)  # to train would fail
    plan = Recipe("small", ONE, SMALL)
    for folder, state in (("notes.md/m", None), ("m", "notes.md/state")):
        with pytest.raises(StorageError, match="can't be written"):
            fit(plan, images(), tmp_path / folder, state and tmp_path / state)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_a_link_is_written_where_it_leads(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "m").symlink_to(tmp_path / "far" / "m")
    seen = []
    monkeypatch.setattr("lensdiff.training.checks.check_writable", seen.append)
    check_places(tmp_path / "near" / "m", None)
    assert seen == [(tmp_path / "far").resolve()]


def test_a_drawing_sees_first_that_its_array_can_be_kept(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "notes.md").write_text("mine")
    monkeypatch.setattr(Model, "draw", None)  # to draw would fail
    model = str(small_model(tmp_path / "m").folder)
    words = ["draw", model, "--out", str(tmp_path / "notes.md" / "x")]
    args = command.parser_for(words).parse_args(words)
    with pytest.raises(StorageError, match="can't be written"):
        draw.run(args)


def test_what_a_killed_save_set_aside_is_the_model_for_all_that_is_kept_of_it(
    tmp_path: Path,
) -> None:
    model = small_model(tmp_path / "m")
    aside = model.folder.with_name(f"m.{storage.own_name()}.old")
    model.folder.rename(aside)
    found = models.load(tmp_path / "m")
    assert found.folder == aside == models.find(tmp_path / "m")
    assert not (tmp_path / "m").exists()


# ---- what is given -------------------------------------------------------------------------------


def test_a_large_seed_is_a_seed_like_any_other() -> None:
    plan = Recipe("small", replace(ONE, seed=2**62), SMALL)
    steps = ld.training.diffusion.train(plan.denoiser("fp32"), images(), plan.train)
    assert [step.number for step in steps] == [1]


@pytest.mark.parametrize("name", ["minutes", "weight_decay"])
def test_nan_is_no_setting(name: str) -> None:
    budget = {} if name == "minutes" else {"steps": 1}
    with pytest.raises(ParameterError):
        TrainConfig(**budget, **{name: float("nan")})


@pytest.mark.parametrize("criterion", list(CRITERIA))
@pytest.mark.parametrize("weight", ["min_snr", "edm"])
def test_a_weight_is_of_the_guess_whatever_is_predicted(criterion: str, weight: str) -> None:
    """In x0 space: the same error of the guess costs the same, by L1 as by L2."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn((3, 1, 8, 8), generator=generator)
    eps = torch.randn((3, 1, 8, 8), generator=generator)
    sigma = torch.tensor([0.1, 1.0, 10.0])
    costs = []
    for name in ("eps", "x0", "v", "edm"):
        coefficients = scaling(name)
        s = sigma.view(-1, 1, 1, 1)
        wrong = (x0 + 0.2 - coefficients.skip(s) * (x0 + s * eps)) / coefficients.out(s)
        denoiser = Denoiser(torch.nn.Linear(1, 1), name)
        denoiser._net = lambda *_, wrong=wrong: wrong  # a guess that is off by 0.2 everywhere
        costs.append(denoiser.loss(x0, sigma, eps, None, criterion, weight))
    for cost in costs[1:]:
        torch.testing.assert_close(cost, costs[0], rtol=2e-3, atol=0)


def test_a_single_row_of_numbers_is_no_batch_of_them() -> None:
    net = small_unet(conditions=7)
    with pytest.raises(ParameterError, match="7 numbers an image; got"):
        Denoiser(net)(torch.zeros(1, 1, 16, 16), 1.0, torch.zeros(7))


def test_rows_of_unequal_length_are_no_labels(tmp_path: Path) -> None:
    model = small_model(tmp_path / "m", conditions=7)
    with pytest.raises(SamplingError, match="not equally long"):
        model.draw(2, label=[[1.2, 0, 0, 0, 0, 0, 0], [1.2]])


def test_numbers_that_turn_by_other_spins_are_no_start(tmp_path: Path) -> None:
    start = small_model(tmp_path / "m", conditions=7, spins=SPINS)
    other = Denoiser(small_unet(conditions=7, spins=(0, 2, 2, 1)))
    with pytest.raises(CheckpointError, match=r"turn by other spins: \(0, 2, 1, 2\), not"):
        copy_weights(start, other)


def test_a_recipe_that_names_no_fold_has_the_networks_own(tmp_path: Path) -> None:
    plan = Recipe("small", ONE, {**SMALL, "unshuffle": 4}, sampling=Sampling(steps=2))
    start = fit(plan, images(32), tmp_path / "start")
    again = fit(replace(plan, network=SMALL), images(), tmp_path / "m", start=start)
    assert again.denoiser.net.unshuffle == 2 and start.denoiser.net.unshuffle == 4


# ---- machines ------------------------------------------------------------------------------------


def test_accelerate_that_trains_on_the_cpu_has_its_precision(monkeypatch) -> None:
    monkeypatch.setattr(runtime, "DEVICES", {"cuda": lambda: True, "cpu": lambda: True})
    monkeypatch.delenv(runtime.DEVICE, raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    assert runtime.best_device() == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    assert runtime.best_device() == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert runtime.best_device() == "cpu"
    assert runtime.best_device("cuda") == "cuda"


def test_several_processes_without_a_number_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ParameterError, match="WORLD_SIZE says 4 processes, and no RANK"):
        shards.own(None)


def test_a_raised_two_is_no_number_of_a_part() -> None:
    with pytest.raises(ParameterError, match="write 3/8"):
        shards.Shard.parse("²/8")


def test_digits_are_not_turned(tmp_path: Path) -> None:
    words = ["train", "judge-digits", str(tmp_path / "x"), "--symmetries", "8"]
    args = command.parser_for(words).parse_args(words)
    with pytest.raises(ParameterError, match="--symmetries is of files of lenses"):
        train._train_recipe(args, print)

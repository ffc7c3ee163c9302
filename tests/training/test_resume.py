"""A killed training ends as one that never was, and a state of another run is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys_training import Clock, Spy, config, run, tiny, weights

from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser, LogNormal
from lensdiff.errors import CheckpointError
from lensdiff.networks.classifier import LensClassifier
from lensdiff.training.classifier import ClassifierConfig, train_classifier
from lensdiff.training.diffusion import run_fingerprint, train
from lensdiff.training.state import _states


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("learns", [(), ("stem", "exit", "label")])
def test_a_broken_off_run_resumes_as_if_it_never_was(
    lenses16: ImageSet, tmp_path: Path, learns: tuple[str, ...]
) -> None:
    settings = config(steps=9, batch=12, save_every=2, decay_share=0.4)  # an epoch ends within
    settings = replace(settings, learns=learns)
    uninterrupted = run(tiny(classes=3), lenses16, settings)
    (tmp_path / "00000002.4242.part").mkdir()  # what an earlier kill in a save has left
    seen = []
    for last in (3, 6, 99):
        for step in train(tiny(classes=3), lenses16, settings, state=tmp_path):
            seen.append(step.number)
            if step.number == last:
                break
        assert len(states(tmp_path)) == 1
    assert seen == [1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    assert torch.equal(weights(step.model), weights(uninterrupted[-1].model))
    assert torch.equal(weights(step.ema), weights(uninterrupted[-1].ema))
    assert (step.loss, step.lr) == (uninterrupted[-1].loss, uninterrupted[-1].lr)
    assert states(tmp_path) == ["00000009"]


def test_a_finished_run_yields_its_last_step_again(lenses16: ImageSet, tmp_path: Path) -> None:
    *_, last = train(tiny(), lenses16, config(), state=tmp_path)
    (again,) = train(tiny(), lenses16, config(), state=tmp_path)
    assert again.number == last.number
    assert again.images_seen == last.images_seen
    assert again.loss == last.loss
    assert torch.equal(weights(again.ema), weights(last.ema))
    assert torch.equal(weights(again.model), weights(last.model))


def test_folders_that_are_no_states_are_left_alone(lenses16: ImageSet, tmp_path: Path) -> None:
    foreign = ["2024", "20240101", "1.part", "000000007", "20240101.mine.part"]
    for name in foreign:
        (tmp_path / name).mkdir()
    killed = tmp_path / "00000002.4242-0123abcd.part"
    killed.mkdir()
    run(tiny(), lenses16, config(), state=tmp_path)
    assert states(tmp_path) == sorted(["00000003", *foreign])
    assert [step.number for step in run(tiny(), lenses16, config(), state=tmp_path)] == [3]


def test_a_state_of_many_updates_is_the_newest(tmp_path: Path) -> None:
    for name in ("100000000", "99999999"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").touch()
    assert [path.name for path in _states(tmp_path)] == ["99999999", "100000000"]


def test_a_state_is_saved_when_time_is_up(
    lenses16: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(steps=6, save_every=500)
    kept = []
    for after in (60.0, 0.0):
        monkeypatch.setattr("lensdiff.training.loop.SAVE_AFTER_S", after)
        for step in train(tiny(), lenses16, settings, state=tmp_path / str(after)):
            if step.number == 2:
                break
        kept.append([path.name for path in (tmp_path / str(after)).glob("*")])
    assert kept == [[], ["00000002"]]


def test_seconds_go_on_after_a_resume(
    lenses16: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, each=0.25)
    settings = config(steps=6, save_every=3)
    for step in train(Denoiser(Spy()), lenses16, settings, state=tmp_path):
        if step.number == 3:
            break
        clock.now += 2.0
    clock.now += 1_000.0
    resumed = next(train(Denoiser(Spy()), lenses16, settings, state=tmp_path))
    assert step.seconds == 3 * 0.25 + 2 * 2.0
    assert resumed.seconds == step.seconds + 0.25


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no weights", "no description"])
def test_a_damaged_state_is_named_and_refused(
    lenses16: ImageSet, tmp_path: Path, damage: str
) -> None:
    run(tiny(), lenses16, config(), state=tmp_path)
    killed = tmp_path / "00000004.4242.part"  # a save that was killed: it counts for nothing
    killed.mkdir()
    (killed / "state.safetensors").write_bytes(b"half")
    run(tiny(), lenses16, config(), state=tmp_path)
    file = tmp_path / "00000003" / "state.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-7] ^= 4
        file.write_bytes(content)
    elif damage == "no weights":
        file.unlink()
    else:
        (tmp_path / "00000003" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"00000003.*Delete .*00000003 and start again"):
        next(train(tiny(), lenses16, config(), state=tmp_path))


def test_the_state_of_another_run_is_refused(lenses16: ImageSet, tmp_path: Path) -> None:
    run(tiny(), lenses16, config(), state=tmp_path)
    others = (
        (tiny(), lenses16, config(lr=2e-3)),
        (tiny(), lenses16, config(steps=4)),
        (tiny(), lenses16, config(sigmas=LogNormal(-1.0, 1.0))),
        (tiny(), replace(lenses16, fingerprint="other"), config()),
        (tiny(prediction="v"), lenses16, config()),
        (tiny("bf16"), lenses16, config()),
        (tiny(channels=(32, 32)), lenses16, config()),
        (tiny(dropout=0.1), lenses16, config()),
    )
    for denoiser, images, settings in others:
        with pytest.raises(CheckpointError, match=r"of another run.*another folder"):
            next(train(denoiser, images, settings, state=tmp_path))
    for more in ({"start": "a" * 64}, {"stretch": Stretch(0.1, 0.2)}):
        with pytest.raises(CheckpointError, match="of another run"):
            next(train(tiny(), lenses16, config(), state=tmp_path, **more))
    train_rows, held_rows = lenses16.split()
    fewer = (train_rows[1:], held_rows)
    with pytest.raises(CheckpointError, match="of another run"):
        next(train(tiny(), lenses16, config(), rows=fewer, state=tmp_path))


def test_the_spins_of_a_condition_belong_to_a_run(lenses16: ImageSet) -> None:
    train_rows, _ = lenses16.split()
    found = set()
    for spins in ((), (0, 2, 1), (0, 1, 2)):  # the last two have weights of the same shapes
        spun = tiny(conditions=5, spins=spins)
        found.add(run_fingerprint(spun, lenses16, train_rows, config()))
    assert len(found) == 3


def test_the_flips_of_files_belong_to_a_run(lenses16: ImageSet) -> None:
    """They are no part of a folder's fingerprint, as the survey's are of simulated lenses."""
    train_rows, _ = lenses16.split()
    files = replace(lenses16, truth=None)
    for settings, others in ((config(augment=True), 3), (config(augment=False), 1)):
        found = set()
        for symmetries in (1, 2, 8):
            images = replace(files, symmetries=symmetries)
            found.add(run_fingerprint(tiny(), images, train_rows, settings))
        assert len(found) == others
    simulated = {
        run_fingerprint(tiny(), replace(lenses16, symmetries=n), train_rows, config())
        for n in (1, 8)
    }
    assert len(simulated) == 1, "states of simulated lenses stay as they were"


# ---- the classifier ------------------------------------------------------------------------------


def small_classifier() -> LensClassifier:
    torch.manual_seed(0)
    return LensClassifier(size=32, pretrained=False, backbone="mobilenetv3_small_050")


def test_a_classifier_resumes_in_its_second_stage_bit_for_bit(
    lenses16: ImageSet, tmp_path: Path
) -> None:
    """Weights, batch statistics and scores, in float32, before anything is rounded for a file."""
    settings = ClassifierConfig(
        steps=5, frozen_steps=2, batch=6, warmup_steps=1, held_out_every=2, save_every=2
    )
    whole = small_classifier()
    expected = list(train_classifier(whole, lenses16, settings))
    broken_off = small_classifier()
    for step in train_classifier(broken_off, lenses16, settings, state=tmp_path):
        if step.number == 5:  # the third update of the second stage; its second was saved
            break
    assert states(tmp_path) == ["00000002"]
    resumed = small_classifier()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)  # whatever it began with, the state has all of it
    steps = list(train_classifier(resumed, lenses16, settings, state=tmp_path))
    assert [step.number for step in steps] == [5, 6, 7]
    assert [step.images_seen for step in steps] == [30, 36, 42]
    for ours, theirs in zip(steps, expected[-3:], strict=True):
        assert (ours.loss, ours.lr, ours.held_out) == (theirs.loss, theirs.lr, theirs.held_out)
        assert ours.scores == theirs.scores
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert not np.array_equal(weights(broken_off), weights(whole))


# ---- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_on_cuda_resumes(lenses16: ImageSet, precision: str, tmp_path: Path) -> None:
    settings = config(steps=8, save_every=4)
    for step in train(tiny(precision), lenses16, settings, state=tmp_path):
        if step.number == 5:
            break
    steps = run(tiny(precision), lenses16, settings, state=tmp_path)
    assert [s.number for s in steps] == [5, 6, 7, 8]
    assert next(steps[-1].model.parameters()).device.type == "cuda"
    # CUDA's sums are not repeatable to the bit
    assert steps[0].loss == pytest.approx(step.loss, rel=1e-3)

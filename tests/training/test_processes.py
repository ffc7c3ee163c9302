"""Training in processes of its own: killed at any moment, and shared between two."""

from __future__ import annotations

import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys_processes import classifier, codebook, diffusion, norms, start, wait

from lensdiff.networks.backbones import LITE0
from lensdiff.training import processes

PATIENCE = 180  # seconds, for a busy machine


def newest(state: Path) -> int:
    """Updates of the newest saved state."""
    return max((int(path.name) for path in state.glob("[0-9]*") if path.name.isdigit()), default=0)


KILLED_STEPS = 80


def kill(started: list[BaseProcess], state: Path, after: int, seconds: float) -> None:
    """SIGKILL `seconds` after the state of update `after` was saved."""
    (process,) = started
    deadline = time.monotonic() + PATIENCE
    try:
        while newest(state) < after:
            assert process.is_alive(), f"it ended before update {after}"
            assert time.monotonic() < deadline, f"no update {after} in time"
            time.sleep(0.001)
        time.sleep(seconds)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_no_bit(tmp_path: Path) -> None:
    state = tmp_path / "killed"
    whole = tmp_path / "whole"
    moment = random.Random()  # other moments on every run: a failure prints them
    killed_at = []
    # beside the others: each has one thread
    never_killed = start(diffusion, whole, KILLED_STEPS, "bf16")
    for first, last in ((2, 24), (32, 50)):
        after = moment.randint(first, last)
        begun = start(diffusion, state, KILLED_STEPS, "bf16", None, True)
        kill(begun, state, after, moment.uniform(0, 0.02))
        killed_at.append((after, newest(state)))
        assert newest(state) < KILLED_STEPS, killed_at
    assert wait(start(diffusion, state, KILLED_STEPS, "bf16"), PATIENCE) == [0], killed_at
    assert wait(never_killed, PATIENCE) == [0]
    assert newest(state) == newest(whole) == KILLED_STEPS
    assert not list(state.glob("*.part"))
    for name in ("model", "ema"):
        ours = load_file(state / f"{name}-0.safetensors")
        theirs = load_file(whole / f"{name}-0.safetensors")
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), (killed_at, name, key)
    # it did train
    assert any(tensor.abs().max() > 0 for key, tensor in theirs.items() if "exit" in key)


@pytest.mark.slow
def test_two_processes_train_the_same_network_as_one(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    begun = tmp_path / "begun"
    running = start(diffusion, alone, 6, "fp32") + start(diffusion, begun, 6, "fp32", 1)
    # two begin, one goes on from their state, and two end it
    for stop, many in ((2, 2), (4, 1), (6, 2)):
        started = start(diffusion, shared, 6, "fp32", stop, processes=many)
        assert wait(started, PATIENCE) == [0] * many
        assert newest(shared) == stop
    assert wait(running, PATIENCE) == [0, 0]
    losses = [np.loadtxt(folder / "held-out-0.txt") for folder in (alone, shared)]
    assert losses[0][:, 0].tolist() == [2, 4, 6] and losses[0][2, 1] != losses[0][0, 1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    second = np.loadtxt(shared / "held-out-1.txt")  # update 4 was the first process's alone
    np.testing.assert_allclose(second, losses[1][[0, 2]], rtol=1e-6)
    moved = []
    for name in ("model", "ema"):
        expected = load_file(alone / f"{name}-0.safetensors")
        before = load_file(begun / f"{name}-0.safetensors")
        first = load_file(shared / f"{name}-0.safetensors")
        second = load_file(shared / f"{name}-1.safetensors")
        for key, tensor in expected.items():
            assert torch.equal(first[key], second[key]), (name, key)
            # root mean square: where a gradient is rounding alone, Adam still takes a whole step
            assert (first[key] - tensor).square().mean().sqrt() < 1e-5, (name, key)
            moved.append(float((tensor - before[key]).square().mean().sqrt()))
    assert np.median(moved) > 1e-4  # five updates further than the bound


@pytest.mark.slow
def test_two_processes_learn_one_codebook(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    restarted = tmp_path / "restarted"  # each process must take the same latents for dead codes
    running = start(codebook, alone, 0.0) + start(codebook, shared, 0.0, processes=2)
    running += start(codebook, restarted, 0.5, processes=2)
    assert wait(running, PATIENCE) == [0] * 5
    expected = load_file(alone / "model-0.safetensors")
    for folder in (shared, restarted):
        first = load_file(folder / "model-0.safetensors")
        second = load_file(folder / "model-1.safetensors")
        for key, tensor in expected.items():
            assert torch.equal(first[key], second[key]), (folder.name, key)
            if folder == shared:
                # Adam makes steps of the rate even of a gradient that is rounding alone, as that of
                # a bias behind a norm: three of them come to 6e-4, to either side
                assert (first[key] - tensor).square().mean().sqrt() < 2e-4, key


@pytest.mark.slow
def test_two_processes_train_the_same_classifier_as_one(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    running = start(classifier, alone, LITE0) + start(classifier, shared, LITE0, processes=2)
    # some weights of this one have no gradient, for which several processes would wait
    running += start(classifier, tmp_path / "other", "mobilenetv3_small_050", processes=2)
    assert wait(running, PATIENCE) == [0] * 5
    expected = load_file(alone / "model-0.safetensors")
    first = load_file(shared / "model-0.safetensors")
    second = load_file(shared / "model-1.safetensors")
    for key, tensor in expected.items():
        assert torch.equal(first[key], second[key]), key
        if key.startswith("head-3") and key.endswith("weight"):
            # steps of the rate, of gradients that are rounding alone, as above
            assert (first[key] - tensor).square().mean().sqrt() < 3e-4, key
        if not key.startswith("loss-") and "running_var" not in key.removeprefix("head-3"):
            continue
        apart = (first[key] - tensor).square().mean().sqrt() / tensor.square().mean().sqrt()
        # updates of an untrained backbone of sixteen blocks multiply a rounding by ten thousand
        assert apart < (1e-5 if key == "loss-1" else 3e-2), (key, apart)
    assert sum("running_var" in key for key in expected) > 50
    assert sum(key.startswith("head-3") for key in expected) > 2
    first, second = (load_file(tmp_path / "other" / f"model-{rank}.safetensors") for rank in "01")
    assert all(torch.equal(first[key], second[key]) for key in first) and len(first) > 50


def test_a_large_mean_takes_nothing_from_the_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Sum", SimpleNamespace(apply=lambda x: x))
    values = 1_000 + torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = torch.nn.BatchNorm2d(3)
    found = processes.normalised(norm, values)
    expected = torch.nn.BatchNorm2d(3)(values.double().float())
    assert float(found.detach().var(unbiased=False)) == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_a_batch_of_one_value_is_normalised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of squares less the square of the mean would be below 0 for some of them."""
    monkeypatch.setattr(processes, "Sum", SimpleNamespace(apply=lambda x: x))
    values = torch.linspace(500.0, 1500.0, 400)
    norm = torch.nn.BatchNorm2d(400)
    found = processes.normalised(norm, values.view(1, -1, 1, 1).repeat(8, 1, 1, 1))
    assert found.isfinite().all()
    assert (norm.running_var >= 0).all()


@pytest.mark.slow
def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """Gradients and running statistics, in float64."""
    running = start(norms, tmp_path, "alone") + start(norms, tmp_path, "both", processes=2)
    assert wait(running, PATIENCE) == [0] * 3
    expected = load_file(tmp_path / "alone-0.safetensors")
    for process in (0, 1):
        found = load_file(tmp_path / f"both-{process}.safetensors")
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-9, atol=1e-11, msg=key)
    assert expected["1.running_var.kept"].dtype == torch.float64

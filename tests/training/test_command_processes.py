"""Commands as torchrun starts them: in several processes, of which one writes the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

import lensdiff as ld
from lensdiff.training import recipes

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
PATIENCE = 180  # seconds, for a busy machine

TRAIN = ["-m", "lensdiff", "train", "tiny", "--batch", "8", "--width", "16"]


def shared_command(tmp_path: Path, folder: str, *more: str, processes: int = 2) -> list[str]:
    """The words of a training whose model and state lie in folders of this name."""
    own = ["--data", str(ROOT / "data" / "sample"), *more]
    places = [str(tmp_path / folder), "--state", str(tmp_path / f"{folder}-state")]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, *TRAIN, *places, *own]


def run(words: list[str], tmp_path: Path) -> subprocess.CompletedProcess:
    own = {**ENVIRONMENT, "LENSDIFF_PRECISION": "fp32"}
    own |= {"LENSDIFF_CACHE": str(tmp_path / "cache"), "LENSDIFF_QUIET": "1"}
    return subprocess.run(words, env=own, cwd=ROOT, capture_output=True, text=True, timeout=180)


def squares(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The sum of squared differences of two networks' weights."""
    return sum(float((one[key].float() - other[key].float()).square().sum()) for key in one)


@pytest.mark.slow
def test_the_command_in_two_processes_writes_once_and_learns_the_same(tmp_path: Path) -> None:
    """A new cache, one checkpoint, one page; then one process goes on from the state of two."""
    both = run(shared_command(tmp_path, "both", "--steps", "24"), tmp_path)
    assert both.returncode == 0, both.stderr
    assert both.stdout.startswith("2 processes, CPU") and both.stdout.count("trained.") == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1
    one = run(shared_command(tmp_path, "one", "--steps", "24", processes=1), tmp_path)
    assert one.returncode == 0 and one.stdout.startswith("1 process, CPU"), one.stderr
    expected = load_file(tmp_path / "one" / "weights.safetensors")
    found = load_file(tmp_path / "both" / "weights.safetensors")
    begun = recipes.TINY.widened(16).denoiser("fp32").net.state_dict()
    assert begun.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (found[key].float() - tensor.float()).square().mean().sqrt() < 1e-3, key
    assert any(tensor.float().std() > 0.01 for tensor in expected.values())
    apart = squares(found, expected)
    assert apart < 0.01 * squares(begun, expected)  # a tenth of the way that it went
    again = run(shared_command(tmp_path, "both", "--steps", "24", processes=1), tmp_path)
    assert again.returncode == 0 and (tmp_path / "both-state" / "00000024").is_dir(), again.stderr


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    words = shared_command(tmp_path, "both", "--steps", "100000")
    own = {**ENVIRONMENT, "LENSDIFF_CACHE": str(tmp_path / "cache"), "LENSDIFF_QUIET": "1"}
    launched = subprocess.Popen(
        words, env=own, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = launched.stdout.readline()
    assert first.startswith("2 processes")
    while "update 50" not in launched.stdout.readline():
        assert launched.poll() is None
    children = psutil.Process(launched.pid).children()
    workers = [one for one in children if "lensdiff" in " ".join(one.cmdline())]
    (other,) = [one for one in workers if one.environ()["RANK"] == "1"]
    other.kill()
    _, errors = launched.communicate(timeout=PATIENCE)
    assert launched.returncode != 0
    said = "Another of the 2 processes has ended. See what it says, and start the run again"
    assert said in errors or "Interrupted; what was saved so far is kept." in errors


@pytest.mark.slow
def test_a_budget_in_minutes_is_one_for_all(tmp_path: Path) -> None:
    """Each process has a clock of its own; they stop after the same update."""
    done = run(shared_command(tmp_path, "both", "--minutes", "0.03"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trained." in done.stdout


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    """Each draws a part, and one joins them: image i depends on its seed alone."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "lensdiff", "draw", "lens64", "-n", "3", "--steps", "2"]
    done = run([*start, *words, "--out", str(tmp_path / "lenses")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("lenses.npy: (3, 1, 64, 64)") == 1 and "1-of-2" in done.stdout
    assert not list(tmp_path.glob("*-of-*"))
    model = ld.load("lens64", device="cpu", precision="fp32")
    alone = model.draw(3, sampling=replace(model.sampling, steps=2))
    found = torch.from_numpy(np.load(tmp_path / "lenses.npy"))
    assert found.std() > 0.01
    assert torch.allclose(found, alone, atol=1e-4)

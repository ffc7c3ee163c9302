"""torchrun and accelerate's launcher start a training; a process of it that dies ends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "LENSDIFF_PRECISION": "fp32",
    "LENSDIFF_QUIET": "1",
}
PATIENCE = 180  # seconds, for a busy machine
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"]


def training(tmp_path: Path, steps: str) -> list[str]:
    """The words of a small training whose model and state lie in this folder."""
    places = [str(tmp_path / "both"), "--state", str(tmp_path / "both-state")]
    data = ["--data", str(ROOT / "data" / "sample")]
    return ["train", "tiny", "--batch", "8", "--width", "16", *places, *data, "--steps", steps]


@pytest.mark.slow
def test_accelerates_launcher_starts_one_process_on_cpus_and_the_run_says_so(
    tmp_path: Path,
) -> None:
    own = {**ENVIRONMENT, "LENSDIFF_CACHE": str(tmp_path / "cache")}
    words = [*ACCELERATE, "-m", "lensdiff", *training(tmp_path, "1")]
    one = subprocess.run(
        words, env=own, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert one.returncode == 0 and one.stdout.startswith("1 process, CPU"), one.stderr
    assert "accelerate starts one process on CPUs; torchrun starts several." in one.stdout


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    words = [*TORCHRUN, "-m", "lensdiff", *training(tmp_path, "100000")]
    own = {**ENVIRONMENT, "LENSDIFF_CACHE": str(tmp_path / "cache")}
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

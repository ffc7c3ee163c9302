"""What must never change: the same seed gives the same weights, images, features and fingerprints.

Floating-point sums depend on the processor's instructions, so the pins are computed in a process
that is held to AVX2 and one thread; there most x86-64 machines with the same torch agree. `others`
has what the same code gave on a newer processor (with AMX), whose last bits differ all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from pinned import COMPUTED

ROOT = Path(__file__).resolve().parents[1]
PINS = json.loads((ROOT / "tests" / "pinned.json").read_text())
SAME_ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "LENSDIFF_QUIET": "1",
}


def compute(*names: str) -> dict:
    """What the pins of these names are now, each computed in the process of the whole list."""
    environment = {**os.environ, **SAME_ARITHMETIC}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests" / "pinned.py"), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def now() -> dict:
    return compute(*COMPUTED)


def test_pins_are_of_the_pinned_torch() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert PINS["torch"] == pinned["torch"], (
        "record the pins again, with the code before the change"
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="pins are those of x86-64 processors")
@pytest.mark.skipif(version("torch").split("+")[0] != PINS["torch"], reason="of another torch")
@pytest.mark.parametrize("name", COMPUTED)
def test_pinned(name: str, now: dict) -> None:
    known = [PINS["values"][name]]
    if name in PINS["others"]:
        known.append(PINS["others"][name])
    assert now[name] in known


def test_shipped_descriptions_are_untouched() -> None:
    folders = sorted((ROOT / "data" / "checkpoints").glob("*/spec.json"))
    found = {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folders}
    pinned = PINS["spec.json"]
    assert {name: found.get(name) for name in pinned} == pinned

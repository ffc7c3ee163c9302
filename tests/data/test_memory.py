"""The readers hold no more than a batch of images at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lensdiff.storage import root

READ = """
import json
import sys

from lensdiff.data.folders import folder


def peak():  # not ru_maxrss: that starts at the parent's
    lines = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return 1024 * int(lines[0].split()[1])


before = peak()
images = folder(sys.argv[1], cache=sys.argv[2])
print(json.dumps([before, peak(), images.pixels.shape, images.pixels.nbytes]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_reading_10000_images_stays_under_memory(tmp_path: Path) -> None:
    """At 64 pixels, and, as it holds no more than a batch at a time, at every size."""
    folder = tmp_path / "Samples"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(tmp_path / "one.npy", rng.random((64, 64), np.float32))
    header = (tmp_path / "one.npy").read_bytes()[:128]
    for i, image in enumerate(rng.random((10_000, 64, 64), np.float32)):
        (folder / f"{i:05}.npy").write_bytes(header + image.tobytes())
    run = subprocess.run(
        [sys.executable, "-c", READ, folder, tmp_path / "cache"],
        capture_output=True,
        text=True,
        cwd=root(),
        env=os.environ | {"LENSDIFF_QUIET": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    before, after, shape, size = json.loads(run.stdout)
    print(f"\n10,000 images of 64 pixels ({size / 1e6:.0f} MB): at most {after / 1e6:.0f} MB")
    print(f"of which the imports take {before / 1e6:.0f} MB")
    assert shape == [10_000, 1, 64, 64]
    assert after < 1.5e9
    assert after - before < 0.3 * size

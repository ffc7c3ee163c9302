"""Two more parts of the benchmark: what scores cost, and the time from a clone to a first lens."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ..errors import ParameterError
from ..runtime import best_device
from ..scores import distances
from ..scores.features import extractor
from ..scores.statistics import Statistics
from ..storage import root
from . import cost

SCORES = (256, 1_024, 4_096)  # images a side
PIXELS = 64
BATCH = 32  # images whose features are found at once
REPEATS = 3
ENVIRONMENT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LENSDIFF_CACHE", "LENSDIFF_RUNS")


def scores(n: int) -> dict:
    """Seconds of each score of `n` random feature rows against as many, and of an image's features.

    The rows are as wide as those of EfficientNet; their values don't matter to the time.
    """
    net = extractor("efficientnet", best_device())
    images = torch.rand(BATCH, 1, PIXELS, PIXELS)
    with torch.no_grad():
        width = net(images.to(best_device())).shape[1]
        features_s = cost.seconds(lambda: net(images.to(best_device())), REPEATS) / BATCH
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, width)).astype(np.float32) for _ in range(2)]
    a, b = (Statistics.of(one) for one in rows)
    works = {
        "distance": lambda: distances.frechet(a, b),
        "its error": lambda: distances.frechet_error(a, b),
        "KID": lambda: distances.kid(a, b),
        "precision and recall": lambda: distances.precision_recall(*rows),
    }
    found = {name: float(f"{cost.seconds(work, REPEATS):.4g}") for name, work in works.items()}
    return {"n": n, "width": width, "score_s": found, "features_image_s": round(features_s, 5)}


def first_lens(repository: Path | None = None) -> dict:
    """Seconds of each step from `git clone` of this checkout to a first lens drawn.

    It clones from the disk, installs over the network, and leaves nothing behind. It runs once,
    since what is downloaded a second time comes from a cache. Raises ParameterError where lensdiff
    is no checkout, or with what a step that failed said.
    """
    repository = repository or root()
    if not (repository / ".git").exists():
        raise ParameterError(f"{repository} is no checkout of lensdiff: clone it with git first.")
    given = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    seconds = {}
    with tempfile.TemporaryDirectory() as work:
        clone = Path(work) / "lensdiff"
        draw = [clone / ".venv" / "bin" / "python", "-m", "lensdiff", "draw", "lens64"]
        steps = {
            "git clone": ["git", "clone", "-q", "--depth", "1", repository.as_uri(), clone],
            "make setup": ["make", "-s", "-C", clone, "setup"],
            "draw a lens": [*draw, "-n", "1", "--out", clone / "runs" / "first"],
        }
        for name, words in steps.items():
            start = time.perf_counter()
            done = subprocess.run(words, env=given, capture_output=True, text=True)
            seconds[name] = round(time.perf_counter() - start, 1)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise ParameterError(f"{name} failed: {''.join(said)}. Mend it, and run it again.")
    return {"step_s": seconds}

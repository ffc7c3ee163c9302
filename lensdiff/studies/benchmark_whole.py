"""More of the benchmark: what scores cost, a first lens from a clone, the machine's limits."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ParameterError
from ..runtime import best_device, best_precision
from ..scores import distances
from ..scores.features import extractor
from ..scores.statistics import Statistics
from ..storage import root
from . import cost

SCORES = (256, 1_024, 4_096)  # images a side
PIXELS = 64
BATCH = 32  # images whose features are found at once
REPEATS = 3
LEAST_S = 0.05  # of a timing of the machine's limit: a single product is too short for a GPU
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
    found = {name: cost.significant(cost.seconds(work, REPEATS), 4) for name, work in works.items()}
    features_s = cost.significant(features_s, 4)
    return {"n": n, "width": width, "score_s": found, "features_image_s": features_s}


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
            seconds[name] = cost.significant(time.perf_counter() - start, 3)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise ParameterError(f"{name} failed: {''.join(said)}. Mend it, and run it again.")
    return {"step_s": seconds}


def limits(rounds: int) -> dict:
    """Operations a second that this machine reaches in a product of matrices and a convolution."""
    device = best_device()
    found = {}
    low = "fp16" if best_precision() == "fp16" else "bf16"
    lower = torch.float16 if low == "fp16" else torch.bfloat16
    for name, dtype in (("fp32", torch.float32), (low, lower)):
        a = torch.randn(2_048, 2_048, device=device, dtype=dtype)
        x = torch.randn(16, 128, 64, 64, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(128, 128, 3, 3, device=device, dtype=dtype)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        conv = functools.partial(F.conv2d, x, kernel, padding=1)
        works = {
            "matmul": (functools.partial(torch.mm, a, a), 2 * 2_048**3),
            "convolution": (conv, 2 * 9 * 128**2 * 16 * 64**2),
        }
        for work, (run, operations) in works.items():
            many = max(1, round(LEAST_S / cost.seconds(run, 1)))
            taken = cost.seconds(lambda run=run, many=many: [run() for _ in range(many)], rounds)
            found[f"{work}, {name}"] = cost.significant(many * operations / taken, 4)
    return {"operations_per_s": found}

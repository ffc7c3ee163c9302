"""The memory that a training and a drawing need, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ..diffusion.process import Denoiser
from ..diffusion.sampling import draw, log_levels
from ..networks.unet import UNet
from ..runtime import best_device, best_precision
from ..training import recipes
from . import peers

MODEL = "lens64"
STEPS = 3  # the peak is that of each call: more of them need no more
IMAGES = 8
SIDE = 64
PEAK = """
import sys
from lensdiff.studies import benchmark_memory
print(getattr(benchmark_memory, sys.argv[1])(sys.argv[2], int(sys.argv[3])))
"""


def in_a_process(name: str, *arguments: object) -> int | None:
    """What a function of this module finds in a fresh process."""
    words = [sys.executable, "-c", PEAK, name, *map(str, arguments)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1]
    return None if said == "None" else int(said)


def own_peak(name: str, side: int) -> int | None:
    """Bytes that two updates of a contender need at most, in a process of its own.

    On a CPU what the process holds more at its peak than after a small update, by which the library
    was loaded (what that has left free is used again, and not counted); None without a /proc.
    """
    # its library's import is no cost of an update
    before = held_bytes(lambda: next(peers.contender(name, 16).updates))
    if before is None:
        return None
    made = peers.contender(name, side)
    for _ in range(2):
        next(made.updates)
    return held_bytes(peak=True) - before


def held_bytes(first: Callable[[], object] | None = None, peak: bool = False) -> int | None:
    """Bytes that this process holds after `first()`, or held at its peak; None without a /proc.

    Of a GPU the peak is that since `first`, of which nothing counts.
    """
    cuda = best_device() == "cuda"
    if not cuda and not Path("/proc/self/status").exists():
        return None
    if first is not None:
        first()
    if not cuda:
        return _status("VmHWM" if peak else "VmRSS")
    if peak:
        return torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return 0


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def peak_bytes(name: str, side: int) -> int | None:
    """`own_peak`, in a fresh process."""
    return in_a_process("own_peak", name, side)


def drawing_peak(what: str, value: int) -> int | None:
    """Bytes that a draw of `lens64`'s network needs at most, with its weights.

    One of side, batch and width is `value`. In a process of its own: on a CPU what it holds more at
    its peak than after a small draw, by which the libraries were loaded; None without a /proc.
    """
    plan = recipes.every()[MODEL]
    before = held_bytes(lambda: _draw(plan.widened(32), 16, 1))
    if before is None:
        return None
    side = value if what == "side" else SIDE
    count = value if what == "batch" else IMAGES
    _draw(plan.widened(value) if what == "width" else plan, side, count)
    return held_bytes(peak=True) - before


def _draw(plan: recipes.Recipe, side: int, count: int) -> None:
    denoiser = Denoiser(UNet(**plan.network), "edm", precision=best_precision())
    denoiser = denoiser.to(best_device(), memory_format=torch.channels_last)
    given = ((1, side, side), range(count), log_levels(STEPS, 40.0, 0.02), "dpmpp_2m", None, count)
    with torch.no_grad():
        for _ in draw(denoiser, *given, best_device()):
            pass


def drawing(what: str, values: tuple[int, ...]) -> dict:
    """`drawing_peak` at each value, each in a fresh process."""
    peaks = {value: in_a_process("drawing_peak", what, value) for value in values}
    measured = [{"value": value, "peak_bytes": peak} for value, peak in peaks.items()]
    return {"images": IMAGES, "side": SIDE, "measured": measured}

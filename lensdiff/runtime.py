"""Where a computation runs: device, precision, progress bars, and what machine this is."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterable

import psutil
import torch
from tqdm.auto import tqdm

from .errors import ParameterError

PRECISION = "LENSDIFF_PRECISION"  # takes the place of `best_precision`'s own choice


def best_device() -> str:
    """'cuda' where there is one, else 'cpu'."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: torch.device | str | None = None) -> str:
    """'bf16' where the device computes in it natively, else 'fp16' on a GPU and 'fp32' on a CPU.

    LENSDIFF_PRECISION, 'fp32' or 'bf16', takes its place. Raises ParameterError for another value.
    """
    chosen = os.environ.get(PRECISION)
    if chosen:
        if chosen not in ("fp32", "bf16"):
            cure = "Set it to 'fp32' or 'bf16', or leave it out"
            raise ParameterError(f"{PRECISION} is {chosen!r}. {cure}.")
        return chosen
    if torch.device(device or best_device()).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def processor() -> str:
    """What a checkpoint records of the machine that trained it."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def machine() -> str:
    """What this machine is, in words: the GPU, or the CPU and its threads, and the precision."""
    if best_device() == "cuda":
        return f"{torch.cuda.get_device_name()}, {best_precision()}"
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} threads, {best_precision()}"


@functools.cache
def quiet() -> bool:
    """Whether nobody watches: LENSDIFF_QUIET is set, or papermill runs this kernel."""
    if os.environ.get("LENSDIFF_QUIET"):
        return True
    try:
        return any("papermill" in word for word in psutil.Process().parent().cmdline())
    except (psutil.Error, AttributeError):
        return False


def progress(items: Iterable | None = None, total: int | None = None, what: str = "") -> tqdm:
    """A progress bar over `items`, or one to be updated by hand; silent where nobody watches."""
    return tqdm(items, total=total, desc=what, disable=quiet(), leave=False)

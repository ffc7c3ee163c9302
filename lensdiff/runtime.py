"""Where a computation runs: device, precision, processes, progress bars, what machine this is."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Callable, Iterable, Iterator

import psutil
import torch
from tqdm.auto import tqdm

from .errors import ParameterError, TrainingError

PRECISION = "LENSDIFF_PRECISION"  # takes the place of `best_precision`'s own choice
PRECISIONS = ("fp32", "bf16", "fp16")
DEVICE = "LENSDIFF_DEVICE"  # takes the place of `best_device`'s own choice
DEVICES = {
    "cuda": lambda: torch.cuda.is_available(),
    "mps": lambda: torch.backends.mps.is_available(),  # the GPU of a Mac
    "cpu": lambda: True,
}


def best_device(wanted: torch.device | str | None = None) -> torch.device | str:
    """The first that there is of 'cuda', 'mps' and 'cpu'.

    `wanted`, else LENSDIFF_DEVICE, takes its place; `wanted` may have a number, as 'cuda:1'. Under
    `accelerate launch --cpu` it is the CPU. Raises
    ParameterError for one that isn't there, and for a number in the variable, which not all of a
    run would follow.
    """
    there = [name for name, available in DEVICES.items() if available()]
    # `accelerate launch --cpu` trains there, whatever else there is
    told = os.environ.get("ACCELERATE_USE_CPU", "").lower()
    on_cpu = told in ("1", "true", "yes", "y", "t", "on")
    chosen = wanted or os.environ.get(DEVICE) or ("cpu" if on_cpu else there[0])
    kind, _, number = str(chosen).partition(":")
    if number and not wanted:
        cure = f"Set it to {kind!r}; CUDA_VISIBLE_DEVICES chooses one of several"
        raise ParameterError(f"{DEVICE} is {chosen!r}, with a number. {cure}.")
    several = torch.cuda.device_count() if kind == "cuda" else 1
    known = not number or (number.isdigit() and int(number) < several)
    if kind not in there or not known:
        what = "The device" if wanted else DEVICE
        cure = f"Set it to {' or '.join(map(repr, there))}, or leave it out"
        raise ParameterError(f"{what} is {str(chosen)!r}, which this machine has not. {cure}.")
    return chosen


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """The context in which a device computes in a precision; 'fp32' changes nothing."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None)


def synchronize(device: torch.device | str) -> None:
    """Wait for what a device still computes; a CPU has nothing to wait for."""
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def best_precision(device: torch.device | str | None = None, wanted: str | None = None) -> str:
    """'bf16' where the device computes in it natively, else 'fp16' on CUDA and 'fp32' elsewhere.

    `wanted`, else LENSDIFF_PRECISION, takes its place: 'fp32', 'bf16' or 'fp16'. Raises
    ParameterError for another value.
    """
    chosen = wanted or os.environ.get(PRECISION)
    if chosen:
        if chosen not in PRECISIONS:
            what = "The precision" if wanted else PRECISION
            cure = "Set it to 'fp32', 'bf16' or 'fp16', or leave it out"
            raise ParameterError(f"{what} is {chosen!r}. {cure}.")
        return chosen
    kind = torch.device(device or best_device()).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def finest(x: torch.Tensor) -> torch.Tensor:
    """`x` in float64; in float32 on a Mac's GPU, which has no finer numbers."""
    return x.float() if x.device.type == "mps" else x.double()


def take_gpu() -> None:
    """Where several processes share the GPUs of a machine, this one takes its own."""
    if processes() > 1 and best_device() == "cuda":
        number = os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))
        torch.cuda.set_device(int(number) % torch.cuda.device_count())


def processes() -> int:
    """How many processes share this run, as torchrun or accelerate has started them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main(number: str = "RANK") -> bool:
    """Whether this process writes what all share; by LOCAL_RANK, all of its machine."""
    return int(os.environ.get(number, "0")) == 0


def once(work: Callable[[], object]) -> None:
    """Do `work` in the main process alone, while the others wait until it is done.

    Raises TrainingError in those where it has ended without.
    """
    if is_main():
        work()
    if processes() > 1:
        from accelerate import PartialState

        with together(TrainingError):
            PartialState(cpu=best_device() == "cpu").wait_for_everyone()


@contextlib.contextmanager
def together(error: type[Exception]) -> Iterator[None]:
    """Raises `error`, a sentence with the cure, where another process of the run has ended."""
    try:
        yield
    except RuntimeError as reason:
        gone = ("closed by peer", "reset by peer", "remote process exited")
        if processes() == 1 or not any(words in str(reason) for words in gone):
            raise
        cure = "See what it says, and start the run again: with a state it goes on from there"
        raise error(f"Another of the {processes()} processes has ended. {cure}.") from reason


@contextlib.contextmanager
def enough_memory(
    error: type[Exception], what: str, cure: str, device: torch.device | str
) -> Iterator[None]:
    """Raises `error`, a sentence with the cure, where `device` has no memory left for the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as reason:
        kinds = (MemoryError, torch.OutOfMemoryError)
        # of other devices than CUDA, and of its libraries, torch says it in words alone
        words = ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
        if not isinstance(reason, kinds) and not any(one in str(reason) for one in words):
            raise
        raise error(f"The memory of {device} is too small for {what}. {cure}.") from reason


def processor() -> str:
    """What a checkpoint records of the machine that trained it: the CPU, and the GPU's name."""
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    device = best_device()
    if device == "cuda":
        return f"{cpu}, {torch.cuda.get_device_name()}"
    return f"{cpu}, GPU of a Mac" if device == "mps" else cpu


def machine() -> str:
    """What this machine is, in words: the GPU, or the CPU and its threads, and the precision."""
    device = best_device()
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {best_precision()}"
    if device == "mps":
        return f"GPU of a Mac ({platform.machine()}), {best_precision()}"
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} threads, {best_precision()}"


@functools.cache
def quiet() -> bool:
    """Whether nobody watches: LENSDIFF_QUIET, a process beside the main one, or papermill."""
    if os.environ.get("LENSDIFF_QUIET") or not is_main():
        return True
    try:
        return any("papermill" in word for word in psutil.Process().parent().cmdline())
    except (psutil.Error, AttributeError):
        return False


def progress(
    items: Iterable | None = None, total: int | None = None, what: str = "", done: int = 0
) -> tqdm:
    """A progress bar over `items`, or one to be updated by hand; silent where nobody watches.

    `done` of the total were done before, and do not count for its speed.
    """
    return tqdm(items, total=total, desc=what, disable=quiet(), leave=False, initial=done)

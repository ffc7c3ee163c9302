"""A large job as independent parts: which images are a part's, and how parts become the whole.

Image i of a job has the seed of the first plus i, so that a part is a range of seeds, and the whole
is the same whatever the number of parts. Whoever finishes last joins them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout

from ..errors import DataError, ParameterError, StorageError
from ..runtime import processes, take_gpu
from ..scores.statistics import Statistics
from ..storage import atomic, read_json, write_json

CURE = "Delete it and run its part again."


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `parts`."""

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From the command line: "3/8". Raises ParameterError for anything else."""
        number, _, parts = text.partition("/")
        if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
            raise ParameterError(f"--shard {text}: write 3/8 for the third part of eight.")
        return cls(int(number), int(parts))

    def rows(self, n: int, what: str = "images") -> range:
        """Which of `n` images, or `what`, are this part's. ParameterError where there are none."""
        if n < self.parts:
            raise ParameterError(f"{n} {what} make no {self.parts} parts. Take fewer parts.")
        first, last = ((k * n) // self.parts for k in (self.number - 1, self.number))
        return range(first, last)

    def path(self, whole: Path) -> Path:
        """Where this part of a file lies: whole.npy, whole.3-of-8.npy."""
        return whole.with_name(f"{whole.stem}.{self.number}-of-{self.parts}{whole.suffix}")

    def all(self) -> list[Shard]:
        """All parts of the job."""
        return [Shard(number, self.parts) for number in range(1, self.parts + 1)]

    def missing(self, whole: Path, job: str) -> list[int]:
        """Numbers of the parts that are not there yet; one of another job is not."""
        return [one.number for one in self.all() if not one.there(whole, job)]

    def there(self, whole: Path, job: str) -> bool:
        """Whether this part of the job is there."""
        return is_of(self.path(whole), job)


def record(path: Path) -> Path:
    """The file beside an array or statistics that says of which job they are."""
    return path.with_suffix(".job.json")


def is_of(path: Path, job: str) -> bool:
    """Whether there is a file at `path`, a part or the whole, and it is of this job."""
    about = record(path)
    try:
        return path.exists() and about.exists() and read_json(about, CURE) == {"job": job}
    except DataError:
        if about.exists():
            raise
        return False  # who joined the parts took it away meanwhile


def own(given: str | None) -> str | None:
    """The part that is given, or that of this process where several share the work: "2/4".

    On a machine with several GPUs each process then takes one of them. Raises ParameterError for
    both at once.
    """
    if processes() == 1:
        return given
    if given:
        reason = f"--shard {given}: these {processes()} processes share the work already"
        raise ParameterError(f"{reason}. Take either torchrun or --shard.")
    if "RANK" not in os.environ:
        reason = f"WORLD_SIZE says {processes()} processes, and no RANK which of them this is"
        raise ParameterError(f"{reason}. Start them by torchrun, or unset WORLD_SIZE.")
    take_gpu()
    return f"{int(os.environ['RANK']) + 1}/{processes()}"


@contextlib.contextmanager
def joining(whole: Path, shard: Shard, job: str) -> Iterator[bool]:
    """Whether this process is to join the parts: all are there, and no other does it.

    The system frees the lock of one that was killed. It lies beside the parts, which all share.
    """
    missing = shard.missing(whole, job)
    strangers = [n for n in missing if Shard(n, shard.parts).path(whole).exists()]
    also = f" ({strangers} lie there, of another job)" if strangers else ""
    own = f"part {shard.number} of {shard.parts}"
    print(f"{shard.path(whole)}: {own}; to come: {missing or 'none'}{also}")
    lock = FileLock(whole.with_name(f"{whole.name}.lock"))
    try:
        if not missing:
            lock.acquire(timeout=0)
    except Timeout:
        print(f"{whole}: another job joins the parts; it holds {lock.lock_file}.")
        missing = [shard.number]
    except OSError as error:
        reason = f"the parts can't be locked while they are joined ({error})"
        cure = "Take a folder on a disk that has locks, or one process"
        raise StorageError(f"{whole}: {reason}. {cure}.") from error
    if missing:
        yield False
        return
    try:
        # another may have joined and cleared them since they were counted
        yield not shard.missing(whole, job)
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # of Windows, where another has it open
            Path(lock.lock_file).unlink(missing_ok=True)


def clear(whole: Path, shard: Shard, job: str) -> None:
    """Delete the job's parts, once the whole is stored, and such without a record."""
    for one in shard.all():
        place = one.path(whole)
        if one.there(whole, job) or not record(place).exists():
            place.unlink(missing_ok=True)
            record(place).unlink(missing_ok=True)


Made = TypeVar("Made")


def write_part(
    whole: Path,
    shard: Shard,
    make: Callable[[], Made],
    save: Callable[[Path, Made], object],
    job: str,
) -> None:
    """Make a part and write it, and first what job it is of; one of another job goes before.

    A part of the same job that is there stays, and is not made again.
    """
    place = shard.path(whole)
    if is_of(place, job):
        return
    place.unlink(missing_ok=True)
    write_json(record(place), {"job": job})
    save(place, make())


# ---- arrays --------------------------------------------------------------------------------------


def save_array(place: Path, images: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    with atomic(place) as part:
        np.save(part, images, allow_pickle=False)


def join_arrays(whole: Path, shard: Shard, job: str) -> None:
    """Write the whole array from its parts, one in memory at a time, and of which job it is.

    Parts and whole are on the disk together. A full one is an error: nothing is memory-mapped.
    """
    places = [one.path(whole) for one in shard.all()]
    headers = [np.load(place, mmap_mode="r", allow_pickle=False) for place in places]
    shape = (sum(map(len, headers)), *headers[0].shape[1:])
    descr = np.lib.format.dtype_to_descr(headers[0].dtype)
    del headers  # Windows renames and deletes nothing that is mapped
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    record(whole).unlink(missing_ok=True)
    with atomic(whole) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for place in places:
            file.write(np.ascontiguousarray(np.load(place, allow_pickle=False)).data)
    write_json(record(whole), {"job": job})


# ---- statistics ----------------------------------------------------------------------------------


def join_statistics(whole: Path, shard: Shard, key: str) -> Statistics:
    """Statistics of all parts.

    Raises MetricError for a part of another model, sampling or extractor.
    """
    joined, *others = (Statistics.load(one.path(whole), key) for one in shard.all())
    for other in others:
        joined.join(other)
    return joined

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

import numpy as np

from ..errors import ParameterError
from ..runtime import processes, take_gpu
from ..scores.statistics import Statistics
from ..storage import atomic, fingerprint_of, read_json, write_json

CURE = "Delete the part and run it again."


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `parts`."""

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From the command line: "3/8". Raises ParameterError for anything else."""
        number, _, parts = text.partition("/")
        if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
            raise ParameterError(f"--shard {text}: write 3/8 for the third part of eight.")
        return cls(int(number), int(parts))

    def rows(self, n: int) -> range:
        """Which of `n` images are this part's. Raises ParameterError where there are none."""
        if n < self.parts:
            raise ParameterError(f"{n} images make no {self.parts} parts. Take fewer parts.")
        first, last = ((k * n) // self.parts for k in (self.number - 1, self.number))
        return range(first, last)

    def path(self, whole: Path) -> Path:
        """Where this part of a file lies: whole.npy, whole.3-of-8.npy."""
        return whole.with_name(f"{whole.stem}.{self.number}-of-{self.parts}{whole.suffix}")

    def all(self) -> list[Shard]:
        """All parts of the job."""
        return [Shard(number, self.parts) for number in range(1, self.parts + 1)]

    def missing(self, whole: Path) -> list[int]:
        """Numbers of the parts that are not there yet."""
        return [one.number for one in self.all() if not one.path(whole).exists()]


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
    take_gpu()
    return f"{int(os.environ['RANK']) + 1}/{processes()}"


@contextlib.contextmanager
def joining(whole: Path, shard: Shard) -> Iterator[bool]:
    """Whether this process is to join the parts: all are there, and no other does it."""
    missing = shard.missing(whole)
    own = f"part {shard.number} of {shard.parts}"
    print(f"{shard.path(whole)}: {own}; to come: {missing or 'none'}")
    mark = whole.with_name(f"{whole.name}.joining")
    if missing:
        yield False
        return
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        print(f"{mark}: another job joins the parts. If it was killed: delete this, run again.")
        yield False
        return
    try:
        # another may have joined and cleared them since they were counted
        yield not shard.missing(whole)
    finally:
        mark.unlink(missing_ok=True)


def clear(whole: Path, shard: Shard) -> None:
    """Delete the parts, once the whole is stored."""
    for one in shard.all():
        one.path(whole).unlink(missing_ok=True)
        one.path(whole).with_suffix(".json").unlink(missing_ok=True)


# ---- arrays --------------------------------------------------------------------------------------


def write_part(whole: Path, shard: Shard, made: Callable[[], np.ndarray], job: dict) -> None:
    """Make a part and write it, and first what job it is of; one of another job goes before.

    A part of the same job that is there stays, and is not made again.
    """
    place = shard.path(whole)
    about = place.with_suffix(".json")
    mine = {"job": fingerprint_of(job)}
    if place.exists() and about.exists() and read_json(about, CURE) == mine:
        return
    place.unlink(missing_ok=True)
    write_json(about, mine)
    images = made()
    with atomic(place) as part:
        np.save(part, images, allow_pickle=False)


def join_arrays(whole: Path, shard: Shard, job: dict) -> None:
    """Write the whole array from its parts, one in memory at a time.

    Raises ParameterError for a part of another job.
    """
    places = [one.path(whole) for one in shard.all()]
    for place in places:
        if read_json(place.with_suffix(".json"), CURE).get("job") != fingerprint_of(job):
            raise ParameterError(f"{place}: this part is of another job. {CURE}")
    headers = [np.load(place, mmap_mode="r", allow_pickle=False) for place in places]
    shape = (sum(map(len, headers)), *headers[0].shape[1:])
    kind = headers[0].dtype
    del headers  # Windows renames and deletes nothing that is mapped
    with atomic(whole) as temporary:
        joined = np.lib.format.open_memmap(temporary, "w+", kind, shape)
        start = 0
        for place in places:
            images = np.load(place, allow_pickle=False)
            joined[start : start + len(images)] = images
            start += len(images)
        joined.flush()
        del joined


# ---- statistics ----------------------------------------------------------------------------------


def join_statistics(whole: Path, shard: Shard, key: str) -> Statistics:
    """Statistics of all parts.

    Raises MetricError for a part of another model, sampling or extractor.
    """
    joined, *others = (Statistics.load(one.path(whole), key) for one in shard.all())
    for other in others:
        joined.join(other)
    return joined

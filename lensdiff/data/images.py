"""Sets of images, simulated ones among them: split, symmetries, and the way into network units.

Every reader returns an `ImageSet` whose pixels, float32 in [0, 1], lie memory-mapped in a cache,
under a fingerprint of all that made them.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, ParameterError
from ..lensing.population import KINDS, sample_params
from ..lensing.simulate import VERSION, simulate
from ..lensing.survey import Survey, diverse
from ..lensing.telescope import min_max
from ..storage import atomic, fingerprint_of
from ..storage.cache import cached

TRAIN_SEED = 1
TEST_SEED = 2
CHOSEN = "chosen by hand"  # rows of a training that had some of the default's held-out ones
TRAIN_IMAGES = 10_000
TEST_IMAGES = 5_000


@dataclass(frozen=True)
class ImageSet:
    """Images (n, channels, H, W), float32 in [0, 1], and what is known of them.

    Raises ParameterError for `symmetries` that are not in `ELEMENTS`.
    """

    name: str
    pixels: np.ndarray
    fingerprint: str
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None  # (n,), index into classes
    truth: np.ndarray | None = None  # (n,), dtype population.PARAMS, for simulated lenses
    symmetries: int = 1  # 1: none, 2: mirror, 8: flips and quarter turns, as `ELEMENTS` has them
    folder: Path | None = None
    unobserved: Survey | None = None  # the survey whose noise noiseless images lack

    def __post_init__(self) -> None:
        if self.symmetries not in ELEMENTS:
            known = "1 (none), 2 (a mirror) or 8 (flips and quarter turns)"
            raise ParameterError(f"{self.name}: symmetries is {self.symmetries!r}, not {known}.")

    def __len__(self) -> int:
        return len(self.pixels)

    def as_dict(self) -> dict:
        """What a checkpoint records of the images it learnt from."""
        return {"name": self.name, "fingerprint": self.fingerprint, "images": len(self)}

    def subset(self, rows: np.ndarray, name: str) -> ImageSet:
        """The images of `rows`, read into memory, under a name and a fingerprint of their own."""
        rows = np.asarray(rows)
        return replace(
            self,
            name=f"{self.name}, {name}",
            pixels=self.pixels[rows],
            fingerprint=fingerprint_of([self.fingerprint, rows.tolist()]),
            folder=None,
            labels=None if self.labels is None else self.labels[rows],
            truth=None if self.truth is None else self.truth[rows],
        )

    def unseen(self, spec: dict) -> ImageSet:
        """Those that a model never saw: all, or of images that it learnt the tenth held out.

        `spec` is the model's, whose stages record what each of them learnt as "data". It knows a
        set by all of it: simulated sets of one seed and unequal size share images, and yet count as
        different ones. Raises ParameterError where it learnt some of what is held out by default.
        """
        same = False
        for stage in (spec, *spec.get("stages", ())):
            learnt = dict(stage.get("data") or {})
            known = str(learnt.get("fingerprint") or "")
            # an older model of a folder knows it by the name of its cache
            older = bool(known and self.folder) and self.folder.name.endswith(f"-{known[:12]}")
            if known == self.fingerprint or older:
                same = True
                if learnt.get("rows") == CHOSEN:
                    reason = "the model learnt rows of it that were chosen by hand"
                    raise ParameterError(f"{self.name}: {reason}. Give images of another folder.")
            elif self.truth is None and str(learnt.get("name")).startswith(f"{self.name}, "):
                reason = f"the model learnt a part of it ({learnt['name']}), and not which is known"
                raise ParameterError(f"{self.name}: {reason}. Give images of another folder.")
            elif learnt.get("name") == self.name and self.truth is None:  # of files
                words = "its files are others than the model learnt under this name in a stage"
                print(f"{self.name}: {words}; some of these may be among them.")
        if not same:
            return self
        _, held = self.split()
        return self.subset(held, f"{len(held)} held out")

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Sorted indices (train, held-out), the same on every call; saved beside the cached pixels.

        Raises ParameterError where one side would be empty, DataError for a damaged file of them.
        """
        train, held = split_rows(len(self), held_out, seed)
        if not len(train) or not len(held):
            reason = f"{len(self)} images can't be split with held_out={held_out}"
            raise ParameterError(f"{self.name}: {reason}; use more images.")
        path = self.folder / f"split-{held_out:g}-{seed}.npz" if self.folder else None
        if path is not None and path.exists():
            try:
                with np.load(path, allow_pickle=False) as saved:
                    return saved["train"], saved["held_out"]
            except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
                cure = "Delete it; it is made again."
                raise DataError(f"{path}: can't be read ({error}). {cure}") from error
        if path is not None:
            # a read-only cache: the same split is made on every call
            with contextlib.suppress(OSError), atomic(path) as part:
                np.savez(part, train=train, held_out=held)
        return train, held


def split_rows(n: int, held_out: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (train, held-out) of `n` images, as `ImageSet.split` takes them."""
    order = np.random.default_rng(seed).permutation(n)
    n_held = min(max(round(n * held_out), 0), n)
    return np.sort(order[n_held:]), np.sort(order[:n_held])


@dataclass(frozen=True)
class Stretch:
    """Affine map between pixel values and the network's units, (pixel - mean) / std * 0.5."""

    mean: float
    std: float

    @classmethod
    def of(cls, pixels: np.ndarray, most: int = 2_000) -> Stretch:
        """Mean and std of every (n // `most`)-th image of `pixels` (n, ...).

        These are `most` or more, but fewer than twice as many; all, where there are fewer. Raises
        DataError for no images, for constant ones, and for NaN or infinity in them.
        """
        some = np.asarray(pixels[:: max(1, len(pixels) // most)], np.float64)
        if not some.size:
            raise DataError("There are no images to learn. Check the folder, or the rows.")
        if not np.isfinite(some).all():
            raise DataError("Pixels hold NaN or infinity. Mend the images, or take them out.")
        if some.min() == some.max():
            reason = "All pixels have the same value: there is nothing to learn."
            raise DataError(f"{reason} Check the files.")
        return cls(float(some.mean()), float(some.std()))

    def __call__(self, pixels):
        return (pixels - self.mean) * (0.5 / self.std)

    def inverse(self, x):
        """Network units to pixel values."""
        return x * (self.std / 0.5) + self.mean

    @property
    def limits(self) -> tuple[float, float]:
        """Pixel values 0 and 1 in network units."""
        return self(0.0), self(1.0)


# ---- order and symmetries ------------------------------------------------------------------------


class Shuffle:
    """Rows of update k: the epochs' shuffled orders, one behind the other, cut into batches."""

    def __init__(self, rows: np.ndarray, batch: int, seed: int):
        self.rows = rows
        self.batch = batch
        self.seed = seed
        self.epoch = -1
        self.order = rows

    def __call__(self, update: int) -> np.ndarray:
        picked = []
        for position in range(update * self.batch, (update + 1) * self.batch):
            epoch, index = divmod(position, len(self.rows))
            if epoch != self.epoch:
                self.epoch = epoch
                self.order = np.random.default_rng([self.seed, 0, epoch]).permutation(self.rows)
            picked.append(self.order[index])
        return np.array(picked)


ELEMENTS = {1: (0,), 2: (0, 4), 8: tuple(range(8))}  # of the eight, by `ImageSet.symmetries`


def symmetry(x: Tensor, which: Tensor | np.ndarray) -> Tensor:
    """Turn each image of x (n, C, H, W) by its element `which` (n,) of the eight symmetries.

    Element k is k % 4 quarter turns, then a mirror where k >= 4.
    """
    turned = []
    for image, k in zip(x, which, strict=True):
        image = torch.rot90(image, int(k) % 4, (-2, -1))
        turned.append(image.flip(-1) if k >= 4 else image)
    return torch.stack(turned)


# ---- simulated lenses ----------------------------------------------------------------------------


def one_or_more(n: int) -> int:
    """The number of lenses to simulate, as Python's int. Raises ParameterError below 1."""
    if n < 1:
        raise ParameterError(f"{n} lenses: simulate one or more.")
    return operator.index(n)


def simulated(
    survey: Survey,
    n: int,
    seed: int,
    kind: str = "mixed",
    cache: Path | str | None = None,
    noiseless: bool = False,
    first: int = 0,
) -> ImageSet:
    """`n` observed lenses, each scaled to span [0, 1], with their truth.

    They are simulated once, then read from the cache. With `noiseless`, the light before its noise.
    Image i, from `first` on, is the same in all sets of a seed. Raises ParameterError for no lens.
    """
    n = one_or_more(n)
    seed = operator.index(seed)
    description = {"simulator": VERSION, "survey": asdict(survey), "n": n, "seed": seed}
    description |= {"kind": kind, "scale": "min_max"}
    params = sample_params(n, kind, seed, survey, first)
    shape = (n, 1, survey.pixels, survey.pixels)
    description |= {"noiseless": True} if noiseless else {}  # others keep their fingerprints
    description |= {"first": operator.index(first)} if first else {}

    def batches() -> Iterator[np.ndarray]:
        for batch in simulate(params, survey, seed, noiseless=noiseless, first=first):
            yield min_max(batch)[:, None]

    name = f"{survey.name}-{survey.pixels}{'-noiseless' if noiseless else ''}"
    folder, fingerprint, pixels = cached(name, description, shape, batches, cache, truth=params)
    return ImageSet(
        name=name,
        pixels=pixels,
        fingerprint=fingerprint,
        classes=KINDS,
        labels=params["label"],
        truth=params,
        symmetries=8 if survey.isotropic else 1,
        folder=folder,
        unobserved=survey if noiseless else None,
    )


def some_of(images: ImageSet, rows: np.ndarray, most: int) -> np.ndarray:
    """`most` of `rows`: the first, or evenly spaced ones where the first lack a class."""
    first = rows[:most]
    if images.labels is None or len(rows) <= most:
        return first
    labels = np.asarray(images.labels)
    if len(np.unique(labels[first])) == len(np.unique(labels[rows])):
        return first
    return rows[np.arange(most) * len(rows) // most]


def share_of(split: str, train: int, test: int) -> tuple[int, int]:
    """(number, seed) of the simulated images of a split. Raises ParameterError for another one."""
    if split not in ("train", "test"):
        raise ParameterError(f"split must be 'train' or 'test', not {split!r}.")
    return (train, TRAIN_SEED) if split == "train" else (test, TEST_SEED)


def lenses(
    split: str = "train",
    pixels: int = 64,
    n: int | None = None,
    cache: Path | str | None = None,
    noiseless: bool = False,
) -> ImageSet:
    """The default set: `diverse` lenses, three classes in equal parts.

    There are 10,000 to train on, and 5,000 with another seed to test on, or `n`. Raises
    ParameterError for another split, or no lens.
    """
    count, seed = share_of(split, TRAIN_IMAGES, TEST_IMAGES)
    n = count if n is None else n
    return simulated(diverse(pixels), n, seed, cache=cache, noiseless=noiseless)

"""Images to learn from: the cache, the simulated sets, the split, and the way into the network's
units. Files are read in `files`.

Every reader returns an `ImageSet` whose pixels, float32 in [0, 1], lie memory-mapped in a cache,
under a fingerprint of all that made them. A cache is written under a temporary name and renamed
when it is whole, so that a killed run leaves nothing that looks complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..lensing import simulate as sim
from ..lensing.survey import Survey, diverse
from ..storage import atomic, cached, fingerprint_of

TRAIN_SEED = 1
TEST_SEED = 2
TRAIN_IMAGES = 10_000
TEST_IMAGES = 5_000


@dataclass(frozen=True)
class ImageSet:
    """Images (n, channels, H, W), float32 in [0, 1], and what is known of them."""

    name: str
    pixels: np.ndarray
    fingerprint: str
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None  # (n,), index into classes
    truth: np.ndarray | None = None  # (n,), dtype simulate.PARAMS, for simulated lenses
    # 1: none, 2: mirror, 8: the flips and quarter turns; these leave the population unchanged
    symmetries: int = 1
    folder: Path | None = None
    unobserved: Survey | None = None  # the survey whose noise noiseless images lack

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, rows: np.ndarray, name: str) -> ImageSet:
        """The images of `rows`, read into memory, under a name and a fingerprint of their own."""
        rows = np.asarray(rows)
        part = {
            key: None if (value := getattr(self, key)) is None else value[rows]
            for key in ("labels", "truth")
        }
        fingerprint = fingerprint_of([self.fingerprint, rows.tolist()])
        return replace(
            self,
            name=f"{self.name}, {name}",
            pixels=self.pixels[rows],
            fingerprint=fingerprint,
            folder=None,
            **part,
        )

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Sorted indices (train, held-out), the same on every call; saved beside the cached pixels.

        Raises ValueError where one side would be empty.
        """
        n_held = round(len(self) * held_out)
        if not 0 < n_held < len(self):
            raise ParameterError(
                f"{self.name}: {len(self)} images can't be split with held_out={held_out}; use "
                "more images."
            )
        path = self.folder / f"split-{held_out:g}-{seed}.npz" if self.folder else None
        if path is not None and path.exists():
            try:
                with np.load(path, allow_pickle=False) as saved:
                    return saved["train"], saved["held_out"]
            except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
                raise DataError(
                    f"{path}: can't be read ({error}). Delete it; it is made again."
                ) from error
        order = np.random.default_rng(seed).permutation(len(self))
        train = np.sort(order[n_held:])
        held = np.sort(order[:n_held])
        if path is not None:
            # a read-only cache: the same split is drawn on every call
            with contextlib.suppress(OSError), atomic(path) as part:
                np.savez(part, train=train, held_out=held)
        return train, held


@dataclass(frozen=True)
class Stretch:
    """Affine map between pixel values and the network's units, (pixel - mean) / std * 0.5."""

    mean: float
    std: float

    @classmethod
    def of(cls, pixels: np.ndarray, most: int = 2_000) -> Stretch:
        """Mean and std of up to `most` evenly spaced images of `pixels` (n, ...).

        Raises DataError for constant images.
        """
        some = np.asarray(pixels[:: max(1, len(pixels) // most)], np.float64)
        if some.min() == some.max():
            raise DataError(
                "All pixels have the same value: there is nothing to learn. Check the files."
            )
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


def min_max(images: np.ndarray) -> np.ndarray:
    """Each image of (n, ...) scaled to span [0, 1], as DeepLense's files are.

    A constant image raises DataError.
    """
    axes = tuple(range(1, images.ndim))
    low = images.min(axes, keepdims=True)
    high = images.max(axes, keepdims=True)
    if (high == low).any():
        raise DataError(
            f"Image {int(np.flatnonzero(high == low)[0])} is constant and can't be scaled to "
            "[0, 1]."
        )
    return ((images - low) / (high - low)).astype(np.float32)


# ---- simulated lenses ----------------------------------------------------------------------------


def simulated(
    survey: Survey,
    n: int,
    seed: int,
    kind: str = "mixed",
    cache: Path | str | None = None,
    noiseless: bool = False,
) -> ImageSet:
    """`n` observed lenses, each scaled to span [0, 1], with their truth; simulated once, then read
    from the cache.

    With `noiseless`, the light as it arrives: point-spread function, but no noise.
    """
    description = {
        "simulator": sim.VERSION,
        "survey": asdict(survey),
        "n": n,
        "seed": seed,
        "kind": kind,
        "scale": "min_max",
    }
    params = sim.sample_params(n, kind, seed, survey)
    shape = (n, 1, survey.pixels, survey.pixels)
    if noiseless:  # only then, so that the fingerprints of observed sets stay as they were
        description["noiseless"] = True

    def batches() -> Iterator[np.ndarray]:
        return (
            min_max(batch)[:, None]
            for batch in sim.simulate(params, survey, seed, noiseless=noiseless)
        )

    name = f"{survey.name}-{survey.pixels}{'-noiseless' if noiseless else ''}"
    folder, fingerprint, pixels = cached(name, description, shape, batches, cache, truth=params)
    return ImageSet(
        name,
        pixels,
        fingerprint,
        sim.KINDS,
        params["label"],
        params,
        8 if survey.isotropic else 1,
        folder,
        unobserved=survey if noiseless else None,
    )


def lenses(
    split: str = "train",
    pixels: int = 64,
    n: int | None = None,
    cache: Path | str | None = None,
    noiseless: bool = False,
) -> ImageSet:
    """The default set:

    `diverse` lenses, three classes in equal parts; 10,000 to train on, 5,000 with another seed to
    test on.
    """
    if split not in ("train", "test"):
        raise ParameterError(f"split must be 'train' or 'test', not {split!r}.")
    count, seed = (TRAIN_IMAGES, TRAIN_SEED) if split == "train" else (TEST_IMAGES, TEST_SEED)
    return simulated(diverse(pixels), n or count, seed, cache=cache, noiseless=noiseless)

"""The card: a score and all that it depends on, and the images and features behind it.

What it says first is the excess of the distance over its floor: the distance itself and its ratio
to the floor depend on the number of images far more than the difference does.
FID is only called FID with the Inception weights of pytorch-fid; any other distance is named after
its extractor.
"""

from __future__ import annotations

import shlex
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.images import ImageSet
from ..errors import MetricError
from ..model import Model, Sampling
from ..runtime import best_device
from ..storage import fingerprint_of, write_arrays
from .distances import compared, frechet, kid
from .features import extractor
from .jackknife import excess_errors
from .statistics import Statistics, reference, statistics

ENOUGH = 2_048  # samples of a full protocol
LEAST = 8  # samples of a score with an error bar
FIRST_SEED = 1_000_000  # of all images that are generated to be scored


class SampleSizeWarning(UserWarning):
    """Fewer samples than the protocol asks for: the distance is biased upwards."""


@dataclass(frozen=True)
class Card:
    """A score and all that it depends on.

    `distance` and `floor` are squared Frechet distances, in the extractor's units squared; `floor`
    is that of as many other real images from the same reference. The errors are standard errors;
    `kid_std` is none, but the standard deviation over subsets.
    """

    name: str
    distance: float
    floor: float
    kid: float
    kid_std: float
    kid_floor: float
    n_generated: int
    n_reference: int
    n_floor: int
    reference: str
    resolution: str
    value_range: str
    data: str
    extractor_sha256: str
    sampling: str
    calls: int
    seed: int
    distance_error: float | None = None
    excess_error: float | None = None

    @property
    def excess(self) -> float:
        """The distance less its floor: 0 for images like the real ones; the sizes' bias cancels."""
        return self.distance - self.floor

    @property
    def ratio(self) -> float | None:
        """The distance over its floor; None below 2,048 images on any side, where it means little.

        Both are squared distances, and the floor falls with the number of images: the ratio
        belongs to that number alone.
        """
        if min(self.n_generated, self.n_reference, self.n_floor) < ENOUGH:
            return None
        return self.distance / self.floor

    def rows(self) -> list[tuple[str, str]]:
        """The card as (what, value) pairs, for a table."""
        counts = f"{self.n_generated} / {self.n_reference} / {self.n_floor}"
        excess = f"{self.excess:.3f}{_error(self.excess_error)}"
        other = "test" if self.reference.startswith("test set") else "held-out"
        ratio = [] if self.ratio is None else [("generated / floor", f"{self.ratio:.2f}")]
        return [
            (f"{self.name}, excess over the floor", excess),
            (f"{self.name}, generated", f"{self.distance:.3f}{_error(self.distance_error)}"),
            (f"{self.name}, floor (other {other} images)", f"{self.floor:.3f}"),
            *ratio,
            ("KID x 1000, generated", f"{self.kid:.3f} ± {self.kid_std:.3f}"),
            ("KID x 1000, floor", f"{self.kid_floor:.3f}"),
            ("images: generated / reference / floor", counts),
            ("reference", self.reference),
            ("resolution, values", f"{self.resolution}, {self.value_range}"),
            ("data", self.data),
            ("sampling", f"{self.sampling}, {self.calls} network calls, first seed {self.seed}"),
        ]

    def markdown(self) -> str:
        """The card as a Markdown table."""
        lines = [f"| {what} | {value} |" for what, value in self.rows()]
        return "\n".join(["| | |", "|---|---|", *lines])

    def as_dict(self) -> dict:
        """The card for a JSON file."""
        return asdict(self)


def _error(error: float | None) -> str:
    return "" if error is None else f" ± {error:.2g}"


def check_numbers(images: ImageSet, n: int, drawn: tuple[int, ...] | None = None) -> None:
    """Raise MetricError where `n` images a side are too few, or `images` for that many.

    It is raised, too, where `drawn`, the shape of the others, is not theirs. Call it before
    anything is generated: that takes long.
    """
    real = tuple(images.pixels.shape[1:])
    if drawn is not None and drawn != real:
        both = f"Images of {real} in {images.name}, and the model draws {drawn}"
        raise MetricError(f"{both}. Score it on images of the size that it learnt.")
    if n < LEAST:
        raise MetricError(f"{n} images a side: the error bar needs {LEAST} or more.")
    _check_real(images, n)


def _check_real(images: ImageSet, n: int) -> None:
    if len(images) < 2 * n:
        needs = f"{n} for the reference and {n} for the floor are needed"
        raise MetricError(f"{images.name} has {len(images)} images; {needs}. Lower n.")


def _warn_of_few(least: int, width: int) -> None:
    """Warn, on behalf of who called `card`, of `least` samples on a side with `width` features."""
    if least >= ENOUGH:
        return
    rank = ""
    if least <= width:
        rank = f" and fewer than the {width:,} features, so that no covariance has full rank"
    biased = f"below {ENOUGH:,} the distance and its floor are biased upwards"
    cure = "compare the excess over the floor, not the distance or its ratio to the floor"
    message = f"{least} samples{rank}: {biased}; {cure}."
    warnings.warn(message, SampleSizeWarning, stacklevel=3)


def _distances(generated: Statistics, first: Statistics, second: Statistics) -> dict[str, float]:
    """What a card has of numbers: `generated` and the floor `second`, both against `first`."""
    return {
        **compared(generated, first),
        "floor": frechet(second, first),
        "kid_floor": kid(second, first)[0],
        "n_generated": generated.n,
        "n_reference": first.n,
        "n_floor": second.n,
    }


def card(
    net: nn.Module,
    generated: Statistics,
    images: ImageSet,
    sampling: str,
    calls: int,
    seed: int,
    n: int = ENOUGH,
    cache: Path | None = None,
    split: str = "test set",
) -> Card:
    """Score `generated` against the first `n` of `images`; the floor is the next `n` of them.

    The model must not have seen these images; `split` is how the card names them. Warns
    (SampleSizeWarning) below 2,048 samples on any side. Raises MetricError where there are too few
    real images.
    """
    _check_real(images, n)
    _warn_of_few(min(n, generated.n), net.width)
    first = reference(net, images, range(n), cache)
    second = reference(net, images, range(n, 2 * n), cache)
    height, width = images.pixels.shape[-2:]
    return Card(
        name=net.name,
        **_distances(generated, first, second),
        reference=f"{split} of {images.name}, images 0 to {n - 1}",
        resolution=f"{width} x {height}",
        value_range="[0, 1] as uint8",
        data=f"{images.name}, fingerprint {images.fingerprint[:12]}",
        extractor_sha256=net.sha256,
        sampling=sampling,
        calls=calls,
        seed=seed,
    )


def card_with_error(
    net: nn.Module,
    generated: Statistics,
    images: ImageSet,
    sampling: Sampling | str,
    seed: int,
    n: int,
    split: str = "test set",
    calls: int = 0,
) -> Card:
    """The card of `generated`, as `card` makes it, with standard errors of distance and excess.

    These come from one jackknife over generated, reference and floor images: over those whose
    features are kept, 2,048 a side, and scaled to all (`jackknife.of_all_images`). `sampling` may
    say in words how the images were drawn, and `calls` then in how many.
    """
    calls = sampling.calls if isinstance(sampling, Sampling) else calls
    made = card(net, generated, images, str(sampling), calls, seed, n, split=split)
    real = (reference(net, images, rows) for rows in (range(n), range(n, 2 * n)))
    errors = excess_errors(generated, *real)
    return replace(made, distance_error=errors.distance, excess_error=errors.excess)


def score(
    model: Model,
    images: ImageSet,
    n: int | None = None,
    net: str | nn.Module = "efficientnet",
    sampling: Sampling | None = None,
    seed: int = FIRST_SEED,
    split: str = "test set",
) -> Card:
    """The card of a model: it draws `n` images, which are held against held-out `images`.

    A conditional model draws without labels. `n` is 2,048, or as many as half of the images are;
    `net` is the extractor or its name. The card has the standard errors of distance and excess.
    Raises MetricError where there are too few images.
    """
    n = min(ENOUGH, len(images) // 2) if n is None else n
    check_numbers(images, n, model.shape)
    net = extractor(net, best_device()) if isinstance(net, str) else net
    sampling = sampling or model.sampling
    batches = model.generate(range(seed, seed + n), sampling)
    found = statistics(net, batches, n, "images generated")
    return card_with_error(net, found, images, sampling, seed, n, split)


# ---- what was generated for a card, stored beside the weights ------------------------------------


def features_key(model: Model, net: nn.Module, sampling: Sampling) -> list:
    """What stored features must agree with: extractor, weights, sampling and seed."""
    return [net.sha256, model.spec["sha256"], str(sampling), FIRST_SEED]


def images_key(model: Model, sampling: Sampling) -> list:
    """What stored images must agree with: weights, sampling and seed."""
    return [model.spec["sha256"], str(sampling), FIRST_SEED]


def keep_features(folder: Path, found: Statistics, key: list) -> None:
    """Write the kept rows of generated images' features to `folder`/features.npz, in fp16."""
    rows = found.rows.astype(np.float16)
    write_arrays(folder / "features.npz", rows=rows, key=fingerprint_of(key))


def stored_features(folder: Path, key: list) -> Statistics:
    """Statistics of the features that `keep_features` wrote.

    Raises MetricError where they are missing, damaged, or of another key.
    """
    return Statistics.of(_stored(folder, "features.npz", key, "rows").astype(np.float32))


def keep_images(folder: Path, images: torch.Tensor, key: list) -> None:
    """Write generated images, uint8 (n, C, H, W), to `folder`/drawn.npz."""
    write_arrays(folder / "drawn.npz", pictures=images.numpy(), key=fingerprint_of(key))


def stored_images(folder: Path, key: list) -> torch.Tensor:
    """The images that `keep_images` wrote, in [0, 1], float32.

    Raises MetricError where they are missing, damaged, or of another key.
    """
    pixels = _stored(folder, "drawn.npz", key, "pictures")
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def _stored(folder: Path, name: str, key: list, array: str) -> np.ndarray:
    path = folder / name
    cure = f"Make them again: python -m lensdiff score {shlex.quote(str(folder))} --images 1024"
    try:
        with np.load(path, allow_pickle=False) as saved:
            values = saved[array]
            own = str(saved["key"])
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise MetricError(f"{path}: can't be read ({error}). {cure}") from error
    if own != fingerprint_of(key):
        other = "these are of other weights, another sampling or another extractor"
        raise MetricError(f"{path}: {other}. {cure}")
    return values

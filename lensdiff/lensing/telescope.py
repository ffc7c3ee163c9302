"""A telescope for noiseless images: the survey's own noise, for images of unknown brightness.

A model of noiseless lenses needs its diffusion for the light alone; the grain of each image is then
the simulation's, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from ..errors import DataError
from . import simulate
from .population import PARAMS, log_uniform
from .survey import Survey

QUANTILES = 101


def min_max(images: np.ndarray) -> np.ndarray:
    """Each image of (n, ...) scaled to span [0, 1], as DeepLense's files are.

    An image that is constant or not finite raises DataError.
    """
    axes = tuple(range(1, images.ndim))
    low = images.min(axes, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        span = images.max(axes, keepdims=True) - low
    good = np.isfinite(span) & (span > 0)
    if not good.all():
        index = int(np.flatnonzero(~good)[0])
        what = "constant" if span.flat[index] == 0 else "not finite"
        raise DataError(f"Image {index} is {what} and can't be scaled to [0, 1].")
    return ((images - low) / span).astype(np.float32)


@dataclass(frozen=True)
class Telescope:
    """A survey's noise, and the brightness of its images.

    `peak_cps` are evenly spaced quantiles of their brightest pixel, in counts/s. The peak is chosen
    apart from the image. That is nearly true of lenses, which keep the surface brightness of their
    source: the peak is the source's, blurred.
    """

    survey: Survey
    peak_cps: tuple[float, ...]

    @classmethod
    def of(cls, truth: np.ndarray, survey: Survey) -> Telescope:
        """The telescope of the simulated images `truth` (n,), dtype population.PARAMS."""
        parts = np.array_split(truth, max(1, len(truth) // 256))
        lights = (simulate.render(part, survey) for part in parts)
        peaks = np.concatenate([light.amax((1, 2)).numpy() for light in lights])
        quantiles = np.quantile(peaks, np.linspace(0, 1, QUANTILES))
        return cls(survey, tuple(round(float(q), 4) for q in quantiles))

    def observe(self, images: torch.Tensor, seeds: Iterable[int]) -> torch.Tensor:
        """What is recorded of noiseless images (n, 1, H, W): each scaled to span [0, 1], float32.

        Brightness, exposure and noise of an image depend on its seed alone. Raises DataError for an
        image without light.
        """
        observed = np.empty(images.shape, np.float32)
        for i, (image, seed) in enumerate(zip(images.clamp(0, 1), seeds, strict=True)):
            brightest = image.max()
            if not brightest > 0:
                reason = "no pixel of it is above 0"
                raise DataError(f"The image of seed {seed}: {reason}. Take another seed.")
            u = np.random.default_rng([seed, 3]).random(2)
            peak = np.interp(u[0], np.linspace(0, 1, len(self.peak_cps)), self.peak_cps)
            params = np.zeros(1, PARAMS)
            params["exposure_s"] = log_uniform(u[1], self.survey.exposure_s)
            observed[i] = simulate.observe(
                image * float(peak / brightest), params, self.survey, seed
            )
        return torch.from_numpy(min_max(observed))

    def as_dict(self) -> dict:
        """The telescope for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, about: dict) -> Telescope:
        """The telescope that `as_dict` described."""
        survey = {}
        for name, value in about["survey"].items():
            survey[name] = tuple(value) if isinstance(value, list) else value
        return cls(Survey(**survey), tuple(about["peak_cps"]))

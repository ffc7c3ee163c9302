"""Lens fits of simulated and generated lenses, and the noiseless images of a model they need."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.images import lenses
from ..errors import MetricError, ParameterError
from ..lensing import defects, fit, measure
from ..lensing.survey import Survey, diverse
from ..scores import light
from ..scores.card import FIRST_SEED
from ..storage import is_shipped, studies_folder
from .samplers import lens_model
from .table import Table

EXAMPLE = "python -m lensdiff study physics lens150 lens150-long -n 256"
FILE = "physics.json"
BIN = 3  # pixels a side averaged before a fit: a ninth of the time; else two, or none
TEST = "test lenses"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's own options."""
    parser.add_argument("models", nargs="+", help="shipped models of 150 pixels, or folders")
    parser.add_argument("-n", type=int, default=256, help="lenses of each that are fitted")
    parser.add_argument("--light", type=int, default=512, help="images kept where none are")
    parser.add_argument("--out", type=Path, default=studies_folder(), help="where results go")


def binned(images: np.ndarray) -> tuple[np.ndarray, Survey]:
    """Images (n, 1, H, W) of 7.5 arcsec, binned for a fit, and the survey with their rays.

    On a coarser grid of rays than the images' own even the true lens would leave a residual.
    """
    side = images.shape[-1]
    factor = next(number for number in (BIN, 2, 1) if side % number == 0)
    rays = factor * diverse(side).supersampling
    return measure.binned(images, factor), diverse(side // factor, supersampling=rays)


def fitted(images: np.ndarray, rounds: int = 15) -> fit.Fit:
    """The fit of an isothermal ellipsoid with shear to binned images of 7.5 arcsec."""
    return fit.fit(*binned(images), rounds=rounds)


def physics(images: np.ndarray, real: np.ndarray, fits: int) -> dict:
    """Measured properties, and shares with a defect, of generated and of test lenses.

    `scalars` has for each name of `measure.SCALARS` what `measure.compare` gives where both have
    eight values; `rms` are the residuals of a lens fit to the first `fits` images, in peaks.
    """
    scale = diverse(images.shape[-1]).pixel_arcsec
    mine = measure.measure(images, scale)
    theirs = measure.measure(real, scale)
    scalars = {}
    for name in measure.SCALARS:
        if min(np.isfinite(x[name]).sum() for x in (mine, theirs)) >= 8:
            scalars[name] = measure.compare(theirs[name], mine[name])
    broken = {}
    for side, those in (("generated", images), ("test", real)):
        rules = defects.defects(those, scale)
        broken[side] = int(np.any([rule for rule in rules.values()], 0).sum())
    rms = [round(float(x), 6) for x in fitted(images[:fits]).rms]
    return {"scalars": scalars, "with_a_defect": broken, "rms": rms}


def _row(images: np.ndarray) -> dict:
    found = fitted(images)
    return {
        "n": len(images),
        "rms": [round(float(x), 6) for x in found.rms],
        "einstein_radius_arcsec": [round(float(x), 4) for x in found.values[:, 0]],
    }


def run(args: argparse.Namespace) -> None:
    """Keep light where a model has no stored images, then fit what is missing."""
    table = Table(args.out / FILE, {"images": args.n, "bin": BIN})
    test = lenses("test", 150)
    jobs = [({"name": TEST, "model_sha256": ""}, np.asarray(test.pixels[: args.n]))]
    for name in args.models:
        model = lens_model(name, 150)
        try:
            images = light.stored(model, args.n)
        except MetricError:
            if model.telescope is None:
                raise  # what it draws is no light, and its cure stands in the error
            images = []
        shipped = is_shipped(model.folder) and len(images)  # which no trial replaces
        if len(images) < args.n and model.telescope is not None and not shipped:
            drawn = model.draw(max(args.light, args.n), FIRST_SEED, observed=False)
            print(light.keep_light(model, drawn))
            images = light.stored(model, args.n)
        if len(images) < args.n:
            more = f"draw more: python -m lensdiff score {name} --images {args.n}"
            cure = f"Lower -n, or {'measure a copy of its folder' if shipped else more}"
            raise ParameterError(f"{name}: {len(images)} of {args.n} images are stored. {cure}")
        jobs.append(({"name": name, "model_sha256": model.spec["sha256"]}, images))
    for key, images in jobs:
        table.row(key, lambda images=images: _row(images), _words)


def _words(row: dict[str, Sequence]) -> str:
    return f"median residual {np.median(row['rms']):.4f} peaks"

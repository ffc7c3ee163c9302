"""Draw images with a model, into a PNG grid, an .npy and a page."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import model as models
from ..errors import ParameterError
from ..model import Model
from ..notebook import html
from ..storage import atomic
from . import pages


def run(args: argparse.Namespace) -> None:
    """Draw what is asked for and say where it lies.

    Raises ParameterError for a classifier or an autoencoder.
    """
    model = models.load(args.model)
    if not isinstance(model, Model):
        raise ParameterError(f"{args.model} draws nothing: it is a classifier or an autoencoder.")
    label = wanted(args.label, model)
    sampling = model.sampling if args.steps is None else replace(model.sampling, steps=args.steps)
    images = model.draw(args.n, args.seed, label, args.guidance, sampling, not args.noiseless)
    out = args.out or Path(f"{model.folder.name}-seed{args.seed}")
    array = out.with_name(out.name + ".npy")
    picture = out.with_name(out.name + ".png")
    with atomic(array) as part:
        np.save(part, images.numpy(), allow_pickle=False)
    figure, caption = pages.pictured(images)
    with atomic(picture) as part:
        figure.savefig(part, dpi=100)
    about = {"model": args.model, "first seed": args.seed, "sampling": sampling}
    about |= {} if label is None else {"label": " ".join(args.label), "guidance": args.guidance}
    parts = [html.picture(figure, caption), html.table(about.items())]
    page = html.write(out.with_name(out.name + ".html"), out.name, parts)
    print(f"{array}: {tuple(images.shape)}, values in [0, 1]\n{picture}\n{page}")


def wanted(words: list[str] | None, model: Model) -> object:
    """A class by its name or number, or lens parameters, as the command line gives them.

    Raises ParameterError for several classes, or parameters that are no numbers.
    """
    if words is None:
        return None
    if model.denoiser.net.conditions:
        try:
            return [float(word) for word in words]
        except ValueError as error:
            cure = "Give seven numbers: Einstein radius, e1, e2, source x and y, shear 1 and 2"
            raise ParameterError(f"--label {' '.join(words)}: {error}. {cure}.") from error
    if len(words) > 1:
        raise ParameterError(f"--label {' '.join(words)}: draw one class at a time.")
    return int(words[0]) if words[0].isdigit() else words[0]

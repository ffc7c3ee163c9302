"""The drawings of the series' ideas, each written as a PNG with a palette."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from ..model import load
from ..networks.unet import UNet
from ..notebook import drawings
from ..notebook.pictures import few
from ..storage import atomic, root

EXAMPLE = "python -m lensdiff study drawings --out figures/drawings"
DPI = 100
COLOURS = 256


def unet() -> Figure:
    """The U-Net of the shipped 64 x 64 models."""
    return drawings.unet(UNet())


def two_stages() -> Figure:
    """Latent diffusion, with the shipped model of lenses."""
    return drawings.two_stages(load("latent150", device="cpu", precision="fp32"))


OWN = {"unet": unet, "two_stages": two_stages}  # those that draw a network or a model
DRAWINGS: dict[str, Callable[[], Figure]] = {
    name: OWN[name] if name in OWN else getattr(drawings, name)
    for name in (
        "project",
        "lens_geometry",
        "chain",
        "targets",
        "unet",
        "residual_blocks",
        "attention",
        "training_step",
        "several_processes",
        "sampler_step",
        "frechet_distance",
        "precision_recall",
        "guidance",
        "condition_symmetries",
        "two_stages",
        "dit",
        "one_protocol",
    )
}


def png(figure: Figure) -> bytes:
    """A figure as a PNG with `COLOURS` colours at most; beside its card it is transparent."""
    whole = io.BytesIO()
    figure.savefig(whole, dpi=DPI, format="png")
    image = Image.open(whole)
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    small = few(flat, COLOURS - 1)
    index = np.where(np.asarray(image)[..., 3] < 128, COLOURS - 1, np.asarray(small))
    colours = small.getpalette() + [255] * 3 * COLOURS
    small = Image.fromarray(index.astype(np.uint8), "P")
    small.putpalette(colours[: 3 * COLOURS])
    packed = io.BytesIO()
    small.save(packed, "PNG", transparency=COLOURS - 1)
    return packed.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    default = root() / "figures" / "drawings"
    parser.add_argument("--out", type=Path, default=default, help="folder (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Write every drawing into the folder, under its name."""
    for name, draw in DRAWINGS.items():
        figure = draw()
        path = args.out / f"{name}.png"
        with atomic(path) as part:
            part.write_bytes(png(figure))
        plt.close(figure)
        print(path)

"""Compute a checkpoint's card and store it beside the weights:

`python scripts/score.py data/checkpoints/lens64`.

The full protocol draws 2,048 images and takes ten minutes on two cores; the reference is the
simulated test set, or held-out files of your own. The features of the drawn images are stored too:
notebook 05 goes on from them. With --pictures some of the images are stored as well, and --legacy
adds the protocol of earlier reports, which is labelled as such: 2,500 images against the training
set, at 128 x 128.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import folders as files
from ..data import images as data
from ..diffusion.sampling import SAMPLERS, Sampling
from ..errors import in_one_sentence
from ..model import Checkpoint, best_device, load
from . import distances as metrics
from .card import FIRST_SEED, keep_features, keep_pictures
from .features import extractor

LEGACY_IMAGES = 2_500
LEGACY_SIDE = 128


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("-n", type=int, default=metrics.ENOUGH, help="images a side")
    parser.add_argument(
        "--extractor", choices=("efficientnet", "inception"), default="efficientnet"
    )
    parser.add_argument("--inception-weights", type=Path, help="pytorch-fid's weights file")
    parser.add_argument(
        "--data",
        type=Path,
        help="a DeepLense folder that the model never saw, of 2 n images or more",
    )
    parser.add_argument("--sampler", choices=SAMPLERS, help="in place of the model's own")
    parser.add_argument("--steps", type=int, help="in place of the model's own")
    parser.add_argument("--levels", help="in place of the model's own: karras, log, or a schedule")
    parser.add_argument("--low", type=float, help="lowest noise level, in place of the model's own")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the network; default: bf16 where the processor has it",
    )
    parser.add_argument(
        "--pictures", type=int, default=0, help="how many of the drawn images to store"
    )
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="also the protocol of earlier reports, into legacy.json",
    )
    parser.add_argument("--dry", action="store_true", help="print the card, don't store it")
    return parser.parse_args()


def draw(model: Checkpoint, sampling: Sampling, n: int) -> Tensor:
    """`n` images of a model, uint8 (n, C, H, W)."""
    with data.progress(total=n, what="drawing") as bar:
        made = []
        for batch in model.generate(range(FIRST_SEED, FIRST_SEED + n), sampling):
            made.append(metrics.to_uint8(batch))
            bar.update(len(batch))
    return torch.cat(made)


def resized(batches: Iterable[Tensor], side: int) -> Iterator[Tensor]:
    """Images in [0, 1] at another size: bilinear, with antialiasing."""
    for batch in batches:
        x = torch.tensor(batch, dtype=torch.float32) if not isinstance(batch, Tensor) else batch
        yield torch.nn.functional.interpolate(
            x, (side, side), mode="bilinear", antialias=True
        ).clamp(0, 1)


def legacy(net: nn.Module, pictures: Tensor, pixels: int) -> dict:
    """The distance as earlier reports have it: all images resized, against the first images of
    the training set, no floor.
    """
    train = data.lenses("train", pixels=pixels)
    real = metrics.statistics(
        net,
        resized(metrics.batches_of(train, range(LEGACY_IMAGES)), LEGACY_SIDE),
        LEGACY_IMAGES,
        "training images",
    )
    mine = metrics.statistics(
        net,
        resized((x / 255 for x in pictures.split(64)), LEGACY_SIDE),
        len(pictures),
        "drawn images",
    )
    return {
        "name": net.name,
        "distance": metrics.frechet(mine, real),
        "n_generated": mine.n,
        "n_reference": real.n,
        "reference": f"training set of {train.name}, images 0 to {LEGACY_IMAGES - 1}",
        "resolution": f"{LEGACY_SIDE} x {LEGACY_SIDE}",
    }


@in_one_sentence
def main() -> int:
    """Read the command line, draw, score, and write card.json; returns the exit status."""
    args = options()
    model = load(args.folder, precision=args.precision)
    changes = {
        name: value
        for name in ("sampler", "steps", "levels", "low")
        if (value := getattr(args, name)) is not None
    }
    sampling = replace(model.sampling, **changes)
    images = (
        files.deeplense(args.data) if args.data else data.lenses("test", pixels=model.shape[-1])
    )
    net = extractor(args.extractor, best_device(), args.inception_weights)
    pictures = draw(
        model, sampling, max(args.n, args.pictures, LEGACY_IMAGES if args.legacy else 0)
    )
    found = metrics.statistics(
        net, (x / 255 for x in pictures[: args.n].split(64)), args.n, "drawn images"
    )
    card = metrics.card(net, found, images, str(sampling), sampling.calls, FIRST_SEED, args.n)
    card = replace(
        card,
        distance_error=metrics.frechet_error(found, metrics.reference(net, images, range(args.n))),
    )
    old = legacy(net, pictures[:LEGACY_IMAGES], model.shape[-1]) if args.legacy else None
    print(card.markdown())
    if not args.dry:
        keep_features(
            args.folder, found, [net.sha256, model.spec["sha256"], str(sampling), FIRST_SEED]
        )
        if args.pictures:
            keep_pictures(
                args.folder,
                pictures[: args.pictures],
                [model.spec["sha256"], str(sampling), FIRST_SEED],
            )
        if old:
            data.write_json(
                args.folder / "legacy.json", {**old, "model_sha256": model.spec["sha256"]}
            )
        data.write_json(args.folder / "card.json", card.as_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main())

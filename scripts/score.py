"""Compute a checkpoint's card and store it beside the weights: `python scripts/score.py data/checkpoints/lens64`.

The full protocol draws 2,048 images and takes ten minutes on two cores; the reference is the simulated test set, or held-out files of
your own. The features of the drawn images are stored too: notebook 05 goes on from them.
"""
from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from lensdiff import data, files, metrics
from lensdiff.checkpoint import best_device, load
from lensdiff.errors import LensdiffError
from lensdiff.extractors import extractor
from lensdiff.sample import SAMPLERS

FIRST_SEED = 1_000_000


def main() -> int:
    """Read the command line, draw, score, and write card.json; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("-n", type=int, default=metrics.ENOUGH, help="images a side")
    parser.add_argument("--extractor", choices=("efficientnet", "inception"), default="efficientnet")
    parser.add_argument("--inception-weights", type=Path, help="pytorch-fid's weights file")
    parser.add_argument("--data", type=Path, help="a DeepLense folder that the model never saw, of 2 n images or more")
    parser.add_argument("--sampler", choices=SAMPLERS, help="in place of the model's own")
    parser.add_argument("--steps", type=int, help="in place of the model's own")
    parser.add_argument("--levels", help="in place of the model's own: karras, log, or a schedule")
    parser.add_argument("--low", type=float, help="lowest noise level, in place of the model's own")
    parser.add_argument("--dry", action="store_true", help="print the card, don't store it")
    args = parser.parse_args()
    try:
        model = load(args.folder)
        changes = {name: value for name in ("sampler", "steps", "levels", "low") if (value := getattr(args, name)) is not None}
        sampling = replace(model.sampling, **changes)
        images = files.deeplense(args.data) if args.data else data.lenses("test", pixels=model.shape[-1])
        net = extractor(args.extractor, best_device(), args.inception_weights)
        drawn = model.generate(range(FIRST_SEED, FIRST_SEED + args.n), sampling)
        found = metrics.statistics(net, drawn, args.n, "drawn images")
        card = metrics.card(net, found, images, str(sampling), sampling.calls, FIRST_SEED, args.n)
        card = replace(card, distance_error=metrics.frechet_error(found, metrics.reference(net, images, range(args.n))))
    except (LensdiffError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(card.markdown())
    if not args.dry:
        metrics.keep_features(args.folder, found, [net.sha256, model.spec["sha256"], str(sampling), FIRST_SEED])
        part = args.folder / "card.json.part"
        part.write_text(json.dumps(card.as_dict(), indent=1) + "\n")
        part.replace(args.folder / "card.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())

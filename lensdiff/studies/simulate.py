"""Simulate the lenses of a recipe ahead of its training, in parts that independent jobs share."""

from __future__ import annotations

import argparse

from ..errors import ParameterError
from .shards import Shard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("recipe", help="lens64, lens150, ...: whose lenses")
    parser.add_argument("-n", type=int, required=True, help="lenses in all, in parts of 10,000")
    what = "the K-th of M jobs, each of which simulates its share of the parts"
    parser.add_argument("--shard", metavar="K/M", default="1/1", help=what)


def run(args: argparse.Namespace) -> None:
    """Simulate what is not in the cache yet, and say where each part lies.

    Raises ParameterError for a recipe of other images, or for more jobs than parts.
    """
    from ..data.images import TRAIN_SEED
    from ..data.parts import parts_of, simulated_part
    from ..lensing.survey import diverse
    from ..training import recipes

    recipe = recipes.every().get(args.recipe)
    if getattr(recipe, "data", "") != "lenses" or isinstance(recipe, recipes.ClassifierRecipe):
        cure = "Take lens64, lens150 or another of a diffusion model of lenses"
        raise ParameterError(f"{args.recipe!r} is no recipe that simulates lenses. {cure}.")
    if args.n < 1:
        raise ParameterError(f"-n {args.n}: give a number of lenses.")
    parts = parts_of(args.n)
    what = f"parts of at most {len(parts[0]):,} lenses"
    for number in Shard.parse(args.shard).rows(len(parts), what):
        rows = parts[number]
        given = {"seed": TRAIN_SEED, "noiseless": recipe.noiseless}
        made = simulated_part(diverse(recipe.pixels), rows, **given)
        span = f"lenses {rows.start:,} to {rows.stop - 1:,}"
        print(f"part {number + 1} of {len(parts)}: {span}, {made.folder}", flush=True)
    print(f"Train on all: python -m lensdiff train {recipe.name} DIR --images {args.n}")

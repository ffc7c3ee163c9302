"""Train a recipe on the default lenses, or on your own folder:

`python scripts/train.py lens64 my-model --state my-state`.

With --state the run can be killed at any moment and called again; it goes on where it last saved.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from ..data import folders as files
from ..data import images as data
from ..errors import in_one_sentence
from ..model import load
from . import recipes
from .diffusion import Step


@in_one_sentence
def main() -> int:
    """Read the command line, train, and say how it goes; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", choices=recipes.RECIPES)
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--state", type=Path, help="folder for the full state, to resume from")
    parser.add_argument(
        "--data", type=Path, help="a DeepLense folder (default: 10,000 simulated lenses)"
    )
    parser.add_argument(
        "--symmetries", type=int, choices=(1, 2, 8), default=1, help="of the population in --data"
    )
    parser.add_argument(
        "--unbalanced",
        action="store_true",
        help="classes in --data may have unequal numbers of images",
    )
    parser.add_argument("--steps", type=int, help="updates, in place of the recipe's budget")
    parser.add_argument("--minutes", type=float, help="minutes, in place of the recipe's budget")
    parser.add_argument("--batch", type=int, help="images an update, in place of the recipe's")
    parser.add_argument("--lr", type=float, help="learning rate, in place of the recipe's")
    parser.add_argument(
        "--width",
        type=int,
        help="channels of the first level, in place of the recipe's; the others in proportion",
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="a checkpoint of the same network to go on from: a new stage, with a fresh optimiser",
    )
    args = parser.parse_args()

    def tell(step: Step) -> None:
        if step.number % 50 == 0 or step.held_out is not None:
            held = "" if step.held_out is None else f", held out {step.held_out:.4f}"
            print(
                f"{time.strftime('%H:%M')}  update {step.number:,}, {step.images_seen:,} "
                f"images: loss {step.loss:.4f}{held}",
                flush=True,
            )

    recipe = recipes.RECIPES[args.recipe]
    if args.steps is not None or args.minutes is not None:
        recipe = recipes.scaled(recipe, steps=args.steps, minutes=args.minutes)
    recipe = recipes.scaled(
        recipe,
        **{name: value for name in ("batch", "lr") if (value := getattr(args, name)) is not None},
    )
    recipe = recipes.widened(recipe, args.width) if args.width is not None else recipe
    start = load(args.start) if args.start else None
    if args.data and recipe.noiseless:
        print("Files hold no noiseless images: the recipe learns them as they are, noise and all.")
        recipe = replace(recipe, noiseless=False)
    own = files.deeplense(args.data, args.symmetries) if args.data else None
    images = own or data.lenses("train", recipe.pixels, noiseless=recipe.noiseless)
    model = recipes.fit(
        recipe, images, args.folder, args.state, tell, start=start, unbalanced=args.unbalanced
    )
    judge = (
        "asked"
        if model.spec["network"]["arguments"].keys() & {"classes", "conditions"}
        else "score"
    )
    print(
        f"{model.folder}: {model.spec['images_seen']:,} images seen. Score it with: python "
        f"scripts/{judge}.py {model.folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

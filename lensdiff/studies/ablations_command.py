"""Train, score and store runs of the comparisons in notebook 03:

`python scripts/compare.py basis eps x0 v`, or `all`.

A run takes three to eight minutes on two cores. It can be killed at any moment and called again;
runs that are stored already are left as they are (--again repeats them).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..data import images as data
from ..errors import in_one_sentence
from ..model import best_device
from ..notebook.helpers import home
from ..scores.features import extractor
from . import ablations as compare


@in_one_sentence
def main() -> int:
    """Read the command line, then train, score and store each run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "names",
        nargs="+",
        choices=[*compare.RUNS, "all"],
        metavar="NAME",
        help=f"all, or of {', '.join(compare.RUNS)}",
    )
    parser.add_argument(
        "--folder", type=Path, default=home() / "data" / "comparisons", help="where the results go"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=home() / "runs" / "comparisons",
        help="where checkpoints and states go",
    )
    parser.add_argument("--again", action="store_true", help="repeat runs that are stored already")
    args = parser.parse_args()
    net = extractor("efficientnet", best_device())
    images = data.lenses("train")
    test = data.lenses("test")
    for name in compare.RUNS if "all" in args.names else args.names:
        if (args.folder / f"{name}.json").exists() and not args.again:
            print(f"{name}: stored already", flush=True)
            continue
        run = compare.RUNS[name]
        start = time.monotonic()
        averages = compare.Averages(run.emas)
        # averages are not in the state: such a run starts again
        state = None if run.emas else args.work / f"{name}-state"
        model = compare.train_run(run, images, args.work / name, state, averages)
        trained = time.monotonic() - start
        cards = compare.score_run(run, model, net, test)
        for decay, other in averages.of(model).items():
            cards += [{**card, "ema": decay} for card in compare.score_run(run, other, net, test)]
        compare.store(args.folder, run, model, cards, compare.pictures(run, model))
        scores = ", ".join(f"{card['distance']:.2f} ({card['calls']} calls)" for card in cards)
        print(
            f"{time.strftime('%H:%M')}  {name}: trained in {trained:.0f} s, {cards[0]['name']} "
            f"{scores}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

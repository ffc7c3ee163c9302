"""Every sampler at several numbers of network calls, scored:

`python scripts/sweep.py data/checkpoints/lens64` writes its samplers.json.

All draw the same seeds through the model's own range of levels. With 256 images a setting it takes
half an hour on two cores; settings that are done are kept in samplers.part.json, so that the run
can be killed and called again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from ..data import images as data
from ..diffusion.sampling import Sampling
from ..errors import in_one_sentence
from ..model import Checkpoint, best_device, load
from ..notebook import helpers as nb
from ..scores import distances as metrics
from ..scores.card import FIRST_SEED
from ..scores.features import extractor

WAYS = (("ddim", 0.0), ("ddim", 1.0), ("heun", 0.0), ("dpmpp_2m", 0.0))
CALLS = (5, 10, 20, 50)


def settings(base: Sampling, calls: tuple[int, ...] = CALLS, most: int = 250) -> list[Sampling]:
    """Every sampler at every number of calls (Heun at the odd number below an even one), and
    DDIM at `most`.
    """
    steps = {"heun": lambda n: (n + 1) // 2}
    chosen = [
        replace(base, sampler=s, eta=eta, steps=steps.get(s, int)(n))
        for s, eta in WAYS
        for n in calls
    ]
    return [*chosen, *([replace(base, sampler="ddim", eta=0.0, steps=most)] if most else [])]


def row(
    model: Checkpoint,
    sampling: Sampling,
    net: torch.nn.Module,
    reference: metrics.Statistics,
    n: int,
) -> dict:
    """Draw and score one setting."""
    found = metrics.statistics(
        net, model.generate(range(FIRST_SEED, FIRST_SEED + n), sampling), n, str(sampling)
    )
    near, spread = metrics.kid(found, reference)
    about = {
        "sampler": sampling.sampler,
        "eta": sampling.eta,
        "steps": sampling.steps,
        "calls": sampling.calls,
    }
    about["precision"] = model.denoiser.precision
    return about | {"distance": metrics.frechet(found, reference), "kid": near, "kid_std": spread}


def timed(model: Checkpoint, sampling: Sampling, what: str, samples: int = 16) -> dict:
    """Seconds that `samples` images take."""
    start = time.perf_counter()
    list(model.generate(range(samples), sampling))
    return {
        "what": what,
        "samples": samples,
        "calls": sampling.calls,
        "seconds": round(time.perf_counter() - start, 2),
    }


def sweep(
    folder: Path,
    n: int,
    calls: tuple[int, ...] = CALLS,
    most: int = 250,
    own: bool = False,
    thousand: bool = True,
) -> dict:
    """All settings that `folder`/samplers.part.json does not hold yet, then the timing; returns
    what is written.
    """
    model = load(folder)
    net = extractor("efficientnet", best_device())
    test = data.lenses("test", pixels=model.shape[-1])
    part = folder / "samplers.part.json"
    first, second = (metrics.reference(net, test, rows) for rows in (range(n), range(n, 2 * n)))
    base = model.sampling
    about = {
        "model_sha256": model.spec["sha256"],
        "extractor": net.name,
        "n": n,
        "floor": metrics.frechet(second, first),
    }
    about |= {
        "kid_floor": metrics.kid(second, first)[0],
        "reference": f"test set of {test.name}, images 0 to {n - 1}",
    }
    about |= {
        "levels": f"{base.levels} levels {base.high:g} to {base.low:g}, clamped",
        "first_seed": FIRST_SEED,
        "machine": nb.machine(),
    }
    rows = json.loads(part.read_text())["rows"] if part.exists() else []
    if part.exists() and json.loads(part.read_text())["model_sha256"] != about["model_sha256"]:
        rows = []  # begun with other weights
    done = {(r["sampler"], r["eta"], r["steps"], r["precision"]) for r in rows}
    shipped = [(judge, base) for judge in (model, load(folder, precision="fp32"))] if own else []
    for judged, sampling in [*((model, one) for one in settings(base, calls, most)), *shipped]:
        if (sampling.sampler, sampling.eta, sampling.steps, judged.denoiser.precision) not in done:
            rows.append(row(judged, sampling, net, first, n))
            done.add((sampling.sampler, sampling.eta, sampling.steps, judged.denoiser.precision))
            data.write_json(part, {**about, "rows": rows})
            print(f"{time.strftime('%H:%M')}  {sampling}: {rows[-1]['distance']:.2f}", flush=True)
    ddpm = Sampling("ddim", 1_000, "linear", eta=1.0, clamp=base.clamp)
    karras = Sampling("heun", 18, "karras", low=0.01, clamp=base.clamp)
    timing = [timed(model, karras, "Heun, 18 steps")]
    timing = [timed(model, ddpm, "ancestral, 1,000 steps"), *timing] if thousand else timing
    return {**about, "rows": rows, "timing": timing}


@in_one_sentence
def main() -> int:
    """Read the command line, sweep, and write samplers.json beside the weights; returns the exit
    status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("-n", type=int, default=256, help="images a setting")
    parser.add_argument(
        "--calls", type=int, nargs="+", default=CALLS, help="network calls of each sampler"
    )
    parser.add_argument(
        "--most", type=int, default=250, help="steps of the longest run, DDIM; 0: none"
    )
    parser.add_argument(
        "--own",
        action="store_true",
        help="also the model's own sampling, in its own precision and in fp32",
    )
    parser.add_argument(
        "--no-thousand",
        dest="thousand",
        action="store_false",
        help="don't time 1,000 steps: it takes minutes",
    )
    args = parser.parse_args()
    found = sweep(args.folder, args.n, tuple(args.calls), args.most, args.own, args.thousand)
    data.write_json(args.folder / "samplers.json", found)
    (args.folder / "samplers.part.json").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

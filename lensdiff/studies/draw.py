"""Draw images with a model, into a PNG grid, an .npy and a page."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import model as models
from ..diffusion.process import SCHEDULES
from ..errors import ParameterError
from ..model import Model, Sampling
from ..notebook import html
from ..storage import atomic, fingerprint_of
from ..storage.places import check_writable
from . import pages, shards
from .shards import Shard


def run(args: argparse.Namespace) -> None:
    """Draw what is asked for, or a part of it, and say where it lies.

    Raises ParameterError for a classifier or an autoencoder, or guidance without a label.
    """
    shard = shards.own(args.shard)  # before the model takes its device
    model = models.load(args.model)
    if not isinstance(model, Model):
        raise ParameterError(f"{args.model} draws nothing: it is a classifier or an autoencoder.")
    if args.noiseless and model.telescope is None:
        reason = "it has no telescope that could be left out: it draws its lenses as it learnt them"
        raise ParameterError(f"{args.model}: {reason}. Leave --noiseless out.")
    if args.label is None and args.guidance != 1:
        raise ParameterError("--guidance leads to what --label asks for: give one, or leave it out")
    label = wanted(args.label, model)
    sampling = asked_for(model, args)
    out = _named(args.out or Path(f"{model.folder.resolve().name}-seed{args.seed}"))
    array = out.with_name(out.name + ".npy")
    check_writable(array.parent)
    about = {"model": args.model, "first seed": args.seed, "sampling": sampling}
    about |= {} if label is None else {"label": " ".join(args.label), "guidance": args.guidance}

    def drawn(rows: range) -> np.ndarray:
        first = args.seed + rows.start
        given = (label, args.guidance, sampling, not args.noiseless)
        return model.draw(len(rows), first, *given).numpy()

    if shard is None:
        images = drawn(range(args.n))
        shards.record(array).unlink(missing_ok=True)  # of an earlier job in parts
        shards.save_array(array, images)
    else:
        job = {**{name: str(value) for name, value in about.items()}, "n": args.n}
        job |= {"model": model.spec["sha256"], "noiseless": args.noiseless}
        job |= {"precision": model.denoiser.precision}
        images = part_of(array, Shard.parse(shard), drawn, args.n, fingerprint_of(job))
        if images is None:
            return
    show(out, images, about)
    print(f"{array}: {images.shape}, values in [0, 1]")


def _named(out: Path) -> Path:
    if out.name in ("", ".."):
        raise ParameterError(f"--out {out}: give a name, of which the files get theirs.")
    return out


def asked_for(model: Model, args: argparse.Namespace) -> Sampling:
    """The model's own sampling, with what `args` have of another.

    Raises ParameterError for a level that its kind of levels does not take.
    """
    names = ("sampler", "steps", "levels", "high", "low")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if changes.get("levels", model.sampling.levels) != model.sampling.levels:
        changes |= {"T": Sampling.T, "rescale": Sampling.rescale}  # those of its own schedule
    chosen = replace(model.sampling, **changes)
    unused = {"flow": ("low",), **dict.fromkeys(SCHEDULES, ("high", "low"))}
    for name in unused.get(chosen.levels, ()):
        if name in changes:
            reason = f"--{name} does not apply to the levels of {chosen.levels}"
            raise ParameterError(f"{reason}. Leave it out, or take --levels log.")
    return chosen


def part_of(
    array: Path, shard: Shard, drawn: Callable[[range], np.ndarray], n: int, job: str
) -> np.ndarray | None:
    """Draw and keep a part; the whole, memory-mapped, where it was the last, else None."""
    rows = shard.rows(n)
    if shards.is_of(array, job):
        print(f"{array}: this job's parts are joined already.")
        shards.clear(array, shard, job)
        seen = array.with_suffix(".png").exists()  # else who joined them was killed before
        return None if seen else np.load(array, mmap_mode="r", allow_pickle=False)
    shards.write_part(array, shard, lambda: drawn(rows), shards.save_array, job)
    with shards.joining(array, shard, job) as last:
        if not last:
            return None
        shards.join_arrays(array, shard, job)
        shards.clear(array, shard, job)
    return np.load(array, mmap_mode="r", allow_pickle=False)


def show(out: Path, images: np.ndarray, about: dict) -> None:
    """Write a picture of the first images, and a page with it, and say where they lie."""
    picture = out.with_name(out.name + ".png")
    figure, caption = pages.pictured(images)
    with atomic(picture) as part:
        figure.savefig(part, dpi=100)
    parts = [html.picture(figure, caption), html.table(about.items())]
    page = html.write(out.with_name(out.name + ".html"), out.name, parts)
    print(f"{picture}\n{page}")


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

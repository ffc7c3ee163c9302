"""Score a model by what its spec.json says it is.

An unconditional model gets a card, a conditional one a table of what was requested against what it
drew, a classifier a report.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import model as models
from ..data import folders
from ..data.colour import colour_lenses
from ..data.images import ImageSet, lenses
from ..errors import ParameterError
from ..model import Model
from ..networks import classifier
from ..networks.classifier import LensClassifier
from ..networks.latent import Latent
from ..runtime import best_device, processes
from ..scores.card import (
    ENOUGH,
    FIRST_SEED,
    LEAST,
    Card,
    card_with_error,
    check_numbers,
    features_key,
    images_key,
    keep_images,
)
from ..scores.distances import frechet
from ..scores.features import extractor
from ..scores.statistics import Statistics, batches_of, statistics, to_uint8
from ..storage import fingerprint_of, write_json
from . import conditional, score_parts, shards
from .draw import asked_for
from .samplers import OWN, SCORED, learnt_by
from .score_classifier import of_classifier
from .shards import Shard
from .train import ENOUGH_FILES

LEGACY_IMAGES = 2_500
LEGACY_SIDE = 128
KEPT_IMAGES = 1_024  # of shipped models, which fewer would replace
STANDARD = {"extractor": "efficientnet", "each": 192, "most": 300}  # of options; else not given
# the options of `score` that a kind of model takes
FOR_CARDS = ("n", "extractor", "inception_weights", "data", "sampler", "steps", "levels", "high")
FOR_CARDS += ("low", "precision", "images", "legacy", "dry", "shard")
TAKES = {
    "an unconditional model": FOR_CARDS,
    "a model of classes": ("scales", "judge", "each", "most"),
    "a model of lens parameters": ("scales", "n"),
    "a classifier": ("recipe", "data", "dry"),
}


def run(args: argparse.Namespace) -> bool:
    """Find out what there is to score, score it, print it, and store it beside the weights.

    Returns whether that is done; after a part of it others may be to come. Raises ParameterError
    for what has no score, and for options that exclude each other.
    """
    args.shard = shards.own(args.shard)  # before the model takes its device
    model = models.load(args.model, precision=args.precision)
    if isinstance(model, Latent):
        cure = "Score a model of its latents; its spec.json has its own error"
        raise ParameterError(f"{args.model} is an autoencoder, which draws nothing. {cure}.")
    _refuse_others(model, args)
    _refuse_own_files(model, args)
    if isinstance(model, LensClassifier):
        print(of_classifier(models.find(args.model), args.recipe, args.data, args.dry))
    elif dict(model.spec.get("recipe") or {}).get("data") == "digits":
        cure = "Let a judge-digits classifier count them: networks.classifier.predict"
        raise ParameterError(f"{args.model} draws digits, and scores are of lenses. {cure}.")
    elif model.denoiser.net.conditions:
        n = 200 if args.n is None else args.n
        score_parts.refuse_a_trial(model.folder, False, args.scales or n != 200, parts=True)
        found = conditional.of_parameters(model, args.scales or [1.0, 2.0], n)
        print(f"{model.folder / conditional.FILE}: {len(found['scales'])} scales of guidance")
    elif model.denoiser.net.classes:
        judge = models.find(args.judge or "judge64")
        scales = args.scales or [1.0, 1.5, 2.5, 4.0]
        others = args.scales or judge.name != "judge64" or (args.each, args.most) != (192, 300)
        score_parts.refuse_a_trial(model.folder, False, others, parts=True)
        found = conditional.of_classes(model, judge, scales, args.each, args.most)
        print(f"{model.folder / conditional.FILE}: {len(found['scales'])} scales of guidance")
    else:
        made = of_unconditional(model, args)
        if made is None:
            return False
        print(made.markdown())
    return True


def _refuse_others(model: object, args: argparse.Namespace) -> None:
    """Raise ParameterError for options that don't apply to such a model, or exclude each other."""
    judge = isinstance(model, LensClassifier)
    grey = judge or model.shape[0] == 1
    labelled = not judge and bool(model.denoiser.net.classes or model.denoiser.net.conditions)
    cure = "Start one process." if processes() > 1 else "Leave --shard out."
    if args.shard and (judge or labelled):
        raise ParameterError(f"Only the card of an unconditional model is made in parts. {cure}")
    if args.recipe and args.data:
        raise ParameterError("--recipe names simulated test images, --data others: give one.")
    if args.legacy and (args.data or not grey):
        raise ParameterError("--legacy is for a model of simulated grey lenses: no --data with it.")
    if args.shard and (args.dry or args.images or args.legacy):
        raise ParameterError(f"Parts of a card take no --dry, --images or --legacy. {cure}")
    if args.inception_weights and args.extractor != "inception":
        raise ParameterError("--inception-weights is of --extractor inception: give that, too.")
    kind = _kind(model)
    for name in dict.fromkeys(name for takes in TAKES.values() for name in takes):
        given = getattr(args, name) not in (None, False, 0, STANDARD.get(name))
        if given and name not in TAKES[kind]:
            option = "-n" if name == "n" else f"--{name.replace('_', '-')}"
            raise ParameterError(f"{option} does not apply to {kind}. Leave it out.")


def _kind(model: object) -> str:
    """What a model is, as `TAKES` calls it."""
    if isinstance(model, LensClassifier):
        return "a classifier"
    net = model.denoiser.net
    if net.conditions:
        return "a model of lens parameters"
    return "a model of classes" if net.classes else "an unconditional model"


def _refuse_own_files(model: object, args: argparse.Namespace) -> None:
    """Raise ParameterError for a model of other images that would be held against test lenses."""
    judge = isinstance(model, LensClassifier)
    spec = classifier.read(models.find(args.model))[1] if judge else model.spec
    learnt = learnt_by(spec)
    known = judge or not learnt or learnt.startswith(SCORED)
    if args.data or (known and not learnt.startswith(OWN)):
        return
    if not learnt.startswith(OWN):
        cure = "Score it in Python, with images that it did not learn: ld.score(model, images)."
        raise ParameterError(f"{args.model} learnt {learnt}, not the test lenses' kind. {cure}")
    cure = "Give the same folder by --data: what was held out of it is taken."
    if judge:
        cure = "Give --data a folder of Common Test I, whose test images it gets."
    elif model.denoiser.net.classes:
        cure = "Notebook 06 scores the classes of files: give it data_folder."
    raise ParameterError(f"{args.model} learnt {learnt}, not simulated lenses. {cure}")


# ---- an unconditional model ----------------------------------------------------------------------


def real_images(model: Model, data: Path | None) -> tuple[ImageSet, str]:
    """Real images that a model never saw, and what a card calls them.

    Test lenses, or those of the folder `data`; where it learnt from that folder, the tenth of it
    that was held out. Raises ParameterError where these are too few for a score.
    """
    side = model.shape[-1]
    if data is None and learnt_by(model.spec).startswith("colour-"):
        return colour_lenses("test", side), "test set"
    if data is None:
        return lenses("test", side), "test set"
    real = folders.pictures(data, side) if model.shape[0] == 3 else folders.folder(data)
    unseen = real.unseen(model.spec)
    if len(unseen) < 2 * LEAST:
        needs = f"a score takes {2 * LEAST} images that the model never saw, or more"
        cure = f"Give others by --data, or let it learn {ENOUGH_FILES} files or more."
        raise ParameterError(f"{unseen.name}: {needs}. {cure}")
    return unseen, "test set" if unseen is real else "held-out part"


def of_unconditional(model: Model, args: argparse.Namespace) -> Card | None:
    """Draw, score, and keep card, features and images beside the weights, unless `args.dry`.

    None after a part of it, where others are to come.
    """
    sampling = asked_for(model, args)
    real, split = real_images(model, args.data)
    n = min(ENOUGH, len(real) // 2) if args.n is None else args.n
    check_numbers(real, n, model.shape)
    other = sampling != model.sampling or n != ENOUGH or args.extractor != "efficientnet"
    other = other or args.precision or 0 < args.images < KEPT_IMAGES
    score_parts.refuse_a_trial(model.folder, args.dry, args.data or other, bool(args.shard))
    net = extractor(args.extractor, best_device(), args.inception_weights)
    shard = Shard.parse(args.shard) if args.shard else None
    rows = shard.rows(n) if shard else range(max(n, args.images, LEGACY_IMAGES * args.legacy))
    key = features_key(model, net, sampling)

    def drawn() -> Tensor:
        return to_uint8(model.draw(len(rows), FIRST_SEED + rows.start, sampling=sampling))

    def found_in(pictures: Tensor) -> Statistics:
        return statistics(net, (x / 255 for x in pictures[:n].split(64)), what="features")

    def made_of(found: Statistics) -> Card:
        return card_with_error(net, found, real, sampling, FIRST_SEED, n, split)

    if shard:
        own = fingerprint_of([key, n, model.denoiser.precision])
        parts = (lambda: found_in(drawn()), key, made_of, own, real.fingerprint)
        return score_parts.of_parts(model.folder, shard, *parts)
    pictures = drawn()
    found = found_in(pictures)
    made = made_of(found)
    if not args.dry:
        if args.images:
            keep_images(model.folder, pictures[: args.images], images_key(model, sampling))
        score_parts.keep(model.folder, found, key, made)
        if args.legacy:
            write_json(model.folder / "legacy.json", legacy(net, pictures, model))
    return made


def resized(batches: Iterable[Tensor], side: int) -> Iterator[Tensor]:
    """Images in [0, 1] at another size: bilinear, with antialiasing."""
    for batch in batches:
        x = torch.as_tensor(batch, dtype=torch.float32)
        small = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        yield small.clamp(0, 1)


def legacy(net: nn.Module, pictures: Tensor, model: Model) -> dict:
    """The distance as earlier reports have it: resized, against training images, no floor."""
    train = lenses("train", model.shape[-1])
    real = resized(batches_of(train, range(LEGACY_IMAGES)), LEGACY_SIDE)
    real = statistics(net, real, LEGACY_IMAGES, "training images")
    pictures = pictures[:LEGACY_IMAGES]
    mine = resized((x / 255 for x in pictures.split(64)), LEGACY_SIDE)
    mine = statistics(net, mine, len(pictures), "generated images")
    return {
        "name": net.name,
        "distance": frechet(mine, real),
        "n_generated": mine.n,
        "n_reference": real.n,
        "reference": f"training set of {train.name}, images 0 to {LEGACY_IMAGES - 1}",
        "resolution": f"{LEGACY_SIDE} x {LEGACY_SIDE}",
        "model_sha256": model.spec["sha256"],
    }

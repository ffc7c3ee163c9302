"""A card in parts: statistics of ranges of seeds, kept beside the weights and added up by the last.

Every part is of one job: model, sampling, extractor, number of images and precision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import ParameterError
from ..scores.card import Card, keep_features
from ..scores.statistics import Statistics
from ..storage import is_shipped, read_json, write_json
from ..storage.places import check_writable
from . import shards
from .shards import Shard

PARTIAL = "statistics.npz"  # its parts; the whole is not stored


def refuse_a_trial(folder: Path, dry: bool, trial: object, parts: bool = False) -> None:
    """Raise ParameterError where what is shipped would be replaced by a score of another kind.

    And StorageError where nothing could be kept beside the weights, before anything is drawn.
    """
    if not dry:
        check_writable(folder)
    if trial and not dry and is_shipped(folder):
        reason = "this is a shipped model, and what is stored of it has its own images and sampling"
        cure = "Score a copy of the folder" if parts else "Add --dry, or score a copy of the folder"
        raise ParameterError(f"{folder}: {reason}. {cure}.")


def keep(folder: Path, found: Statistics, key: list, made: Card) -> None:
    """Store features and card beside the weights, and forget of which job in parts they were."""
    shards.record(folder / PARTIAL).unlink(missing_ok=True)
    keep_features(folder, found, key)
    write_json(folder / "card.json", made.as_dict())


def of_parts(
    folder: Path,
    shard: Shard,
    find: Callable[[], Statistics],
    key: list,
    made_of: Callable[[Statistics], Card],
    own: str,
    against: str,
) -> Card | None:
    """Keep the statistics of a part of the job `own`; the card of all where it was the last.

    What job the card is of, and `against` which images, stays beside it, so that a part that is run
    once more draws nothing.
    """
    whole = folder / PARTIAL
    card = folder / "card.json"
    done = shards.record(whole)
    known = {"job": own, "against": against}
    if card.exists() and done.exists() and read_json(done, shards.CURE) == known:
        print(f"{card}: this job's parts are joined already.")
        shards.clear(whole, shard, own)
        return None
    shards.write_part(whole, shard, find, lambda place, found: found.save(place, own), own)
    with shards.joining(whole, shard, own) as last:
        if not last:
            return None
        joined = shards.join_statistics(whole, shard, own)
        made = made_of(joined)
        keep(folder, joined, key, made)
        write_json(done, known)
        shards.clear(whole, shard, own)
    return made

"""The state of a training run on disk, so that a killed run goes on exactly.

It holds the weights, their average, and the optimizer.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.images import ImageSet
from ..errors import CheckpointError
from ..runtime import is_main, progress
from ..storage import FORMAT, read_folder, read_json, write_folder, write_json

SAVE_AFTER_S = 180.0  # of training since the last state; what a killed run loses at most
STATE = "state.json"
TENSORS = "state.safetensors"
ROWS = 10_000  # whose numbers are text at once
SAVED = re.compile("[0-9]{8}|[1-9][0-9]{8,}")  # the update, as `save_state` names a folder
KILLED = re.compile(rf"({SAVED.pattern})\.[0-9]+(-[0-9a-f]{{8}})?\.part")


def unshaped(net: nn.Module) -> dict[str, object]:
    """What a network was made with that its weights' shapes don't show, where it is no default."""
    known = inspect.signature(type(net)).parameters
    found = {}
    for name in ("kl", "commitment", "decay", "rare"):
        if name in known and getattr(net, name) != known[name].default:
            found[name] = getattr(net, name)
    dropped = sorted({module.p for module in net.modules() if isinstance(module, nn.Dropout)})
    if getattr(net, "planes", None) is not None:
        found["spins"] = list(net.planes.spins)
    return found | ({"dropout": dropped} if any(dropped) else {})


def run_identity(about: list, rows: np.ndarray, *more: object) -> str:
    """What a state must agree with: SHA-256 of a JSON-able description with the images' numbers.

    It is `fingerprint_of([*about, list of rows, *more])`, without a list of a million numbers.
    """
    found = hashlib.sha256(f"{json.dumps(about, sort_keys=True)[:-1]}, [".encode())
    for start in range(0, len(rows), ROWS):
        part = ", ".join(str(int(row)) for row in rows[start : start + ROWS])
        found.update((", " * (start > 0) + part).encode())
    rest = [json.dumps(one, sort_keys=True) for one in more]
    found.update(f"{', '.join([']', *rest])}]".encode())
    return found.hexdigest()


def turned(images: ImageSet, augment: bool) -> dict:
    """The symmetries by which files are augmented, which their fingerprint does not hold."""
    known = images.truth is not None or not augment or images.symmetries == 1
    return {} if known else {"symmetries": images.symmetries}


def save_state(
    folder: Path | str,
    identity: str,
    update: int,
    seconds: float,
    parts: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    extra: dict,
) -> None:
    """Write the state after `update` updates into `folder`/<update>, then drop the older ones."""
    folder = Path(folder)
    tensors = {}
    for part, module in parts.items():
        tensors |= {f"{part}/{name}": tensor for name, tensor in module.state_dict().items()}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        moments = optimizer.state[parameter]
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    spec = {"format": FORMAT, "identity": identity, "update": update, "seconds": seconds, **extra}
    write_folder(folder / f"{update:08d}", tensors, TENSORS, STATE, spec)
    # what a killed save has left
    killed = [path for path in folder.glob("*.part") if KILLED.fullmatch(path.name)]
    for left in (*_states(folder)[:-1], *killed):
        shutil.rmtree(left, ignore_errors=True)


def _states(folder: Path) -> list[Path]:
    """The saved states, the newest last; other folders are not ours, one named by a date, say."""
    found = [path for path in folder.glob("[0-9]*") if SAVED.fullmatch(path.name)]
    files = (STATE, TENSORS)
    states = [path for path in found if any((path / name).exists() for name in files)]
    return sorted(states, key=lambda path: int(path.name))


def load_state(
    folder: Path | str,
    identity: str,
    parts: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> dict:
    """Read the newest state under `folder` into modules and optimizer.

    Returns its description, or {} where there is none. Raises CheckpointError for a damaged state,
    or one of another run (configuration, network, data or start differ).
    """
    states = _states(Path(folder))
    if not states:
        return {}
    newest = states[-1]
    cure = f"Delete {newest} and start again."
    tensors, spec = read_folder(newest, TENSORS, STATE, cure)
    if spec["identity"] != identity:
        parts = "configuration, network, precision, data or start differ"
        cure = "Give `state` another folder, or LENSDIFF_PRECISION the value that it had"
        raise CheckpointError(f"{newest}: this state is of another run ({parts}). {cure}.")
    for part, module in parts.items():
        own = {name: one for name, one in tensors.items() if name.startswith(f"{part}/")}
        module.load_state_dict({name.removeprefix(f"{part}/"): one for name, one in own.items()})
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if f"optimizer/{index}/step" not in tensors:
            continue  # it never had a gradient: the network does not use it
        moments = optimizer.state[parameter]
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.zeros_like(parameter).copy_(tensors[f"optimizer/{index}/{name}"])
        moments["step"] = tensors[f"optimizer/{index}/step"].to(parameter.device)
    return spec


class Curve:
    """Training and held-out loss as they fall, kept beside the state, so that a resume has them.

    `rows` have the update, images_seen, the mean loss since the row before (after a kill, since the
    saved state), and what was held out.
    Raises CheckpointError where the file beside the state is damaged.
    """

    def __init__(self, state: Path | str | None):
        self.path = Path(state) / "curve.json" if state else None
        self.rows = []
        if self.path and self.path.exists():
            cure = f"Delete {self.path}: the run goes on without its earlier rows."
            self.rows = read_json(self.path, cure, CheckpointError)
        self.begun = False
        self.losses: list[float] = []

    def watch(self, steps: Iterable, total: int | None, what: str) -> Iterator:
        """Take in and yield each `loop.Step`, with a progress bar that a resumed run continues."""
        steps = iter(steps)
        first = next(steps)
        with progress(total=total, what=what, done=first.number - 1) as bar:
            for step in itertools.chain([first], steps):
                self.add(step)
                bar.update(1)
                yield step

    def add(self, step: object) -> None:
        """Take in a `loop.Step`; rows beyond the first one are of a run that did not resume."""
        if not self.begun:
            self.rows = [one for one in self.rows if one["update"] <= step.number]
            self.begun = True
        self.losses.append(step.loss)
        if step.held_out is None:
            return
        row = {
            "update": step.number,
            "images_seen": step.images_seen,
            "loss": sum(self.losses) / len(self.losses),
            "held_out": step.held_out,
            **step.scores,
            "seconds": round(step.seconds, 1),
        }
        earlier = [one for one in self.rows if one["update"] < step.number]
        self.rows = [*earlier, row]
        self.losses = []
        if self.path and is_main():
            write_json(self.path, self.rows)


def stages_of(start: dict | None, *names: str) -> list[dict]:
    """The stages before this one, from the spec of its start: `names` of each, the oldest first."""
    if start is None:
        return []
    kept = ("data", "images_seen", "seconds", "machine", "sha256", "curve", *names)
    return [*start.get("stages", []), {name: start.get(name) for name in kept}]

"""Where results are to go: seen before anything is computed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import StorageError
from . import ROOM, own_name


def check_writable(folder: Path) -> None:
    """Raises StorageError where `folder`, or the nearest that is there above it, takes no file.

    Nothing stays behind. A folder that is not there is not made.
    """
    place = Path(os.path.realpath(folder))  # a link is written where it leads
    # Path.exists would raise where a folder can't be entered
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    probe = place / f".{own_name()}.part"
    try:
        probe.touch()
    except OSError as error:
        raise StorageError(f"{folder}: can't be written ({error}). {ROOM}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)

"""Where results are to go: seen before anything is computed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import StorageError
from . import ROOM, own_name


def check_writable(folder: Path) -> None:
    """Raises StorageError where `folder`, or the nearest that is there above it, takes no file.

    Nothing stays behind. A folder that is not there is not made.
    """
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".{own_name()}.part"
    try:
        probe.touch()
    except OSError as error:
        raise StorageError(f"{folder}: can't be written ({error}). {ROOM}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)

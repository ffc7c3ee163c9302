"""What the tests that call make and git keep from them: settings of whoever called the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# what make gives to what it calls, words of its command line among it
MAKES_OWN = ("MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "MAKELEVEL", "MAKEOVERRIDES")
MAKES_OWN += ("TORCH", "ARGS", "PROFILE", "PYTHON")


def git(*words: str, folder: Path) -> bytes:
    """What git says of a command in `folder`, as on a new machine.

    A hook has GIT_DIR set, and a user's configuration may sign each commit.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "safe.directory=*"]
    line = ["git", *who, *words]
    return subprocess.run(line, cwd=folder, env=own, check=True, capture_output=True).stdout

"""docs/deeplense.md: its commands are commands, and what it links to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lensdiff.__main__ import parser_for
from lensdiff.storage import read_json, shipped
from lensdiff.training import recipes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "deeplense.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
LINES = [line.strip() for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_each_command_is_one(line: str) -> None:
    words = shlex.split(line)[3:]
    given = parser_for(words).parse_args(words)
    if given.command == "train":
        assert given.recipe in recipes.every() and given.state and given.data
    if given.command == "score":
        own = given.data and Path(given.model).name in ("own150", "ownnet")
        assert own or given.dry  # of a shipped model nothing is replaced


def test_its_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if not target.startswith("http"):
            assert (ROOT / "docs" / target.partition("#")[0]).exists(), target
    for path in re.findall(r"`(data/\S+\.json)`", PAGE):
        assert (ROOT / path).exists(), path


def test_the_minutes_are_those_of_the_model() -> None:
    (minutes,) = re.findall(r"took (\d+) minutes more", PAGE)
    assert round(read_json(shipped("lens150") / "spec.json", "")["seconds"] / 60) == int(minutes)

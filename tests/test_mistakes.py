"""Mistakes that people make: each is made here, and says what docs/mistakes.md has it say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import toys_mistakes_models  # noqa: F401 (it enters its mistakes)
from toys_mistakes import MISTAKES, ROOT

ROW = re.compile(r"^\| (?!what happened|---)(.+?) \| (.+?) \| (.*?) ?\|$", re.M)
PAGE = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
ROWS = {title: (says, helps) for title, says, helps in ROW.findall(PAGE)}


def plain(text: str) -> str:
    """Words that are wrapped, or set as code, are the same words."""
    return " ".join(text.replace("`", "").split())


def missing(says: str, text: str) -> list[str]:
    """Parts of a sentence, between its dots, that a text does not have in this order."""
    place = 0
    found = []
    for part in filter(None, map(str.strip, plain(says).split("..."))):
        if part in text[place:]:
            place = text.index(part, place) + len(part)
        else:
            found.append(part)
    return found


def test_every_mistake_stands_on_the_page_and_there_are_many() -> None:
    assert list(MISTAKES) and set(ROWS) == set(MISTAKES)
    assert len(ROWS) >= 50


@pytest.mark.parametrize("title", MISTAKES)
def test_it_says_what_the_page_says(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    for name in ("LENSDIFF_DEVICE", "LENSDIFF_PRECISION", "LENSDIFF_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    text = plain(MISTAKES[title](tmp_path))
    assert "Traceback" not in text
    assert missing(ROWS[title][0], text) == [], text


@pytest.mark.parametrize("says", ["b ... a", "a c", "a ... c", "c"])
def test_what_is_not_said_or_in_another_order_is_found(says: str) -> None:
    assert missing(says, "a b") and not missing("a ... b", "a x b")

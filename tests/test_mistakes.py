"""Mistakes that people make: each is made here, and says what docs/mistakes.md has it say."""

from __future__ import annotations

import os
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
    place = 0
    for part in filter(None, map(str.strip, plain(ROWS[title][0]).split("..."))):
        assert part in text[place:], f"{title}: {part!r} is not in {text!r}"
        place = text.index(part, place) + len(part)


def test_no_sentence_is_missed() -> None:
    """The check above sees a part that is not said, and parts in another order."""
    assert [title for title, (says, _) in ROWS.items() if not re.search(r"\w{4}", says)] == []
    assert os.path.exists(ROOT / "docs" / "mistakes.md")

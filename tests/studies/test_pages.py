"""Pages of models and images: one file, nothing from elsewhere, and what the folder says."""

from __future__ import annotations

import json
import re

import matplotlib.pyplot as plt
import pytest
import torch

from lensdiff.notebook import html
from lensdiff.storage import is_working_copy, root, shipped
from lensdiff.studies import pages

NAMES = sorted(path.name for path in shipped("").iterdir() if path.is_dir())


def page_of(name: str, images: torch.Tensor | None) -> str:
    folder = shipped(name)
    spec = json.loads((folder / "spec.json").read_text())
    return "\n".join(pages.parts(folder, spec, images))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_has_a_page(name):
    shown = page_of(name, None)
    spec = json.loads((shipped(name) / "spec.json").read_text())
    assert spec["sha256"] in shown and f"{spec['images_seen']:,}" in shown
    assert shown.count("<figure>") == 1  # its curve
    assert "None" not in shown and "http" not in shown
    card = shipped(name) / "card.json"
    if card.exists():
        found = json.loads(card.read_text())
        assert f"{found['distance'] - found['floor']:.3f}" in shown
    if (shipped(name) / "conditional.json").exists():
        assert "What was asked for, and what it drew" in shown
        assert shown.count("guidance ") >= 2
    report = shipped(name) / "report.json"
    if report.exists():
        assert f"{100 * json.loads(report.read_text())['all']['accuracy']:.1f} %" in shown


def test_images_come_first():
    shown = page_of("lens64", torch.rand(16, 1, 64, 64))
    assert shown.count("<figure>") == 2
    assert shown.index("16 images that it drew") < shown.index("Its score")


def test_a_shipped_models_page_does_not_lie_among_the_weights(tmp_path):
    assert is_working_copy()
    assert pages.place(shipped("lens64")) == root() / "runs" / "lens64.html"
    assert pages.place(tmp_path / "mine") == tmp_path / "mine" / "page.html"


def test_words_are_escaped_and_the_page_is_one_file(tmp_path):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    parts = [html.heading("a < b & c"), html.table([("<b>", 1)]), html.picture(figure, 'a "line"')]
    path = html.write(tmp_path / "new" / "page.html", "x > y", parts)
    written = path.read_text(encoding="utf-8")
    assert "a &lt; b &amp; c" in written and "&lt;b&gt;" in written and "x &gt; y" in written
    assert 'alt="a &quot;line&quot;"' in written
    assert not re.findall(r"(?:src|href)=\"(?!data:)", written)
    assert figure.number not in plt.get_fignums()

"""The site as a reader has it: from a folder, without a network, on any screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from toys_browser import PATIENCE_MS, Watched

import lensdiff as ld
from lensdiff.diffusion.sampling import noise
from lensdiff.storage import root

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
MATH = "[...document.querySelectorAll('mjx-container')].length"
BROKEN = "document.querySelectorAll('mjx-container [data-mjx-error], mjx-merror').length"
RAW = """() => {
  const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest('pre, code, script, mjx-container')) continue;
    if (/\\\\\\(|\\$[^$\\s][^$]*\\$/.test(node.data)) found.push(node.data.slice(0, 80));
  }
  return found;
}"""
PICTURES = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    if shutil.which("npm") is None and not os.environ.get("CI"):
        pytest.skip("the page that draws needs npm: install Node.js")
    out = tmp_path_factory.mktemp("site") / "html"
    line = [sys.executable, str(root() / "docs" / "build.py"), str(out)]
    made = subprocess.run(line, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def offline(chromium) -> Iterator[object]:
    context = chromium.new_context(offline=True)
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


def pages(site: Path) -> list[Path]:
    made = {"search.html", "genindex.html", "py-modindex.html"}  # of Sphinx's own
    found = [
        path
        for path in sorted(site.rglob("*.html"))
        if not {"_modules", "_static"} & set(path.parts)
    ]
    kept = [path for path in found if path.name not in made]
    assert {"index", "api", "draw", "mistakes", "00_quickstart"} <= {path.stem for path in kept}
    return kept


def test_every_page_opens_with_its_equations_and_pictures(site: Path, offline) -> None:
    page = offline.new_page()
    watched = Watched(page)
    equations = 0
    for path in pages(site):
        page.goto(path.as_uri())
        page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
        page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : 0")
        assert page.evaluate(RAW) == [], path.name
        assert page.evaluate(BROKEN) == 0, path.name
        assert page.evaluate(PICTURES) == [], path.name
        equations += page.evaluate(MATH)
    assert watched.errors == []
    assert equations > 500
    page.close()


def test_no_page_is_wider_than_a_phone(site: Path, offline) -> None:
    page = offline.new_page()
    page.set_viewport_size(PHONE)
    for path in pages(site):
        page.goto(path.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], path.name
    page.close()


def test_its_links_lead_somewhere(site: Path, offline) -> None:
    page = offline.new_page()
    missing = []
    for path in pages(site):
        page.goto(path.as_uri())
        links = page.evaluate("[...document.querySelectorAll('main a[href]')].map(a => a.href)")
        for link in links:
            file, _, place = link.removeprefix("file://").partition("#")
            if not link.startswith("file:"):
                continue
            if not Path(file).exists() or (place and not has_place(Path(file), place)):
                missing.append(f"{path.name}: {link}")
    assert not missing
    page.close()


def has_place(path: Path, place: str) -> bool:
    """Whether a page has what an address ends with after #."""
    text = path.read_text(encoding="utf-8")
    return f'id="{place}"' in text or f'id="{unquote(place)}"' in text


def test_each_notebook_opens_in_colab_and_can_be_downloaded(site: Path, offline) -> None:
    page = offline.new_page()
    for path in sorted((site / "notebooks").glob("*.html")):
        page.goto(path.as_uri())
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
        colab = [link for link in links if "colab.research.google.com" in link]
        assert colab and all(f"{path.stem}.ipynb" in link for link in colab)
        assert any(link.endswith(f"{path.stem}.ipynb") and "file:" in link for link in links)
    page.close()


def test_the_search_finds_a_word(site: Path, offline) -> None:
    page = offline.new_page()
    page.goto((site / "search.html").as_uri() + "?q=jackknife")
    page.wait_for_selector("#search-results li")
    assert "05_fid" in page.inner_html("#search-results")
    page.close()


def test_dark_is_dark(site: Path, chromium) -> None:
    context = chromium.new_context(offline=True, color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto((site / "notebooks" / "01_forward_process.html").as_uri())
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(x) for x in colour.strip("rgb()").split(",")[:3]) < 150
    context.close()


def test_the_page_draws_what_pytorch_draws(site: Path, offline) -> None:
    """From the same noise, in as many calls, to a hundredth."""
    model = ld.load("lens64", device="cpu", precision="fp32")
    expected = model.draw(2, seed=3).numpy()
    page = offline.new_page()
    watched = Watched(page)
    page.goto((site / "draw.html").as_uri())
    page.wait_for_function("document.getElementById('draw-state').textContent.startsWith('Drawn')")
    for image, eps in zip(expected, noise((3, 4), model.shape), strict=True):
        given = [float(x) for x in eps.flatten()]
        call = (
            f"async eps => [...await lensdiff.draw(Float32Array.from(eps), {model.sampling.steps})]"
        )
        found = np.array(page.evaluate(call, given)).reshape(image.shape)
        assert np.abs(found - image).max() < 1e-2
        assert torch.from_numpy(found).std() > 0.02
    assert watched.errors == []
    page.close()


def test_its_sliders_draw_another_lens(site: Path, offline) -> None:
    page = offline.new_page()
    page.goto((site / "draw.html").as_uri())
    drawn = "document.getElementById('draw-state').textContent.startsWith('Drawn')"
    picture = "document.getElementById('draw-guess').toDataURL()"
    page.wait_for_function(drawn)
    seen = [page.evaluate(picture)]
    for name, calls in (("seed", 28), ("calls", 29)):
        page.focus(f"#draw-{name}")
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            f"{drawn} && document.getElementById('draw-state').textContent"
            f".startsWith('Drawn in {calls} ')"
        )
        seen.append(page.evaluate(picture))
    assert len(set(seen)) == 3
    page.close()


def test_of_two_pictures_the_last_is_shown(site: Path, offline) -> None:
    page = offline.new_page()
    page.goto((site / "draw.html").as_uri())
    state = "document.getElementById('draw-state').textContent"
    page.wait_for_function(f"{state}.startsWith('Drawn')")
    choose = "n => { const e = document.getElementById('draw-calls'); e.value = n;"
    choose += " e.dispatchEvent(new Event('change')); }"
    page.evaluate(choose, 60)
    page.wait_for_function(f"/^Call [0-9]+ of 60/.test({state})")  # any: a slow look misses one
    page.evaluate(choose, 3)
    page.wait_for_function(f"{state}.startsWith('Drawn in 3 ')")
    page.wait_for_timeout(1_000)
    assert page.evaluate(state).startswith("Drawn in 3 ")
    page.close()

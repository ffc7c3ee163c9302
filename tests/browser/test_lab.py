"""JupyterLab as a student has it: every slider and list of the series is moved, by its keys.

Each page is a copy that ends with its sliders, at profile smoke.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Error, Page
from toys_browser import PATIENCE_MS, Watched

from lensdiff.storage import root

pytestmark = pytest.mark.browser
SETTINGS = "lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
WHOLE = "notebooks/whole.ipynb"  # the first page lies as it does in the repository
TOOLBAR = ".jp-NotebookPanel-toolbar"
SHOWN = """async () => {
  const image = document.querySelector('.widget-image');
  const data = await (await fetch(image.src)).arrayBuffer();
  const digest = await crypto.subtle.digest('SHA-256', data);
  return [...new Uint8Array(digest)].map(b => b.toString(16).padStart(2, '0')).join('');
}"""
BADGE = "[...document.images].some(i => i.src.includes('colab.svg') && i.naturalWidth > 0)"
# JupyterLab asks for a picture by its relative address before it has found the true one: `BADGE`
# says whether it comes
HARMLESS = re.compile(
    r"favicon|/api/(?:contents|settings|kernels)|Failed to load resource|/lab/.*figures/|"
    r"ResizeObserver|jupyterlab/api/translations|ERR_INTERNET|extensions"
)


def with_sliders() -> list[Path]:
    """The pages that have sliders."""
    found = []
    for path in sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if "plots.explorer(" in path.read_text(encoding="utf-8"):
            found.append(path)
    return found


def up_to_sliders(path: Path) -> nbformat.NotebookNode:
    """The page up to its sliders, without outputs."""
    page = nbformat.read(path, as_version=4)
    last = max(i for i, cell in enumerate(page.cells) if "plots.explorer(" in cell.source)
    page.cells = [cell for cell in page.cells[: last + 1] if cell.cell_type == "code"]
    for cell in page.cells:
        cell.outputs = []
        cell.execution_count = None
    return page


def without_numbers() -> nbformat.NotebookNode:
    """The first page as it is committed, but for the numbers that say that a cell has run."""
    page = nbformat.read(root() / "notebooks" / "00_quickstart.ipynb", as_version=4)
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
    return page


@pytest.fixture(scope="module", params=["JupyterLab Light", "JupyterLab Dark"])
def theme(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, theme: str) -> Iterator[str]:
    """The address of a server whose folder holds the copies."""
    home = tmp_path_factory.mktemp("lab")
    for path in with_sliders():
        nbformat.write(up_to_sliders(path), home / path.name)
    (home / "notebooks").mkdir()
    shutil.copytree(root() / "figures", home / "figures")
    nbformat.write(without_numbers(), home / WHOLE)
    settings = home / "config" / SETTINGS
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"theme": theme}))
    extra = {"JUPYTERLAB_SETTINGS_DIR": str(home / "config" / "lab" / "user-settings")}
    extra |= {"LENSDIFF_PROFILE": "smoke", "LENSDIFF_QUIET": "1", "LENSDIFF_RUNS": str(home / "r")}
    line = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    line += [f"--ServerApp.root_dir={home}", "--IdentityProvider.token=lens"]
    with open(home / "log.txt", "w") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log, env=os.environ | extra, cwd=home)
    try:
        yield address(home / "log.txt")
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def address(log: Path, seconds: float = 120) -> str:
    """Where the server answers: it says its address before it listens."""
    end = time.monotonic() + seconds
    refused = "it has not said where it listens"
    while time.monotonic() < end:
        found = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+", log.read_text())
        if found:
            try:
                with urllib.request.urlopen(f"{found[0]}/api?token=lens", timeout=10):
                    return found[0]
            except OSError as error:
                refused = error
        time.sleep(0.3)
    raise AssertionError(f"{refused}\n{log.read_text()[-2000:]}")


def opened(page: Page, base: str, name: str) -> None:
    """Open a notebook."""
    page.goto(f"{base}/lab/tree/{name}?token=lens&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")


def run_all(page: Page, name: str) -> None:
    """Run all cells of an open notebook, by the menu; again where the menu was not ready."""
    page.wait_for_selector(f"{TOOLBAR} [data-status='idle']", timeout=60_000)
    # a committed page has numbers from its last run
    numbered = page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[\d"))
    running = page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[\*"))
    before = numbered.count()
    busy = page.locator(f"{TOOLBAR} [data-status='busy']")
    for _ in range(3):
        choose_kernel(page)
        page.click("#jp-MainMenu .lm-MenuBar-item:has-text('Run')")
        page.click(".lm-Menu-item:has-text('Run All Cells') >> nth=0")
        end = time.monotonic() + 8
        while time.monotonic() < end:
            # cells out of sight have no prompt
            if busy.count() or running.count() or numbered.count() > before:
                return
            page.wait_for_timeout(200)
    raise AssertionError(f"{name} does not run")


def until_idle(page: Page, seconds: float = 240) -> None:
    """Wait until the kernel is idle for three seconds: between two cells it is so for less."""
    idle = page.locator(f"{TOOLBAR} [data-status='idle']")
    end = time.monotonic() + seconds
    rest = 0
    while rest < 6:
        assert time.monotonic() < end, "the notebook still runs"
        page.wait_for_timeout(500)
        rest = rest + 1 if idle.count() else 0


def choose_kernel(page: Page) -> None:
    """Take the kernel that JupyterLab offers, where it asks before it has read the page's own."""
    dialog = page.locator("dialog.jp-Dialog")
    if dialog.count():
        assert "kernel" in dialog.inner_text().lower(), dialog.inner_text()
        dialog.locator(".jp-mod-accept").click()
        page.wait_for_selector(f"{TOOLBAR} [data-status='idle']", timeout=60_000)


def test_the_first_page_runs_whole(chromium, lab: str, theme: str) -> None:
    """As it is committed, from its first cell to its last."""
    if "Dark" in theme:
        pytest.skip("once is enough")
    context = chromium.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watched = Watched(page)
    opened(page, lab, WHOLE)
    page.wait_for_function(BADGE, timeout=60_000)
    run_all(page, WHOLE)
    until_idle(page)
    code = code_of_saved(page, lab)
    assert all(cell["execution_count"] for cell in code)
    assert not errors_of(code)
    assert not [e for e in watched.errors if not HARMLESS.search(e)]
    context.close()


def code_of_saved(page: Page, base: str, seconds: float = 120) -> list[dict]:
    """The code cells as JupyterLab saves them, once each has run or one has an error.

    A save takes long where other tests compute, and a kernel rests longer than `until_idle` waits.
    """
    end = time.monotonic() + seconds
    while True:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1_500)
        with urllib.request.urlopen(f"{base}/api/contents/{WHOLE}?token=lens") as answer:
            cells = json.loads(answer.read())["content"]["cells"]
        code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
        done = all(cell["execution_count"] for cell in code) or errors_of(code)
        if done or time.monotonic() > end:
            return code


def errors_of(code: list[dict]) -> list[dict]:
    """The outputs that are errors."""
    return [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]


def test_every_slider_makes_another_picture(chromium, lab: str, theme: str) -> None:
    assert len(with_sliders()) >= 7
    chosen = with_sliders() if "Light" in theme else with_sliders()[:1]
    for path in chosen:
        try:
            try_page(chromium, lab, theme, path)
        except Error:  # JupyterLab itself was not ready: a dialog in the way, a slow start
            try_page(chromium, lab, theme, path)


def try_page(chromium, lab: str, theme: str, path: Path) -> None:
    """Run a page in a context of its own (JupyterLab opens again what was open), and move it."""
    context = chromium.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watched = Watched(page)
    opened(page, lab, path.name)
    run_all(page, path.name)
    page.wait_for_selector(".widget-image", timeout=90_000)
    dark = page.evaluate("document.body.dataset.jpThemeLight") == "false"
    assert dark == ("Dark" in theme)
    moved = move_each(page)
    source = up_to_sliders(path).cells[-1].source
    assert moved == len(re.findall(r"(?:Slider|Dropdown)\(", source)) or "seeds" in source
    assert moved >= 1 and not [e for e in watched.errors if not HARMLESS.search(e)]
    assert page.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0
    context.close()


def move_each(page: Page) -> int:
    """Move every slider by its keys, and every list; each makes another picture."""
    controls = page.locator(".widget-slider .noUi-handle, .widget-dropdown select")
    for k in range(controls.count()):
        before = page.evaluate(SHOWN)
        control = controls.nth(k)
        if control.evaluate("e => e.tagName") == "SELECT":
            control.select_option(index=1)
            assert changed(page, before), f"list {k} changes nothing"
            continue
        control.focus()
        for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
            if changed(page, before):
                break
        else:
            raise AssertionError(f"slider {k} moves nothing")
    return controls.count()


def changed(page: Page, before: str, seconds: float = 12) -> bool:
    """Whether another picture comes within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if page.evaluate(SHOWN) != before:
            return True
        page.wait_for_timeout(200)
    return False

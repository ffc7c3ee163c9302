"""A Chromium that the tests drive: Debian's, or the one that playwright installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser. Without one these tests are skipped, with what to install."""
    if sys.platform != "linux":
        pytest.skip("Chromium is driven on Linux alone")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            if found or os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium: apt-get install chromium, or playwright install ({error})")
        yield browser
        browser.close()

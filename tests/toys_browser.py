"""What a browser complains of."""

from __future__ import annotations

from playwright.sync_api import ConsoleMessage, Page

PATIENCE_MS = 120_000  # for an element, on a loaded machine: a network that draws takes its time


class Watched:
    """What went wrong on a page: errors in its console, requests that failed."""

    def __init__(self, page: Page):
        self.errors: list[str] = []
        page.on("console", self._message)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", lambda request: self.errors.append(request.url[:200]))

    def _message(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "theme mode" not in message.text:  # it says the default
            self.errors.append(message.text)

"""Chromium, driven by playwright: for the tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium for a `with` block; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; scripts/ensure-chromium installs it where it may")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        # As root, as in containers, Chromium has no sandbox.
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Tab:
    """A tab, and what went wrong in it.

    Args:
        chromium: the browser.
        options: of the context, such as `viewport` and `color_scheme`.

    Attributes:
        page: playwright's page.
        troubles: errors of scripts, and what the policy of the page has forbidden.
    """

    def __init__(self, chromium: Any, **options: Any) -> None:
        self.context = chromium.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.troubles: list[str] = []
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: Any) -> None:
        # A lost connection is logged by the browser itself, and is what some tests are about.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.troubles.append(message.text)

    def wait_for(self, script: str, what: Any = None) -> None:
        """Wait until a function of the page's, with one argument, returns something true."""
        self.page.wait_for_function(script, arg=what)

    def close(self) -> None:
        """Close the tab; fail if anything went wrong in it."""
        self.context.close()
        assert self.troubles == []

"""Where progress bars are shown: a terminal, a notebook, or as lines of text, one an epoch."""

from __future__ import annotations

import html
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

REFRESHES = 5
"""How often a second a terminal is drawn."""

NOTEBOOK_SECONDS = 0.5
NOTEBOOK_WIDTH = 110

Render = Callable[[int], list[str]]
"""Returns the lines of a bar for a width in characters."""


class Screen(Protocol):
    """Shows bars until they are closed."""

    def open(self, render: Render) -> Callable[[Render], None]:
        """Show a bar; return the function that puts its last lines in its place, where they stay."""


class Terminal:
    """The terminal at the standard error of this process. All bars are drawn together, at its lower end.

    What is printed meanwhile appears above them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: dict[int, Render] = {}
        self._live: Live | None = None
        self._opened = 0

    def open(self, render: Render) -> Callable[[Render], None]:
        """Show a bar; return the function that puts its last lines in its place, where they stay."""
        with self._lock:
            self._opened += 1
            key = self._opened
            self._bars[key] = render
            if self._live is None:
                self._live = Live(
                    console=Console(stderr=True),
                    refresh_per_second=REFRESHES,
                    get_renderable=self._drawn,
                    transient=True,
                    redirect_stdout=sys.stdout.isatty(),  # A file keeps what is printed to it.
                    redirect_stderr=True,
                    vertical_overflow="crop",
                )
                self._live.start()
        return lambda last: self._close(key, last)

    def _close(self, key: int, last: Render) -> None:
        with self._lock:
            del self._bars[key]
            live = self._live
            if live is None:
                return
            if not self._bars:
                self._live = None
                live.stop()
            for line in last(live.console.width - 1):
                live.console.print(Text(line, no_wrap=True, overflow="ellipsis"))

    def _drawn(self) -> Group:
        live = self._live
        # A line that fills the last column wraps in some terminals.
        width = 79 if live is None else live.console.width - 1
        lines = [line for render in list(self._bars.values()) for line in render(width)]
        return Group(*(Text(line, no_wrap=True, overflow="crop") for line in lines))


TERMINAL = Terminal()


class Notebook:
    """A display of a notebook, which is updated in place. It needs no ipywidgets.

    Args:
        display: `IPython.display.display`.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display

    def open(self, render: Render) -> Callable[[Render], None]:
        """Show a bar; return the function that puts its last lines in its place, where they stay."""
        shown = [render(NOTEBOOK_WIDTH)]
        handle = self._display(_bundle(shown[0]), raw=True, display_id=True)
        ended = threading.Event()

        def refresh() -> None:
            while not ended.wait(NOTEBOOK_SECONDS):
                lines = render(NOTEBOOK_WIDTH)
                if lines != shown[0]:
                    shown[0] = lines
                    handle.update(_bundle(lines), raw=True)

        thread = threading.Thread(target=refresh, name="distkeras-bar", daemon=True)
        thread.start()

        def close(last: Render) -> None:
            ended.set()
            thread.join()
            handle.update(_bundle(last(NOTEBOOK_WIDTH)), raw=True)

        return close


def _bundle(lines: list[str]) -> dict[str, str]:
    text = "\n".join(lines)
    style = "white-space: pre; font-family: monospace; line-height: 1.4; overflow-x: auto"
    return {"text/plain": text, "text/html": f'<div style="{style}">{html.escape(text)}</div>'}


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. A script may have imported IPython, and has none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def screen_of_process() -> Screen | None:
    """Return where this process can show a bar: in a notebook or a terminal; `None` for neither."""
    if in_notebook():
        from IPython.display import display

        return Notebook(display)
    return TERMINAL if sys.stderr.isatty() else None

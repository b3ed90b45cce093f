"""The viewer: a process that serves the page of some runs until it is told to end."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.web.guard import Access
from distkeras.web.serving import MISSING, address_of, bound, names_of, run

PORT = 8765


@dataclass(frozen=True)
class ViewerOptions:
    """How the page is served.

    Attributes:
        addresses: runs, or folders of runs.
        host: address to bind to. Other machines reach only another one than the default.
        port: port; 0 for a free one; `None` for `PORT`, or a free one if that is taken.
        token: what the page's link carries; "" for none, on this machine alone.
        names: further names by which browsers reach the server.
        storage_options: arguments of fsspec's driver.
    """

    addresses: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    names: tuple[str, ...] = ()
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)

    def access(self) -> Access:
        """Return who may look.

        Raises:
            ValueError: other machines could look without a token.
        """
        return Access(self.token or None, self.host, (*self.names, *names_of(self.host)))


def link(host: str, port: int, token: str, shown: str | None = None) -> str:
    """Return the address of the page. What follows the # stays in the browser, so in no log of a proxy."""
    from urllib.parse import quote

    parts = [f"run={quote(shown, safe='')}"] if shown else []
    parts += [f"token={token}"] if token else []
    return f"{address_of(host, port)}{'#' if parts else ''}{'&'.join(parts)}"


def serve(
    options: ViewerOptions, ready: Callable[[int, Catalogue], None], orders: TextIO | None = None
) -> None:
    """Serve the page until Ctrl-C, or until `orders` ends.

    Args:
        options: what is served, and how.
        ready: called with the port and the catalogue as soon as browsers can connect.
        orders: lines of the process that has started this one: each is JSON with an address to `add`.

    Raises:
        ImportError: Starlette or uvicorn is missing.
        OSError: the port is taken.
        ValueError: an address has no driver, or other machines could look without a token.
    """
    try:
        from distkeras.monitor.dashboard.app import Page
    except ImportError as error:
        raise ImportError(MISSING) from error
    access = options.access()
    catalogue = Catalogue(options.addresses, options.storage_options)
    with bound(options.host, options.port, PORT) as listening:
        page = Page(catalogue)
        listening.listen()  # Who hears of the port may connect at once.
        threading.Thread(target=page.read_ahead, daemon=True).start()
        ready(listening.getsockname()[1], catalogue)
        if orders is not None:
            threading.Thread(target=_obey, args=(orders, catalogue), daemon=True).start()
        run(page.app(access), listening)


def _obey(orders: TextIO, catalogue: Catalogue) -> None:
    """Read the orders; end this process when there are no more: the process that gave them has ended."""
    for line in orders:
        catalogue.add(json.loads(line)["add"])
    os._exit(0)  # Threads may hang in a store that does not answer.


def child() -> None:
    """Serve as the child of a training: settings come by the standard input, the port goes out."""
    options = ViewerOptions(**json.loads(sys.stdin.readline()))

    def ready(port: int, catalogue: Catalogue) -> None:
        print(json.dumps({"port": port}), flush=True)

    serve(options, ready, sys.stdin)


if __name__ == "__main__":
    child()

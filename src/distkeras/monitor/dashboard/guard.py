"""Who may ask the page's server for what: a check before every request."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

HEADER = "x-distkeras"
"""Header that every write must have. A form or a link of another site cannot send it."""
TOKEN = "x-distkeras-token"
_PORT = re.compile(r":\d+$")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # A newer release shows its own files.
}

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Access:
    """Who may look at the page.

    Attributes:
        token: what every request for data must bring in the header `X-Distkeras-Token`; `None` for nothing,
            which only a server that this machine alone reaches may have.
        host: the address that the server is bound to.
        names: further names by which browsers may reach it, such as those of a proxy; "*" for any.

    Raises:
        ValueError: another machine could read the data without a token.
    """

    token: str | None
    host: str = "127.0.0.1"
    names: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.token is None and (self.host not in LOOPBACK or "*" in self.names):
            raise ValueError(
                "Expected a token where other machines, or pages of any other name, reach the server: they "
                f"could stop the trainings. Received: token=None, host={self.host!r}, names={self.names!r}"
            )

    def is_known(self, host: str) -> bool:
        """Return whether the header `Host` names this server.

        A page of another site can give its own name this machine's address (DNS rebinding), and would then
        read what the server tells. Its name stays in the header. An address in numbers cannot be such a name.
        """
        name = _PORT.sub("", host).strip("[]").lower()
        known = {each.lower() for each in (*LOOPBACK, self.host, *self.names)}
        if "*" in known or name in known:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.host not in LOOPBACK


class Guard:
    """Refuses requests before the application sees them, and adds the headers that bind the browser.

    400 for a foreign `Host`; 401 without the token, where data is asked for; 403 for a write without its
    header, or from a page of another origin.

    Args:
        app: the application.
        access: who may look.
    """

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                names = {name.lower() for name, _ in given}
                own = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message["headers"] = [*given, *(each for each in own if each[0] not in names)]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _answer(send_with_headers, *refusal)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return the status and the reason of a refusal."""
        access, host = self._access, headers.get("host", "")
        if not access.is_known(host):
            return 400, (
                f"This server does not go by the name {host!r}. Behind a proxy, start it with "
                "--allow-host and the name in the browser's address bar."
            )
        if not _is_free(path) and access.token is not None:
            # Prometheus, too, can send a token: as credentials of the kind "Bearer".
            given = headers.get(TOKEN) or headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), access.token.encode()):
                return 401, "Expected the token of the link that was printed. Received: another one, or none."
        if method not in ("GET", "HEAD"):
            if headers.get(HEADER) != "page":
                return 403, f"A request that changes something needs the header {HEADER}: page."
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "A page of another site may not change anything here."
        return None


def _is_free(path: str) -> bool:
    """Return whether a path is of the page itself, which has no data of a run."""
    return path == "/" or path.startswith("/static/")


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

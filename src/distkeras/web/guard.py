"""Who may ask a page's server for what: a check before every request."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

HEADER = "x-distkeras"
"""Header that every write must have. A form or a link of another site cannot send it."""
WRITERS = ("page", "command")
"""Values of the header: the page, or the command `distkeras`."""
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

    Args:
        token: what every request for data must bring in the header `X-Distkeras-Token`; `None` for nothing,
            which only a server that this machine alone reaches may have. Only its hash is kept.

    Attributes:
        digest: SHA-256 of the token.
        host: the address that the server is bound to.
        names: further names by which browsers may reach it, such as those of a proxy; "*" for any.

    Raises:
        ValueError: another machine could read the data without a token.
    """

    token: InitVar[str | None]
    host: str = "127.0.0.1"
    names: Collection[str] = ()
    digest: bytes | None = field(init=False, repr=False)

    def __post_init__(self, token: str | None) -> None:
        object.__setattr__(self, "digest", None if token is None else _digest(token))
        if token is None and (self.host not in LOOPBACK or "*" in self.names):
            raise ValueError(
                "Expected a token, because other machines, or pages of another host name, can reach the "
                f"server and could stop trainings. Received: token=None, host={self.host!r}, "
                f"names={self.names!r}"
            )

    def admits(self, token: str) -> bool:
        """Return whether a request with this token may have data. The time tells nothing of the right one."""
        return self.digest is None or hmac.compare_digest(_digest(token), self.digest)

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


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Guard:
    """Refuses requests before the application sees them, and adds the headers that bind the browser.

    400 for a foreign `Host`; 401 without the token, where data is asked for; 403 for a write without its
    header, or from a page of another origin.

    Args:
        app: the application.
        access: who may look.
        pages: paths below which a page is served; its files have no data, so they need no token.
    """

    def __init__(self, app: App, access: Access, pages: Sequence[str] = ("/",)) -> None:
        self._app, self._access = app, access
        self._free, self._files = set(pages), tuple(f"{page}static/" for page in pages)

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
                f"This server does not have the host name {host!r}. Behind a proxy, start it with "
                "--allow-host and the name in the browser's address bar."
            )
        if not self._is_free(path):
            # Prometheus, too, can send a token: as credentials of the kind "Bearer".
            given = headers.get(TOKEN) or headers.get("authorization", "").removeprefix("Bearer ")
            if not access.admits(given):
                return (
                    401,
                    "Expected the token of this server. Received: another one, or none.",
                )
        if method not in ("GET", "HEAD"):
            if headers.get(HEADER) not in WRITERS:
                return 403, f"A request that changes something needs the header {HEADER}: {WRITERS[0]}."
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "A page of another site may not change anything here."
        return None

    def _is_free(self, path: str) -> bool:
        """Return whether a path is of a page itself, which has no data."""
        return path in self._free or path.startswith(self._files)


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

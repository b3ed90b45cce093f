"""A reverse proxy as notebooks have it: it serves the page below a prefix, and may break streams."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/user/ada/proxy/8765"


class Proxy:
    """What the proxy does.

    Attributes:
        port: where it listens.
        target: port of the page's server.
        streams: whether it passes on answers while they come; else it keeps them to itself until they end.
        paths: what was requested, without the prefix.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target, self.streams = port, target, True
        self.paths: list[str] = []

    @property
    def address(self) -> str:
        """Where the page is, for browsers."""
        return f"http://127.0.0.1:{self.port}{PREFIX}/"


@contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    """Run a proxy before the server at port `target` for a `with` block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            self._pass_on(self.rfile.read(int(self.headers.get("content-length") or 0)))

        def _pass_on(self, body: bytes | None) -> None:
            if not self.path.startswith(PREFIX):
                self.send_error(404)
                return
            path = self.path.removeprefix(PREFIX) or "/"
            proxy.paths.append(path)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            address = f"http://127.0.0.1:{proxy.target}{path}"
            asked = urllib.request.Request(address, body, headers, method=self.command)
            try:
                answer = urllib.request.urlopen(asked, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            except OSError:
                self.send_error(502)
                return
            with answer:
                self._answer(answer)

        def _answer(self, answer) -> None:
            self.send_response(answer.status)
            for name in ("content-type", "content-security-policy", "cache-control"):
                if answer.headers[name]:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            is_stream = answer.headers["content-type"].startswith("text/event-stream")
            if is_stream and not proxy.streams:
                return  # It gives up on what does not end.
            try:
                while data := answer.read1(65536):
                    self.wfile.write(data)
                    self.wfile.flush()
            except OSError:
                return  # The browser has closed the page.

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        proxy = Proxy(server.server_address[1], target)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()

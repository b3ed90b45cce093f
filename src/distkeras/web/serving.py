"""Binds a port and serves an application there until the process is told to end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distkeras.web.guard import LOOPBACK, App

MISSING = "The page needs Starlette and uvicorn: pip install 'distkeras[dashboard]'"


@dataclass(frozen=True)
class Certificate:
    """Files with which a server proves who it is, and encrypts.

    Attributes:
        certificate: the certificate, or the chain of certificates, in PEM.
        key: its private key, in PEM.
    """

    certificate: Path
    key: Path


def bound(host: str, port: int | None, default: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        host: the address.
        port: the port; 0 for a free one; `None` for `default`, or a free one if that is taken.
        default: the port to try first.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, default if port is None else port))
    except OSError:
        if port is not None:
            listening.close()
            raise
        listening.bind((host, 0))
    return listening


def names_of(host: str) -> tuple[str, ...]:
    """Return the names by which other machines may reach a server that is bound to `host`."""
    return () if host in LOOPBACK else (socket.gethostname(), socket.getfqdn())


def address_of(host: str, port: int, scheme: str = "http") -> str:
    """Return the address at which a browser finds a server that is bound to `host`."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{scheme}://{shown}:{port}/"


def run(app: App, listening: socket.socket, certificate: Certificate | None = None) -> None:
    """Serve an application until Ctrl-C or SIGTERM.

    Args:
        app: the application.
        listening: a socket that is bound.
        certificate: for TLS; `None` for a connection without encryption.

    Raises:
        ImportError: uvicorn is missing.
        OSError: the certificate cannot be read; `ssl.SSLError` is one, too.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ImportError(MISSING) from error
    # A stream has no end of its own: without a limit the server would wait for open pages at its end.
    config = uvicorn.Config(
        app,
        # Its own would end every handler of the process, and absl's closes the stream that it writes to.
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
        ssl_certfile=None if certificate is None else certificate.certificate,
        ssl_keyfile=None if certificate is None else certificate.key,
    )
    with suppress(KeyboardInterrupt):  # How people end it.
        asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))

"""Starts a job server, and serves until it is told to end."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from distkeras.jobs.server.home import Home, default_home, token_in
from distkeras.jobs.server.limits import Limits
from distkeras.web.guard import Access
from distkeras.web.serving import MISSING, Certificate, address_of, bound, names_of, run

if TYPE_CHECKING:
    import socket

PORT = 8766


@dataclass(frozen=True)
class ServerOptions:
    """How jobs are served.

    Attributes:
        folder: folder of the server.
        host: address to bind to.
        port: port; 0 for a free one; `None` for `PORT`, or a free one if that is taken.
        certificate: for TLS.
        token_file: file of the token, of mode 0600; made if it is missing. Default: `token` in the folder.
        names: further names by which browsers reach the server, such as those of a proxy.
        master: address of Spark's master for all jobs; `None` for `local[*]`.
        runs: further addresses of runs, or of folders of runs, that the page shows.
        limits: what is allowed.

    Raises:
        ValueError: other machines would reach the server without encryption.
    """

    folder: Path = field(default_factory=default_home)
    host: str = "127.0.0.1"
    port: int | None = None
    certificate: Certificate | None = None
    token_file: Path | None = None
    names: tuple[str, ...] = ()
    master: str | None = None
    runs: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.certificate is None and not is_loopback(self.host):
            raise ValueError(
                "Expected a certificate for an address that other machines reach, since who reads the token "
                "can run programs here: add --certificate FILE --key FILE. Or leave --host out, and reach "
                "it through `ssh -L 8766:127.0.0.1:8766 MACHINE`, or a proxy with TLS on this machine. "
                f"Received: host={self.host!r}, certificate=None"
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Served:
    """What was started.

    Attributes:
        address: where the page is.
        token_file: where its token is.
    """

    address: str
    token_file: Path


def serve(options: ServerOptions, ready: Callable[[Served], None]) -> None:
    """Serve jobs until Ctrl-C or SIGTERM. Jobs that run then go on, and the next server finds them.

    Args:
        options: how.
        ready: called as soon as clients can connect.

    Raises:
        ImportError: Starlette or uvicorn is missing.
        OSError: the port is taken, or a file cannot be read.
        HomeError: another server has the folder, or it belongs to somebody else.
        ProfileError: the file of the token can be read by others.
        StoreError: the jobs in the folder cannot be read.
    """
    try:
        from distkeras.jobs.server.app import JobServer
        from distkeras.jobs.server.commands import Commands
        from distkeras.jobs.server.queue import Queue
        from distkeras.monitor.dashboard.catalogue import Catalogue
    except ImportError as error:
        raise ImportError(MISSING) from error
    home = Home(options.folder)
    with closing(home), bound(options.host, options.port, PORT) as listening:
        token_file = options.token_file or home.token_file
        access = Access(token_in(token_file), options.host, (*options.names, *names_of(options.host)))
        with closing(Queue(home, options.limits, Commands(options.master))) as queue:
            queue.start()
            server = JobServer(home, queue, options.limits, Catalogue(options.runs))
            listening.listen()
            ready(Served(_address(options, listening), token_file))
            run(server.app(access), listening, options.certificate)


def _address(options: ServerOptions, listening: socket.socket) -> str:
    scheme = "http" if options.certificate is None else "https"
    return address_of(options.host, listening.getsockname()[1], scheme)

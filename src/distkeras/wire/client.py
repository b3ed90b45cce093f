"""A worker's line to the center: reconnects, resends, and never lets a commit count twice."""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.messages import (
    Beat,
    Done,
    Exchange,
    Exchanged,
    Fail,
    Join,
    Joined,
    Leave,
    Poll,
    Polled,
    Pull,
    Pulled,
    Refused,
    Rejoin,
    Request,
    Skipped,
)
from distkeras.wire import frames, shared_memory
from distkeras.wire.codecs import Packing
from distkeras.wire.compression import Compression
from distkeras.wire.connection import Connection
from distkeras.wire.handshake import SESSION_BYTES, TIMEOUT, Handshake

CONNECT_SECONDS = 10.0
LONGEST_PAUSE = 1.0
"""Seconds between two attempts to connect: a server that was started again is back after one or two."""

logger = logging.getLogger(__name__)


class ServerLost(ConnectionError):
    """The parameter server could not be reached for as long as the client was told to try."""


class JobStopped(Exception):
    """The server said that the job is over: the driver stopped it, or another worker failed."""


class Replaced(JobStopped):
    """Another process trains as this worker now; the job goes on without this one."""


@dataclass(frozen=True)
class ServerAddress:
    """Where the parameter server listens, and what proves that one belongs to the job.

    Attributes:
        host: name or address as the workers reach it.
        port: TCP port.
        token: the job's secret.
        size: elements of the center.
        local_name: Unix socket of the server for workers on its own machine, if it has one.
        checksum: frames carry checksums.
        tls: makes the context that encrypts the connection; `None`: nothing does.
        pin: SHA-256 fingerprint of the server's certificate.
        packing: how commits, and perhaps replies, are compressed; `None`: not at all.
        timeout: seconds for which the server's machine may acknowledge nothing.
        dtype: of the center.
        layout: names what lies where in the center.
    """

    host: str
    port: int
    token: bytes
    size: int
    local_name: str | None = None
    checksum: bool = False
    tls: Callable[[], ssl.SSLContext] | None = None
    pin: bytes = b""
    packing: Packing | None = None
    timeout: float = TIMEOUT
    dtype: str = "float32"
    layout: str = ""

    def __repr__(self) -> str:
        return f"ServerAddress({self.host}:{self.port})"  # The token is a secret: not in logs.


class Client:
    """One connection to the center, kept alive over cuts.

    A request whose reply did not arrive is sent again over a new connection: the ledger knows whether the
    first was applied.

    Args:
        address: the server.
        patience: seconds to go on trying to reach the server before `ServerLost`.
        timeout: seconds to wait for one reply before it is asked for anew, as often as it takes: a
            synchronous round waits for its slowest worker.
        sleep: replaced in tests.
        buffer: where vectors that arrive by TCP are put, shape (size,); default: one of its own.
        session: of another client of this process, whose place this one takes; default: its own.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        patience: float = 60.0,
        timeout: float = 600.0,
        sleep: Callable[[float], None] = time.sleep,
        buffer: Vector | None = None,
        session: bytes | None = None,
    ) -> None:
        self._address = address
        self._patience = patience
        self._timeout = timeout
        self._sleep = sleep
        self._tls = None if address.tls is None else address.tls()
        self._session = session or secrets.token_bytes(SESSION_BYTES)
        self._buffer = buffer  # If none, not before the first TCP connection: as large as the model.
        self._connection: Connection | None = None
        packing = address.packing
        self._compression = None if packing is None else Compression(packing, at_server=False)
        self._ended = False

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """Where the center is."""
        return (self._address,)

    def call(self, request: Request) -> Any:
        """Send `request` and return the reply, whose vector is overwritten by the next call.

        Where the job compresses, the vector in `request` becomes what the center decodes.

        Raises:
            JobStopped: the server ended the job.
            Replaced: another process has taken this worker's place.
            ServerLost: the server cannot be reached.
            AuthenticationError: the other side is not the server of this job.
        """
        deadline: float | None = None  # Counted from the first failure, not from the start of a long wait.
        pause = 0.05
        while True:
            try:
                reply = self._exchange(request)
            except frames.TextTooLong:
                raise
            except (OSError, frames.FrameError) as error:
                reached = self._connection is not None
                self.close()
                if self._ended:
                    raise JobStopped("This worker has ended, or says its last word elsewhere.") from error
                if reached and isinstance(error, TimeoutError | BlockingIOError):
                    # It has nothing to say yet: ask anew.
                    deadline, pause = None, 0.05
                    continue
                if deadline is None:
                    logger.info("The connection %s is lost, and tried again: %s", self._told(request), error)
                deadline = deadline or time.monotonic() + self._patience
                if time.monotonic() > deadline:
                    raise ServerLost(
                        f"The parameter server at {self._address.host}:{self._address.port} could not be "
                        f"reached for {self._patience:.0f} s: {error}. Check that the executors may open TCP "
                        "connections to that address; `ServerOptions(host=..., ports=...)` gives another."
                    ) from error
                self._sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if deadline is not None:
                    logger.info("The connection %s is there again.", self._told(request))
                if isinstance(reply, frames.Stopped):
                    raise (Replaced if reply.replaced else JobStopped)(reply.reason)
                return reply

    def encode(self, request: Exchange) -> None:
        """Compress the message of `request` ahead of `call`, if the job compresses such messages.

        It becomes what the center will decode.
        """
        if self._compression is not None:
            self._compression.encode(request)

    def _told(self, request: Request) -> str:
        worker = getattr(request, "worker", None)
        whose = "" if worker is None else f" of worker {worker}"
        return f"to {self._address.host}:{self._address.port}{whose}"

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def end(self) -> None:
        """Close for good: a call that is under way in another thread ends with `JobStopped`."""
        self._ended = True
        self.close()

    def successor(self) -> Client:
        """Return a client for the same worker, and end this one, whose call may be under way in a thread."""
        self._ended = True
        return Client(self._address, patience=self._patience, timeout=self._timeout, session=self._session)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _exchange(self, request: Request) -> Any:
        connection = self._connection  # `end` may come from another thread at any moment.
        if connection is None:
            connection = self._connection = self._connect()
        connection.send(request)
        reply = connection.receive(self._vector(connection))
        if not _answers(request, reply):  # The network has brought something twice.
            raise frames.FrameError(f"Expected the answer to a {type(request).__name__}. Received: {reply!r}")
        return reply

    def _vector(self, connection: Connection) -> Vector:
        if connection.shared is not None:
            return connection.shared
        if self._buffer is None:
            self._buffer = np.empty(self._address.size, self._address.dtype)
        return self._buffer

    def _connect(self) -> Connection:
        address = self._address
        seconds = min(address.timeout, CONNECT_SECONDS)
        if address.local_name is not None:
            with contextlib.suppress(OSError):  # The server is on another machine, or has ended.
                return self._greet(shared_memory.connect(address.local_name, seconds))
        return self._greet(socket.create_connection((address.host, address.port), seconds))

    def _greet(self, sock: socket.socket) -> Connection:
        address = self._address
        handshake = Handshake(sock, address.timeout)
        try:
            handshake.prove_to_server(address.token, self._session, self._tls, address.pin, address.host)
            connection = Connection(
                handshake.sock,
                frames.REPLIES,
                frames.MAX_REPLY_TEXT,
                self._compression,
                address.checksum,
                address.dtype,
            )
            if sock.family == socket.AF_UNIX:
                connection.shared = shared_memory.accept(sock, address.size, address.dtype)
        except BaseException:
            handshake.hang_up()
            handshake.sock.close()
            raise
        connection.limit_waits(self._timeout)
        if self._compression is not None:
            self._compression.connected()
        return connection


def _answers(request: Request, reply: Any) -> bool:
    """Whether `reply` may be what the server says to `request`, and not to one before it."""
    if isinstance(reply, Exchanged):
        return isinstance(request, Exchange) and reply.sequence == request.sequence
    return isinstance(reply, _ANSWERS[type(request)])


_ANSWERS: dict[type, tuple[type, ...]] = {
    request: (frames.Stopped, Refused, *replies)
    for request, replies in (
        (Exchange, (Skipped, Rejoin)),
        (Join, (Joined,)),
        (Leave, (Done, Rejoin)),
        (Fail, (Done,)),
        (Beat, (Done,)),
        (Pull, (Pulled,)),
        (Poll, (Polled,)),
    )
}

"""A worker's connection to the center: reconnects, resends, and never lets a commit count twice."""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import (
    Done,
    Exchanged,
    Fetched,
    Followed,
    Joined,
    NotYet,
    Place,
    Polled,
    Pulled,
    Refused,
    Rejoin,
    Skipped,
)
from distkeras.center.requests import (
    Beat,
    Exchange,
    Fail,
    Fetch,
    Follow,
    Join,
    Keep,
    Leave,
    MayJoin,
    Order,
    Poll,
    Pull,
    Report,
    Request,
    Write,
)
from distkeras.wire import frames, shared_memory
from distkeras.wire.connection import Connection
from distkeras.wire.fragment_compression import AnyPacking, compression_of
from distkeras.wire.handshake import SESSION_BYTES, TIMEOUT, AuthenticationError, Handshake
from distkeras.wire.server_place import ServerPlace
from distkeras.wire.traffic import Traffic

CONNECT_SECONDS = 10.0
CANDIDATE_SECONDS = 3.0
"""Longest time for one of several addresses of a server to accept a connection."""
LONGEST_PAUSE = 1.0
"""Seconds between two attempts to connect: a server that was started again is back after one or two."""

logger = logging.getLogger(__name__)

_system_random = random.SystemRandom()  # The process's own generator is the user's.


class ServerLost(ConnectionError):
    """The client could not reach the parameter server for its whole `patience`."""


class JobStopped(Exception):
    """The server ended the job: the driver stopped it, or another worker failed."""


class Replaced(JobStopped):
    """Another process trains as this worker now; the job continues without this one."""


@dataclass(frozen=True)
class ServerAddress:
    """The address of the parameter server, and the secrets and settings of its connections.

    Attributes:
        host: host name or address, as reached by the workers.
        port: TCP port.
        token: the job's secret.
        size: number of elements of the center.
        local_name: Unix socket for workers on the server's machine; `None` for no such socket.
        checksum: whether frames carry checksums.
        tls: makes the context that encrypts the connection; `None` for no encryption.
        pin: SHA-256 fingerprint of the server's certificate.
        packing: fragments, and compression of commits and in some jobs of replies; `None` for neither.
        timeout: seconds after which a machine that acknowledges nothing counts as gone.
        dtype: data type of the center.
        layout: fingerprint of the weights' layout.
        place: where host, port and local name stand at present, if the server may move to another executor;
            they are read at every connect. `None` for those given here.
    """

    host: str
    port: int
    token: bytes
    size: int
    local_name: str | None = None
    checksum: bool = False
    tls: Callable[[], ssl.SSLContext] | None = None
    pin: bytes = b""
    packing: AnyPacking | None = None
    timeout: float = TIMEOUT
    dtype: str = "float32"
    layout: str = ""
    place: ServerPlace | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.place is None else str(self.place)

    def __repr__(self) -> str:
        return f"ServerAddress({self})"  # Without the token, which is secret.


class Client:
    """One connection to the center. It reconnects after failures.

    The client sends a request again over a new connection if its reply did not arrive. The server's ledger
    knows whether it has applied the first one.

    Args:
        address: the server.
        patience: seconds to keep trying to reach the server before `ServerLost`.
        timeout: seconds to wait for a reply before the client sends the request again, without limit: a
            synchronous round waits for its slowest worker.
        sleep: replaced in tests.
        buffer: receives vectors that arrive by TCP, shape (size,); a new buffer by default.
        session: session of another client of this process, which this client replaces; a new one by default.
        traffic: counts of that client, which go on; new ones by default.

    Attributes:
        traffic: what its connections have carried.
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
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = Traffic() if traffic is None else traffic
        self._address = address
        self._patience = patience
        self._timeout = timeout
        self._sleep = sleep
        self._tls = None if address.tls is None else address.tls()
        self._session = session or secrets.token_bytes(SESSION_BYTES)
        self._buffer = buffer  # As large as the model: by default made for the first TCP connection.
        self._connection: Connection | None = None
        self._compression = compression_of(address.packing, at_server=False)
        self._ended = False
        self._in_use = threading.Lock()

    @property
    def clients(self) -> tuple[Client, ...]:
        """The client of each server."""
        return (self,)

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """The address of the server."""
        return (self._address,)

    def call(self, request: Request) -> Any:
        """Send `request` and return the reply, whose vector is overwritten by the next call.

        If the job uses compression, the vector in `request` becomes what the center decodes.

        Raises:
            JobStopped: the server ended the job.
            Replaced: another process has taken this worker's place.
            ServerLost: the client could not reach the server for `patience` seconds.
            AuthenticationError: the peer is not the server of this job.
        """
        with self._in_use:
            return self._call(request)

    def beat(self, beat: Beat, timeout: float) -> Done | None:
        """Send a heartbeat, from another thread than the calls, unless a call is in progress.

        Bytes that move during a call count as heartbeats, and the server knows who waits for it.

        Args:
            beat: the heartbeat.
            timeout: seconds for the reply; then the connection is closed, and the next beat or call opens a
                new one.

        Returns:
            The reply; `None` if it was not sent.

        Raises:
            JobStopped, Replaced, AuthenticationError: as for `call`.
            ServerLost: the heartbeat did not arrive.
        """
        if not self._in_use.acquire(blocking=False):
            return None
        try:
            if self._ended:
                raise ServerLost("This client was closed, or another client replaced it.")
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            connection.stream.limit_waits(timeout)
            reply: Done = self._exchange(beat)
            connection.stream.limit_waits(self._timeout)
        except (OSError, frames.FrameError) as error:
            self.close()
            raise ServerLost(f"A heartbeat {self._told(beat)} did not arrive: {error}") from error
        finally:
            self._in_use.release()
        _check_stopped(reply)
        return reply

    def _call(self, request: Request) -> Any:
        deadline: float | None = None  # Starts at the first failure, not at the start of a long wait.
        pause = 0.05
        while True:
            try:
                reply = self._exchange(request)
            except frames.TextTooLong:
                raise
            except (OSError, frames.FrameError) as error:
                reached = self._connection is not None
                self.traffic.resends += reached
                self.close()
                if self._ended:
                    raise JobStopped("This client was closed, or another client replaced it.") from error
                if reached and isinstance(error, TimeoutError):
                    # The server has no reply yet: ask again.
                    deadline, pause = None, 0.05
                    continue
                if deadline is None:
                    logger.info("The connection %s is lost; reconnecting: %s", self._told(request), error)
                deadline = deadline or time.monotonic() + self._patience
                if time.monotonic() > deadline:
                    raise ServerLost(
                        f"The parameter server at {self._address} could not be "
                        f"reached for {self._patience:.0f} s: {error}. Check that the executors may open TCP "
                        "connections to that address; `ServerOptions(host=..., ports=...)` sets another."
                    ) from error
                self._sleep(pause * _system_random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if deadline is not None:
                    logger.info("The connection %s is restored.", self._told(request))
                _check_stopped(reply)
                return reply

    def reach(self) -> None:
        """Connect, if there is no connection.

        Raises:
            AuthenticationError: as for `call`.
            OSError: the server cannot be reached now.
        """
        with self._in_use:
            if self._connection is None:
                self._connection = self._connect()

    def receive_into(self, buffer: Vector) -> None:
        """Receive vectors that arrive by TCP in `buffer`, shape (size,), from the next call on."""
        with self._in_use:
            self._buffer = buffer

    def encode(self, request: Exchange) -> None:
        """Compress the message of `request` before `call`, if the job compresses such messages.

        The message becomes what the center will decode.
        """
        if self._compression is not None:
            self._compression.encode(request)

    def _told(self, request: Request) -> str:
        worker = getattr(request, "worker", None)
        whose = "" if worker is None else f" of worker {worker}"
        return f"to {self._address}{whose}"

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def end(self) -> None:
        """Close for good: a call in progress in another thread ends with `JobStopped`."""
        self._ended = True
        self.close()

    def successor(self) -> Client:
        """Return a client for the same worker, and end this one. Its call may be in progress in a thread."""
        self._ended = True
        return Client(
            self._address,
            patience=self._patience,
            timeout=self._timeout,
            session=self._session,
            traffic=self.traffic,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _exchange(self, request: Request) -> Any:
        connection = self._connection  # `end` may run in another thread at any moment.
        if connection is None:
            connection = self._connection = self._connect()
        connection.send(request)
        reply = connection.receive(self._vector(connection))
        if not _answers(request, reply):  # The network has delivered a message twice.
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
        if address.place is None:
            return self._connect_to((address.host,), address.port, address.local_name)
        found = address.place.find()
        return self._connect_to(found.candidates, found.port, found.local_name)

    def _connect_to(self, hosts: Sequence[str], port: int, local_name: str | None) -> Connection:
        """Connect to the first of `hosts` that is the server.

        Interfaces such as those of containers have the same address on every machine, where another program
        may listen: that it is not the server counts only if no other host is.
        """
        seconds = min(self._address.timeout, CONNECT_SECONDS)
        if local_name is not None:
            with contextlib.suppress(OSError):  # The server runs on another machine, or has ended.
                return self._greet(shared_memory.connect(local_name, seconds), "")
        if len(hosts) > 1:
            seconds = min(seconds, CANDIDATE_SECONDS)
        failures: list[Exception] = []
        for host in hosts:
            try:
                return self._greet(socket.create_connection((host, port), seconds), host)
            except (OSError, AuthenticationError) as error:
                failures.append(error)
        raise next((error for error in failures if isinstance(error, OSError)), failures[0])

    def _greet(self, sock: socket.socket, host: str) -> Connection:
        address = self._address
        handshake = Handshake(sock, address.timeout)
        try:
            handshake.prove_to_server(address.token, self._session, self._tls, address.pin, host)
            connection = Connection(
                handshake.sock,
                frames.REPLIES,
                frames.MAX_REPLY_TEXT,
                self._compression,
                address.checksum,
                address.dtype,
                self.traffic,
            )
            if sock.family == socket.AF_UNIX:
                connection.shared = shared_memory.accept(sock, address.size, address.dtype)
        except BaseException:
            handshake.hang_up()
            handshake.sock.close()
            raise
        connection.stream.limit_waits(self._timeout)
        if self._compression is not None:
            self._compression.connected()
        return connection


def _check_stopped(reply: Any) -> None:
    if isinstance(reply, frames.Stopped):
        raise (Replaced if reply.replaced else JobStopped)(reply.reason)


def _answers(request: Request, reply: Any) -> bool:
    """Return whether `reply` may be the server's reply to `request`, not to an earlier one."""
    if isinstance(reply, Exchanged):
        if not isinstance(request, Exchange):
            return False
        return (reply.sequence, reply.fragment) == (request.sequence, request.fragment)
    return isinstance(reply, _ANSWERS[type(request)])


_ANSWERS: dict[type, tuple[type, ...]] = {
    request: (frames.Stopped, Refused, *replies)
    for request, replies in (
        (Exchange, (Skipped, Rejoin)),
        (Join, (Joined,)),
        (Leave, (Done, Rejoin)),
        (Fail, (Done,)),
        (Beat, (Done,)),
        (Order, (Done,)),
        (Keep, (Done,)),
        (Pull, (Pulled,)),
        (Poll, (Polled,)),
        (Follow, (Followed,)),
        (Write, (Done,)),
        (Report, (Done, Rejoin)),
        (Fetch, (Fetched,)),
        (MayJoin, (NotYet, Place)),
    )
}

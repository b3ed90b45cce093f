"""The server's side of one authenticated connection: requests in, replies out, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.messages import (
    Beat,
    Exchange,
    Follow,
    Join,
    Leave,
    Poll,
    Pull,
    Reply,
    Request,
    Write,
    sender_of,
)
from distkeras.wire import frames
from distkeras.wire.admission import Caller
from distkeras.wire.connection import Arriving, Connection
from distkeras.wire.connection_log import ConnectionLog
from distkeras.wire.event_loop import IDLE, PARK, THREAD, EventLoop, Steps, Task
from distkeras.wire.staging import Lease, Staging

LARGE_BYTES = 2**20
"""Bytes of a vector that is not moved and applied in the event loop, where all others would wait for it."""

_LONG, _SHORT = (Leave, Follow, Write), (Beat, Poll)
Answer = Callable[[Caller, Request], "Reply | frames.Stopped | None"]


@dataclass(frozen=True)
class Surroundings:
    """What all conversations of a server share.

    Attributes:
        loop: runs them.
        staging: lends room for vectors.
        answer: returns the reply to a request; `None` if it comes later.
        let_go: called with each request and its reply before that is sent.
        size: elements of a vector.
        dtype: their type.
        keeps_messages: whether the center keeps a message until the round closes, so that it is never in
            memory that others use.
        follows: whether requests wait for their turn in another server's order, and keep their messages
            meanwhile. Room for some of them only could keep out the one whose turn it is.
    """

    loop: EventLoop
    staging: Staging
    answer: Answer
    let_go: Callable[[Request, Reply | frames.Stopped], None]
    size: int
    dtype: np.dtype[Any]
    keeps_messages: bool
    follows: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of a vector."""
        return self.size * self.dtype.itemsize


class Conversation:
    """The conversation over one connection.

    Args:
        connection: the connection; `start` makes its socket non-blocking.
        session: the client's session.
        peer: address of the other side.
        shared: what all conversations share.

    Attributes:
        caller: the connection for `Admission`.
        log: what is logged about it.
        workers: for whom it has sent requests.
    """

    def __init__(self, connection: Connection, session: bytes, peer: object, shared: Surroundings) -> None:
        self.caller = Caller(self.hang_up, session, self._wake)
        self.log = ConnectionLog(peer)
        self.workers: set[int] = set()
        self._connection, self._shared = connection, shared
        self._large = shared.num_bytes >= LARGE_BYTES
        self._task: Task | None = None
        self._kept: Vector | None = None
        self._hung_up = self._waits_for_room = False
        self._seen = 0

    def start(self, done: Callable[[Exception | None], None]) -> None:
        """Answer requests from now on; `done` is called at the end with the exception that ended it."""
        self._task = Task(self._connection.sock, self._steps(), done)
        self._shared.loop.start(self._task)

    def hang_up(self) -> None:
        """End the connection, from any thread."""
        self._hung_up = True
        self._connection.hang_up()
        self._wake()

    def close(self) -> None:
        """Close the socket, and free the memory for vectors. After the end."""
        self._connection.close()
        self._connection.shared = self._kept = self._task = None

    def stirs(self) -> bool:
        """Return whether bytes have moved since the last call, or the other side waits for this server."""
        moved = self._connection.progress()
        stirs, self._seen = moved != self._seen or self._waits_for_room, moved
        return stirs

    def _wake(self) -> None:
        task = self._task
        if task is not None:
            self._shared.loop.wake(task)

    def _steps(self) -> Steps[None]:
        connection, shared = self._connection, self._shared
        while True:
            if not connection.ready():
                yield IDLE
            arriving = yield from connection.beginning(shared.num_bytes)
            lease = None
            if (memory := self._needs_room(arriving.cls)) is not None:
                lease = shared.staging.take(connection, self._wake, memory=memory)
                if lease is None:
                    lease = yield from self._wait_for_room(memory)
            try:
                # `Leave` and `Write` are answered after a snapshot, and `Follow` when there is something new.
                if arriving.cls in _LONG or (self._large and arriving.cls not in _SHORT):
                    yield THREAD
                yield from self._exchange(arriving, lease)
            finally:
                if lease is not None and lease.connection is connection:
                    shared.staging.give_back(lease)

    def _needs_room(self, cls: type) -> bool | None:
        """Return whether the vector of a request or its reply needs room with memory, or in the center's."""
        if self._shared.follows:
            return None
        if cls is Exchange:
            inline = self._connection.shared is None and not self._shared.keeps_messages
            return True if inline else None
        return False if cls is Join or cls is Pull else None

    def _wait_for_room(self, memory: bool) -> Steps[Lease]:
        staging, connection = self._shared.staging, self._connection
        self._waits_for_room = True
        try:
            while True:
                yield PARK
                if self._hung_up:
                    raise ConnectionError("The connection was ended.")
                lease = staging.take(connection, self._wake, memory=memory)
                if lease is not None:
                    return lease
        finally:
            self._waits_for_room = False
            staging.forget(connection)

    def _exchange(self, arriving: Arriving, lease: Lease | None) -> Steps[None]:
        connection, caller, log = self._connection, self.caller, self.log
        request = yield from connection.finishing(arriving, self._memory_for(arriving, lease))
        if lease is not None:
            lease.moving = False
        started = time.monotonic() if log.tells_exchanges else 0.0
        log.take(request)
        self.workers.add(sender_of(request))
        reply = self._shared.answer(caller, request)
        if reply is None and lease is not None:  # The center holds the answer back, in memory of its own.
            self._shared.staging.give_back(lease)
            lease = None
        while reply is None:
            yield PARK
            if self._hung_up:
                raise ConnectionError("The connection was ended.")
            if caller.replies:
                reply = caller.replies.popleft()
                if self._large or arriving.cls in _LONG:
                    yield THREAD
        self._shared.let_go(request, reply)
        if lease is not None:
            lease.moving = True
        yield from connection.sending(reply)
        if log.tells_exchanges:
            log.exchanged(request, reply, time.monotonic() - started)

    def _memory_for(self, arriving: Arriving, lease: Lease | None) -> Vector | None:
        """Return the memory for the vector of a request; `None` if it has none."""
        if arriving.cls is not Exchange and arriving.cls is not Write:
            return None
        if self._connection.shared is not None:
            return self._connection.shared
        if lease is not None:
            return lease.vector
        if self._kept is None:
            self._kept = np.empty(self._shared.size, self._shared.dtype)
        return self._kept

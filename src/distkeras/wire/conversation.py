"""The server's side of one authenticated connection: requests in, replies out, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import Exchanged, Reply
from distkeras.center.requests import Exchange, Follow, Join, Leave, Order, Pull, Request, Write, sender_of
from distkeras.wire import frames
from distkeras.wire.admission import Caller
from distkeras.wire.connection import Arriving, Connection
from distkeras.wire.connection_log import ConnectionLog
from distkeras.wire.event_loop import IDLE, PARK, THREAD, EventLoop, Steps, Task
from distkeras.wire.staging import Lease, Staging
from distkeras.wire.traffic import Traffic

LARGE_BYTES = 2**18
"""Bytes of a vector from which on a connection has a thread: in the event loop all others would wait."""

_LONG = (Leave, Follow, Order, Write)
Answer = Callable[[Caller, Request], "Reply | frames.Stopped | None"]


@dataclass(frozen=True)
class Surroundings:
    """What all conversations of a server share.

    Attributes:
        loop: runs them.
        staging: lends room for vectors.
        answer: returns the reply to a request; `None` if it comes later.
        let_go: called with a `Leave` or a `Write` and its reply before that is sent.
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
        self._inline = self._straight = False
        self._lease: Lease | None = None
        self._task: Task | None = None
        self._kept: Vector | None = None
        self._hung_up = self._waits_for_room = False
        self._seen = 0

    @property
    def traffic(self) -> Traffic:
        """What the connection has carried."""
        return self._connection.traffic

    def start(self, done: Callable[[Exception | None], None]) -> None:
        """Answer requests from now on; `done` is called at the end with the exception that ended it."""
        connection, shared = self._connection, self._shared
        large = shared.num_bytes >= LARGE_BYTES
        # Whether the messages of exchanges come by the socket, to memory that is lent to many in turn.
        self._inline = connection.shared is None and not (shared.keeps_messages or shared.follows)
        self._straight = not (large and self._inline)  # A vector of that size does not come in one go.
        self._task = Task(connection.stream.sock, self._steps(), done, in_thread=large)
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
        moved = self._connection.stream.progress()
        stirs, self._seen = moved != self._seen or self._waits_for_room, moved
        return stirs

    def _wake(self) -> None:
        task = self._task
        if task is not None:
            self._shared.loop.wake(task)

    def _steps(self) -> Steps[None]:
        while True:
            if not self._connection.stream.ready():
                yield IDLE
            yield from self._exchange()

    def _exchange(self) -> Steps[None]:
        """Answer one request. With its end its vectors are free: a connection that is idle holds none."""
        connection, log = self._connection, self.log
        try:
            arrived: Any = self._arrived() if self._straight and connection.repeats is Exchange else None
            if arrived is None:
                arrived = yield from connection.beginning(self._shared.num_bytes)
                self._lease = yield from self._room_for(arrived.cls)
                # `Leave`, `Order` and `Write` may wait for a snapshot, `Follow` for something new.
                if arrived.cls in _LONG:
                    yield THREAD
            if type(arrived) is Arriving:
                arrived = yield from connection.finishing(arrived, self._memory_for(arrived.cls))
            request: Request = arrived
            if self._lease is not None:
                self._lease.moving = False
            started = time.monotonic() if log.tells_exchanges else 0.0
            reply = self._answer(request)
            if reply is None:
                self._give_back()  # The center holds the answer back, in memory of its own.
                waited = time.monotonic()
                reply = yield from self._wait_for_reply(type(request))
                if type(reply) is Exchanged:
                    reply.held = time.monotonic() - waited
            if type(request) in _LONG:
                self._shared.let_go(request, reply)
            if self._lease is not None:
                self._lease.moving = True
            if (rest := connection.posted(reply)) is not None:
                yield from connection.stream.sending(rest)
            if log.tells_exchanges:
                log.exchanged(request, reply, time.monotonic() - started)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._shared.staging.give_back(lease)

    def _arrived(self) -> Any:
        """Receive a small exchange, as `Connection.arrived`, if there is room for it now."""
        connection = self._connection
        if self._inline:
            self._lease = self._shared.staging.take_free(connection)
            if self._lease is None:
                return None
        try:
            arrived = connection.arrived(self._memory_for(Exchange))
        except BlockingIOError:
            arrived = None
        if arrived is None:
            self._give_back()
        return arrived

    def _room_for(self, cls: type) -> Steps[Lease | None]:
        """Return room for the vector of a request, or of its reply; `None` if it needs none."""
        if self._shared.follows or not (cls is Join or cls is Pull or (cls is Exchange and self._inline)):
            return None
        memory = cls is Exchange  # The center brings that of the others.
        lease = self._shared.staging.take(self._connection, self._wake, memory=memory)
        return lease or (yield from self._wait_for_room(memory))

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

    def _answer(self, request: Request) -> Reply | frames.Stopped | None:
        """Return the reply to a request; `None` if it comes later."""
        if type(request) is not Exchange or request.worker != self.log.worker:
            self.log.take(request)
            self.workers.add(sender_of(request))
        return self._shared.answer(self.caller, request)

    def _wait_for_reply(self, cls: type) -> Steps[Reply | frames.Stopped]:
        """Wait for a reply that comes from the request of another."""
        while True:
            yield PARK
            if self._hung_up:
                raise ConnectionError("The connection was ended.")
            if self.caller.replies:
                if cls in _LONG:
                    yield THREAD
                return self.caller.replies.popleft()

    def _memory_for(self, cls: type) -> Vector | None:
        """Return the memory for the vector of a request; `None` if it has none."""
        if cls is not Exchange and cls is not Write:
            return None
        if self._lease is not None:
            return self._lease.vector
        if self._connection.shared is not None:
            return self._connection.shared
        if self._kept is None:
            self._kept = np.empty(self._shared.size, self._shared.dtype)
        return self._kept

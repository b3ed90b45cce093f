"""Memory for vectors in transit through the server: as much for any number of workers."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.wire.connection import Connection

STAGING_BYTES = 48 * 2**20
"""Memory for vectors in transit, besides the room for one."""
MOST_LEASES = 4096
LEAST_RATE = 64 * 2**10
"""Bytes per second that a transfer must move while others wait for its memory."""
LAPSE_SECONDS = 10.0
"""Seconds over which that rate is taken."""


class Lease:
    """Room for one vector at the server.

    Attributes:
        vector: shape (size,); `None` if the center brings the memory.
        connection: moves the vector; `None` while the room is free.
        moving: whether the other side is expected to send or to receive.
    """

    __slots__ = ("_seen", "_since", "connection", "moving", "vector")

    def __init__(self) -> None:
        self.vector: Vector | None = None
        self.connection: Connection | None = None
        self.moving = False
        self._seen, self._since = 0, 0.0

    def lapsed(self, now: float, seconds: float) -> bool:
        """Return whether too few bytes have moved in the `seconds` before; called again and again."""
        if self.connection is None or not self.moving:
            self._since = 0.0
        elif not self._since:
            self._seen, self._since = self.connection.stream.progress(), now
        elif now - self._since >= seconds:
            moved, since = self.connection.stream.progress() - self._seen, self._since
            self._seen, self._since = self._seen + moved, now
            return moved < LEAST_RATE * (now - since)
        return False


class Staging:
    """Lends room for vectors. Who finds none waits its turn, and its message waits in the sender's system.

    A sender that stands still would keep its room for ever. While others wait, a transfer below `LEAST_RATE`
    loses its connection: the worker connects again and sends its message again, and the ledger knows whether
    the first one counted.

    Args:
        size: elements of a vector.
        dtype: their type.
        room: bytes for vectors; there is always room for one.
        lapse: seconds over which a transfer's rate is taken.
    """

    def __init__(
        self, size: int, dtype: npt.DTypeLike, room: int | None = None, lapse: float = LAPSE_SECONDS
    ) -> None:
        self._size, self._dtype, self._lapse = size, dtype, lapse
        num_bytes = max(size * np.dtype(dtype).itemsize, 1)
        room = STAGING_BYTES + num_bytes if room is None else room
        count = max(1, min(room // num_bytes, MOST_LEASES))
        self._leases = [Lease() for _ in range(count)]
        self._free = deque(self._leases)  # The last one used is the next, whose memory is in the caches.
        self._waiting: OrderedDict[Connection, Callable[[], None]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, connection: Connection, wake: Callable[[], None], *, memory: bool) -> Lease | None:
        """Return a lease; `None` if the connection has to ask again after `wake` was called.

        Args:
            connection: moves the vector.
            wake: called from any thread.
            memory: whether the lease brings memory, or the center will.
        """
        with self._lock:
            if not self._free or (self._waiting and next(iter(self._waiting)) is not connection):
                self._waiting[connection] = wake
                return None
            lease = self._free.pop() if memory else self._free.popleft()
            if not memory:
                lease.vector = None
            elif lease.vector is None:
                lease.vector = np.empty(self._size, self._dtype)
            lease.connection, lease.moving = connection, True
            if not self._waiting:
                return lease
            self._waiting.pop(connection, None)
            following = self._next()
        following()
        return lease

    def take_free(self, connection: Connection) -> Lease | None:
        """Return a lease with memory; `None` if there is none without waiting."""
        with self._lock:
            if not self._free or self._waiting:
                return None
            lease = self._free.pop()
            if lease.vector is None:
                lease.vector = np.empty(self._size, self._dtype)
            lease.connection, lease.moving = connection, True
            return lease

    def give_back(self, lease: Lease) -> None:
        """Take the room of a lease back."""
        with self._lock:
            lease.connection = None
            if lease.vector is None:
                self._free.appendleft(lease)
            else:
                self._free.append(lease)
            if not self._waiting:
                return
            following = self._next()
        following()

    def forget(self, connection: Connection) -> None:
        """Remove a connection that no longer waits."""
        with self._lock:
            self._waiting.pop(connection, None)
            following = self._next()
        following()

    def cut_lapsed(self, now: float) -> int:
        """End the connections of transfers that are too slow while others wait; return how many."""
        with self._lock:
            if not self._waiting:
                return 0
            lapsed = [lease for lease in self._leases if lease.lapsed(now, self._lapse)]
            connections = [lease.connection for lease in lapsed]
        for connection in filter(None, connections):
            connection.hang_up()
        return len(lapsed)

    def _next(self) -> Callable[[], None]:
        """Return how to wake the first who waits, if there is room."""
        return next(iter(self._waiting.values()), _nothing) if self._free else _nothing


def _nothing() -> None:
    """Wake nobody."""

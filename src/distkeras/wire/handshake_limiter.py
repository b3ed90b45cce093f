"""Limits for peers that have not proved the job's token: few at a time, slower after every failure."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_PENDING = 256
MAX_ADDRESSES = 1024
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
FORGET_SECONDS = 60.0
LOG_SECONDS = 10.0


@dataclass(eq=False)
class PendingHandshake:
    """A connection whose handshake has not ended.

    Attributes:
        address: address of the peer, without the port.
        hang_up: ends the connection, from any thread.
        evicted: set when another handshake has taken its place.
    """

    address: str
    hang_up: Callable[[], None]
    evicted: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Record:
    failures: int = 0
    last: float = 0.0
    logged: float | None = None
    unlogged: int = 0


class HandshakeLimiter:
    """Limits what peers without the token can cost, and locks out no peer that has it.

    A peer that proves the token is let in at once, whatever others at the same address did: executors and a
    misconfigured or hostile program may share an address. A peer that fails waits, longer after each failure
    of its address, and counts as pending while it waits. If there are too many handshakes, the limiter
    ends the oldest one of the address with the most.

    Args:
        clock: returns seconds, monotonic.
        limit: most pending handshakes at one time.
    """

    def __init__(self, clock: Callable[[], float], limit: int = MAX_PENDING) -> None:
        self._clock = clock
        self._limit = limit
        self._pending: OrderedDict[PendingHandshake, None] = OrderedDict()
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, handshake: PendingHandshake) -> None:
        """Add a new `handshake`; another one may be evicted for it."""
        with self._lock:
            self._pending[handshake] = None
            evicted = self._oldest_of_the_busiest() if len(self._pending) > self._limit else None
            if evicted is not None:
                del self._pending[evicted]
        if evicted is not None:
            evicted.evicted.set()
            evicted.hang_up()

    def end(self, handshake: PendingHandshake) -> None:
        """Remove a `handshake` that proved the token, or whose connection has ended."""
        with self._lock:
            self._pending.pop(handshake, None)

    def fail(self, address: str) -> tuple[float, int]:
        """Record a failure of `address`.

        Returns:
            How long not to answer it, in seconds, and how many failures to log now: 0 shortly after the last
            log message.
        """
        with self._lock:
            now = self._clock()
            record = self._records.setdefault(address, _Record())
            self._records.move_to_end(address)
            while len(self._records) > MAX_ADDRESSES:
                self._records.popitem(last=False)
            if now - record.last > FORGET_SECONDS:
                record.failures = 0
            record.failures, record.last = record.failures + 1, now
            record.unlogged += 1
            pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(record.failures - 1, 30))
            if record.logged is not None and now - record.logged < LOG_SECONDS:
                return pause, 0
            unlogged, record.logged, record.unlogged = record.unlogged, now, 0
            return pause, unlogged

    def _oldest_of_the_busiest(self) -> PendingHandshake:
        counts = Counter(handshake.address for handshake in self._pending)
        address, _ = counts.most_common(1)[0]
        return next(handshake for handshake in self._pending if handshake.address == address)

"""A lock that is taken in the order of numbers."""

from __future__ import annotations

import threading


class Turns:
    """Lets the operations on one shard pass in the order of their numbers: 1, 2, 3 and so on.

    Every number must pass once, in some thread: the next one waits for it.

    Attributes:
        lock: held during a turn, and by what needs no order.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._next = 1
        self._gates: dict[int, threading.Lock] = {}

    def begin(self, turn: int) -> None:
        """Wait for `turn`, and take the lock."""
        self.lock.acquire()
        if self._next == turn:
            return
        gate = self._gates[turn] = threading.Lock()
        gate.acquire()
        self.lock.release()
        gate.acquire()  # The turn before opens it.
        self.lock.acquire()

    def end(self) -> None:
        """Release the lock, and let the next turn begin."""
        self._next += 1
        gate = self._gates.pop(self._next, None) if self._gates else None
        self.lock.release()
        if gate is not None:
            gate.release()

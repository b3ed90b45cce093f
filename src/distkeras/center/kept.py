"""Copies of the center as it was when it had given numbers of rows: at the ends of epochs, for example."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from distkeras.algorithms import Vector
from distkeras.center.answers import Pulled, Refused

MOST = 2
"""Copies that a center keeps; the oldest goes for the next one."""


@dataclass(frozen=True)
class Copy:
    """A copy of the center.

    Attributes:
        center: read-only, shape (size,).
        num_updates: updates of the center by then.
    """

    center: Vector
    num_updates: int


class Kept:
    """Numbers of rows at which a copy is wanted, and the copies that have been made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: set[int] = set()
        self._copies: dict[int, Copy] = {}

    def want(self, samples: int) -> None:
        """Ask for a copy after the first message with which the center has `samples` rows."""
        with self._lock:
            if samples not in self._copies:
                self._wanted.add(samples)

    def reached(self, samples: int) -> tuple[int, ...]:
        """Return for which numbers of rows the center with `samples` rows is to be copied."""
        if not self._wanted:  # The usual case takes no lock.
            return ()
        with self._lock:
            found = tuple(sorted(wanted for wanted in self._wanted if wanted <= samples))
            self._wanted.difference_update(found)
            return found

    def pulled(self, samples: int) -> Pulled | Refused:
        """Return the answer to `Pull` for the copy with `samples` rows."""
        copy = self.get(samples)
        if copy is None:
            return Refused(f"there is no copy of the center at {samples} rows")
        return Pulled(copy.center, copy.num_updates)

    def make_room(self) -> None:
        """Drop the oldest copy if there are as many as are kept: the next one is about to be made."""
        with self._lock:
            self._drop_to(MOST - 1)

    def add(self, numbers: tuple[int, ...], center: Vector, num_updates: int) -> None:
        """Keep the copy `center` for `numbers` of rows."""
        center.flags.writeable = False
        with self._lock:
            for samples in numbers:
                self._copies[samples] = Copy(center, num_updates)
            self._drop_to(MOST)

    def make_again(self) -> None:
        """Drop the copies, and ask for all of them anew: after the next message, if their rows have come."""
        with self._lock:
            self._wanted.update(self._copies)
            self._copies.clear()

    def _drop_to(self, count: int) -> None:
        while len({id(copy.center) for copy in self._copies.values()}) > count:
            del self._copies[next(iter(self._copies))]

    def get(self, samples: int) -> Copy | None:
        """Return the copy for `samples` rows; `None` if there is none."""
        with self._lock:
            return self._copies.get(samples)

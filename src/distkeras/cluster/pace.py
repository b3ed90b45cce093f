"""How often the driver reads events: more often while the workers wait for it, or soon may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from distkeras.center.orders import FOREVER
from distkeras.events import Event, ServerRestored, Window

POLL_SECONDS, SOON_SECONDS = 0.1, 0.01
LEAD_SECONDS = 0.5
"""A boundary within so many seconds is soon."""
MEMORY = 0.9
"""Weight of what has been seen at the next poll, in the average of the rows a second."""


class Pace:
    """Follows the rows of the center from its events.

    Args:
        members: number of members of an ensemble, which have rows of their own; 0 for no ensemble.
    """

    def __init__(self, members: int = 0) -> None:
        self._members = members
        self._rows: defaultdict[int, int] = defaultdict(int)  # by member
        self._new = 0
        self._seen = (0.0, 0.0)  # Rows and seconds; recent ones weigh most.

    def take(self, event: Event) -> None:
        """Follow one event."""
        if isinstance(event, Window):
            self._rows[event.worker if self._members else 0] += event.samples
            self._new += event.samples
        elif isinstance(event, ServerRestored):  # Of an ensemble it tells the sum: at least those of each.
            self._rows = defaultdict(int, dict.fromkeys(range(max(1, self._members)), event.samples))

    def seconds(self, untils: Iterable[int | None], elapsed: float) -> float:
        """Return how long to wait before the next poll.

        Args:
            untils: numbers of rows from which the center holds answers; `None` and `FOREVER` for never.
            elapsed: seconds since the last call.
        """
        rows, seconds = self._seen
        self._seen = MEMORY * rows + self._new, MEMORY * seconds + elapsed
        self._new = 0
        holding = [until for until in untils if until is not None and until != FOREVER]
        if not holding:
            return POLL_SECONDS
        rows, seconds = self._seen
        coming = LEAD_SECONDS * rows / max(seconds, SOON_SECONDS)
        left = min(holding) - max(self._rows.values(), default=0)
        return SOON_SECONDS if left <= coming else POLL_SECONDS

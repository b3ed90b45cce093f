"""What is on its way in a simulation: messages, and failures of the whole job."""

from __future__ import annotations

import heapq
import math

from distkeras.simulation.outages import Moment
from distkeras.simulation.state import Arrival


class Transit:
    """A heap of arrivals, by time. Of several at one time, the first that was sent comes first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Arrival | Moment]] = []
        self._pushed = 0

    def push(self, time: float, worker: int, arrival: Arrival | Moment) -> None:
        """Add an arrival at `time`; never one at infinity."""
        if time < math.inf:
            heapq.heappush(self._heap, (time, self._pushed, worker, arrival))
            self._pushed += 1

    def pop(self) -> tuple[float, int, int, Arrival | Moment]:
        """Remove and return the next arrival: its time, number, worker and kind."""
        return heapq.heappop(self._heap)

    def next(self) -> tuple[float, int, Arrival | Moment] | None:
        """Return time, worker and kind of the next arrival; `None` if nothing is on its way."""
        if not self._heap:
            return None
        time, _, worker, arrival = self._heap[0]
        return time, worker, arrival

    def take_back(self, worker: int) -> bool:
        """Remove a commit that `worker` is still to send; return whether there was one."""
        kept = [entry for entry in self._heap if entry[2:] != (worker, Arrival.COMMIT)]
        found = len(kept) < len(self._heap)
        if found:
            self._heap = kept
            heapq.heapify(self._heap)
        return found

    def workers(self) -> set[int]:
        """Return the senders of what is on its way."""
        return {worker for _, _, worker, _ in self._heap}

    def drop_messages(self) -> None:
        """Remove all messages of workers."""
        self._heap = [entry for entry in self._heap if isinstance(entry[3], Moment)]
        heapq.heapify(self._heap)

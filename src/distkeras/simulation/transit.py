"""What is on its way in a simulation: messages, and failures of the whole job."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from distkeras.simulation.conditions import Network
from distkeras.simulation.outages import Moment
from distkeras.simulation.state import Arrival


class Transit:
    """A heap of arrivals, by time. Of several at one time, the first that was sent comes first.

    Args:
        network: how long messages take.
        sizes: number of elements of each fragment's messages; of all weights where there are no fragments.

    Attributes:
        whole: seconds that the whole vector takes.
    """

    def __init__(self, network: Network, sizes: Sequence[int]) -> None:
        self.whole = network.transfer(4 * sum(sizes))
        self._transfers = [network.transfer(4 * size) for size in sizes]
        self._heap: list[tuple[float, int, int, Arrival | Moment]] = []
        self._pushed = 0

    def push(self, time: float, worker: int, arrival: Arrival | Moment) -> None:
        """Add an arrival at `time`; never one at infinity."""
        if time < math.inf:
            heapq.heappush(self._heap, (time, self._pushed, worker, arrival))
            self._pushed += 1

    def pop(self) -> tuple[float, int, Arrival | Moment]:
        """Remove and return the next arrival: its time, worker and kind."""
        time, _, worker, arrival = heapq.heappop(self._heap)
        return time, worker, arrival

    def next(self) -> tuple[float, Arrival | Moment] | None:
        """Return time and kind of the next arrival; `None` if nothing is on its way."""
        return (self._heap[0][0], self._heap[0][3]) if self._heap else None

    def workers(self) -> set[int]:
        """Return the senders of what is on its way."""
        return {worker for _, _, worker, _ in self._heap}

    def drop_messages(self) -> None:
        """Remove all messages of workers."""
        self._heap = [entry for entry in self._heap if isinstance(entry[3], Moment)]
        heapq.heapify(self._heap)

    def seconds(self, sequence: int) -> float:
        """Return how long a worker's commit number `sequence` takes, or its reply."""
        return self._transfers[(sequence - 1) % len(self._transfers)]

"""The queue of the simulated parameter server."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distkeras.simulation.conditions import Network


@dataclass
class ServerQueue:
    """Handles one message at a time, first come first served.

    Several servers have equal parts of the vector and receive their parts of a message together, so that one
    queue stands for each of them.

    Attributes:
        network: how long the server handles a message.
        free: when it has handled all messages so far.
        busy: seconds for which it has handled messages.
        waiting: seconds for which messages have waited, all together.
        num_messages: messages so far.
        by_bytes: whether the time for a message depends on its bytes.
    """

    network: Network
    free: float = 0.0
    busy: float = 0.0
    waiting: float = 0.0
    num_messages: int = 0

    def __post_init__(self) -> None:
        network = self.network
        # Most networks have no throughput to divide by.
        self.by_bytes = not math.isinf(network.throughput)

    def done(self, arrived: float, num_bytes: int) -> float:
        """Return when the server would have handled a message of `num_bytes` that has `arrived`."""
        network = self.network
        seconds = network.handling(num_bytes) if self.by_bytes else network.service
        return (arrived if arrived > self.free else self.free) + seconds

    def take(self, arrived: float, num_bytes: int, done: float) -> None:
        """Handle the message, which is `done` then."""
        if self.free > arrived:
            self.waiting += self.free - arrived
        self.busy += self.network.handling(num_bytes) if self.by_bytes else self.network.service
        self.free = done
        self.num_messages += 1

"""The queue of the simulated parameter server."""

from __future__ import annotations

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
    """

    network: Network
    free: float = 0.0
    busy: float = 0.0
    waiting: float = 0.0
    num_messages: int = 0

    def done(self, arrived: float, num_bytes: int) -> float:
        """Return when the server would have handled a message of `num_bytes` that has `arrived`."""
        return max(arrived, self.free) + self.network.handling(num_bytes)

    def handle(self, arrived: float, num_bytes: int) -> float:
        """Handle the message; return when that is done."""
        self.waiting += max(0.0, self.free - arrived)
        self.busy += self.network.handling(num_bytes)
        self.free = self.done(arrived, num_bytes)
        self.num_messages += 1
        return self.free

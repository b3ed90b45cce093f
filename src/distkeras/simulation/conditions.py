"""What lies between the workers and the center, and what goes wrong there."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """The way to the center and back: `latency + bytes / bandwidth` each way, and a server in between.

    The server serves one message at a time, first come first served; a link is a worker's own.

    Args:
        latency: seconds one way.
        bandwidth: bytes a second of a worker's link, each way.
        service: seconds the server spends on a message.
    """

    latency: float = 0.0
    bandwidth: float = math.inf
    service: float = 0.0

    def __post_init__(self) -> None:
        for name in ("latency", "service"):
            _seconds(name, getattr(self, name))
        if not self.bandwidth > 0:
            raise ValueError(
                f"`bandwidth` must be positive (bytes a second). Received: bandwidth={self.bandwidth!r}"
            )

    def transfer(self, num_bytes: int) -> float:
        """Return the seconds that `num_bytes` take one way."""
        return self.latency + num_bytes / self.bandwidth


@dataclass(frozen=True)
class Failures:
    """What befalls a window, each with a probability of its own. Everything goes through the center's ledger.

    Args:
        crash: probability that the worker dies in a window. The window is lost; another process joins as
            this worker and starts from the center.
        restart: seconds from the death to the join.
        straggle: probability that a window is slow.
        slowdown: how many times slower it then is.
        lost_reply: probability that the answer to a commit is lost, so that the worker sends it again: a
            duplicate, which is answered and not applied.
        timeout: seconds from the loss to the second sending.
    """

    crash: float = 0.0
    restart: float = 0.0
    straggle: float = 0.0
    slowdown: float = 10.0
    lost_reply: float = 0.0
    timeout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crash", "straggle", "lost_reply"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"`{name}` must be a probability below 1. Received: {name}={value!r}")
        for name in ("restart", "timeout"):
            _seconds(name, getattr(self, name))
        if not 1 <= self.slowdown < math.inf:
            raise ValueError(
                f"`slowdown` must be at least 1 and finite. Received: slowdown={self.slowdown!r}"
            )


def _seconds(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be seconds, at least 0 and finite. Received: {name}={value!r}")

"""Conditions of a simulation: the network and failures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Network:
    """The network, with `latency + bytes / bandwidth` seconds in each direction, and the server.

    The server handles one message at a time, first come first served. Each worker has its own link.

    Args:
        latency: seconds in one direction.
        bandwidth: bytes per second of a worker's link, in each direction.
        service: seconds for which the server handles a message.
    """

    latency: float = 0.0
    bandwidth: float = math.inf
    service: float = 0.0

    def __post_init__(self) -> None:
        for name in ("latency", "service"):
            _seconds(name, getattr(self, name))
        if not self.bandwidth > 0:
            raise ValueError(
                f"`bandwidth` must be positive (bytes per second). Received: bandwidth={self.bandwidth!r}"
            )

    def transfer(self, num_bytes: int) -> float:
        """Return the seconds for `num_bytes` in one direction."""
        return self.latency + num_bytes / self.bandwidth


@dataclass(frozen=True)
class Failures:
    """Failures of windows, each with its own probability. The center's ledger handles them as in a real job.

    Args:
        crash: probability that the worker crashes in a window. The window is lost; another process joins as
            this worker and starts from the center.
        restart: seconds from the crash to the join.
        straggle: probability that a window is slow.
        slowdown: factor by which it is slower.
        lost_reply: probability that the reply to a commit is lost. The worker sends the commit again, and the
            server answers this duplicate without applying it.
        timeout: seconds from the loss to the duplicate.
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


@dataclass(frozen=True)
class Outages:
    """Failures of processes at random times, as on real machines, with exponential intervals.

    A worker that fails loses its current window. A server that fails loses all commits since its last
    snapshot and the windows that its workers train meanwhile; the workers rejoin. If the job fails, with its
    driver, all workers lose their current window; the server writes a last snapshot and loses nothing.

    Args:
        worker: mean seconds between two failures of one worker, while it trains.
        worker_restart: seconds from its failure to the join of its replacement.
        server: mean seconds between two failures of the parameter server; of several, of any of them.
        server_restart: seconds until the server accepts messages again.
        snapshot: seconds between two snapshots of the server.
        job: mean seconds between two failures of the whole job.
        job_restart: seconds until its workers join again.
        cut: mean seconds between two losses of one worker's connection. The worker sends a commit whose reply
            is lost again, and the server answers this duplicate without applying it.
        cut_restart: seconds until the worker sends it again.
        together: whether a failing worker stops all others, and all start again together after
            `worker_restart`, as the workers of a synchronous algorithm do on Spark.

    Raises:
        ValueError: seconds are negative or not finite, or means or `snapshot` are not positive.
    """

    worker: float = math.inf
    worker_restart: float = 0.0
    server: float = math.inf
    server_restart: float = 0.0
    snapshot: float = 60.0
    job: float = math.inf
    job_restart: float = 0.0
    cut: float = math.inf
    cut_restart: float = 0.0
    together: bool = False

    def __post_init__(self) -> None:
        for name in ("worker", "server", "job", "cut", "snapshot"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"`{name}` must be positive (seconds). Received: {name}={value!r}")
        for name in ("worker_restart", "server_restart", "job_restart", "cut_restart"):
            _seconds(name, getattr(self, name))

    def times_as_often(self, level: float) -> Outages:
        """Return a copy in which every failure and lost connection is `level` times as frequent."""
        if not 0 < level < math.inf:
            raise ValueError(f"`level` must be positive and finite. Received: level={level!r}")
        means = {name: getattr(self, name) / level for name in ("worker", "server", "job", "cut")}
        return replace(self, **means)


def _seconds(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be seconds, at least 0 and finite. Received: {name}={value!r}")

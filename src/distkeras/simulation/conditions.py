"""What lies between the workers and the center, and what goes wrong there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


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


@dataclass(frozen=True)
class Outages:
    """Processes that end at random times, as machines do: the time between two is exponential.

    A window in flight is lost with its worker. With the server is lost what it took since its last snapshot,
    and what its workers train meanwhile; they join anew. With the job, whose driver ends, all workers lose
    the window that they are in; the server writes a last snapshot and loses nothing.

    Args:
        worker: mean seconds between two failures of one worker, while it trains.
        worker_restart: seconds from its failure to the join of the process that replaces it.
        server: mean seconds between two failures of the parameter server; of several, of any of them.
        server_restart: seconds until it takes messages again.
        snapshot: seconds between two snapshots of it.
        job: mean seconds between two failures of the whole job.
        job_restart: seconds until its workers join again.
        cut: mean seconds between two cuts of one worker's connection. A reply that is cut off is asked for
            again: a duplicate, which is answered and not applied.
        cut_restart: seconds until the worker asks.
        together: a worker that fails takes all others with it, and all start together again, after
            `worker_restart`, as those of a synchronous rule do on Spark.

    Raises:
        ValueError: seconds that are negative or no numbers; means and `snapshot` that are not positive.
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
        """Return the same with every failure and cut `level` times as often."""
        if not 0 < level < math.inf:
            raise ValueError(f"`level` must be positive and finite. Received: level={level!r}")
        means = {name: getattr(self, name) / level for name in ("worker", "server", "job", "cut")}
        return replace(self, **means)


def _seconds(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be seconds, at least 0 and finite. Received: {name}={value!r}")

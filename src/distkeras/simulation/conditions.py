"""Conditions of a simulation: the network and failures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Seconds:
    """Virtual seconds between two evaluations of the center, in place of a number of commits.

    Args:
        seconds: positive and finite.

    Raises:
        ValueError: they are not.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"`seconds` must be positive and finite. Received: seconds={self.seconds!r}")


@dataclass(frozen=True)
class Length:
    """When a simulation ends: with the first of these.

    Args:
        num_commits: commits to the center, or rounds of a synchronous algorithm; `None` for no limit.
        until: virtual seconds.
        num_epoch: epochs of every worker's share; `None` for shares without end.
        elastic: whether workers train shares of a queue, instead of one share each.
        num_samples: rows of all workers; the commit that reaches them is the last. `None` for no limit.

    Raises:
        ValueError: a number is out of range, none is given, or `elastic` has no `num_epoch`.
    """

    num_commits: int | None = None
    until: float = math.inf
    num_epoch: int | None = None
    elastic: bool = False
    num_samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_commits", "num_epoch", "num_samples"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        if not self.until > 0:
            raise ValueError(f"`until` must be positive (virtual seconds). Received: until={self.until!r}")
        limits = (self.num_commits, self.num_epoch, self.num_samples)
        if all(limit is None for limit in limits) and math.isinf(self.until):
            raise ValueError(
                "Expected `num_commits`, `num_epoch`, `num_samples` or `until`: otherwise the run has no end."
            )
        if self.elastic and self.num_epoch is None:
            raise ValueError("`elastic` needs `num_epoch`: endless shares never pass to another worker.")

    @property
    def told(self) -> dict[str, int | float | bool | None]:
        """The fields as plain JSON, which knows no infinity."""
        return asdict(self) | {"until": None if math.isinf(self.until) else self.until}


@dataclass(frozen=True)
class Network:
    """The network, with `latency + bytes / bandwidth` seconds in each direction, and the server.

    The server handles one message at a time, first come first served. Several servers have equal parts of the
    vector, and work on the parts of a message at once. Each worker has its own link.

    Args:
        latency: seconds in one direction.
        bandwidth: bytes per second of a worker's link, in each direction.
        service: seconds for which a server handles a message, whatever its size.
        throughput: bytes of messages per second that one server handles; they add to `service`.
        servers: number of servers.
        frames: whether the bytes of a message include its header and text, as on the wire, once for each
            server. Without them they are those of the vector.

    Raises:
        ValueError: a number is out of range.
    """

    latency: float = 0.0
    bandwidth: float = math.inf
    service: float = 0.0
    throughput: float = math.inf
    servers: int = 1
    frames: bool = False

    def __post_init__(self) -> None:
        for name in ("latency", "service"):
            _seconds(name, getattr(self, name))
        for name in ("bandwidth", "throughput"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"`{name}` must be positive (bytes per second). Received: {name}={value!r}")
        if isinstance(self.servers, bool) or not isinstance(self.servers, int) or self.servers < 1:
            raise ValueError(f"`servers` must be a positive integer. Received: servers={self.servers!r}")

    def transfer(self, num_bytes: int) -> float:
        """Return the seconds for `num_bytes` in one direction."""
        return self.latency + num_bytes / self.bandwidth

    def handling(self, num_bytes: int) -> float:
        """Return the seconds for which the servers handle a message of `num_bytes`."""
        return self.service + num_bytes / self.servers / self.throughput


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

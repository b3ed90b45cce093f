"""Which faults befall a training, and when: drawn ahead from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

MINUTE = 60.0
MEAN_SECONDS = {"worker": 10 * MINUTE, "server": 20 * MINUTE, "driver": 30 * MINUTE, "network": 2 * MINUTE}
"""Between two faults of one process, or of the network, at level 1."""
DISK_SECONDS = 20 * MINUTE
SHARES = {
    "worker": (("kill worker", 0.7), ("kill executor", 0.1), ("stop worker", 0.2)),
    "server": (("kill server", 1.0),),
    "driver": (("kill driver", 1.0),),
    "network": (("cut", 0.75), ("delay", 0.25)),
    "disk": (("full disk", 1.0),),
}
LASTS = {"stop worker": (2.0, 60.0), "delay": (0.2, 5.0), "full disk": (5.0, 20.0)}
"""Seconds: drawn evenly on a logarithmic scale."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        at: seconds after the storm has begun.
        kind: such as "kill worker".
        target: which of them: an index of a worker or a server; 0 where there is one.
        lasts: seconds; 0 where it is over at once.
    """

    at: float
    kind: str
    target: int
    lasts: float = 0.0


@dataclass(frozen=True)
class Storm:
    """The faults of a run. The same storm, whatever it meets.

    Args:
        level: how many times as often as at level 1.
        seconds: how long.
        seed: of all draws.
        num_workers: processes that train.
        num_servers: processes that hold the center.
        disk: whether the disk is full now and then.

    Raises:
        ValueError: a level or a time that is not positive, or fewer than one worker or server.
    """

    level: float
    seconds: float
    seed: int
    num_workers: int = 3
    num_servers: int = 2
    disk: bool = True

    def __post_init__(self) -> None:
        for name in ("level", "seconds", "num_workers", "num_servers"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive and finite. Received: {name}={value!r}")

    def faults(self) -> list[Fault]:
        """Return all faults in the order of their times."""
        drawn = [
            fault
            for struck, count, mean in (
                ("worker", self.num_workers, MEAN_SECONDS["worker"]),
                ("server", self.num_servers, MEAN_SECONDS["server"]),
                ("driver", 1, MEAN_SECONDS["driver"]),
                ("network", 1, MEAN_SECONDS["network"]),
                ("disk", int(self.disk), DISK_SECONDS),
            )
            for target in range(count)
            for fault in self._of(struck, target, mean / self.level)
        ]
        return sorted(drawn, key=lambda fault: fault.at)

    def _of(self, struck: str, target: int, mean: float) -> Iterator[Fault]:
        # Each process has a source of chance of its own: another number of servers moves no worker's faults.
        chance = random.Random(f"{self.seed} {struck} {target}")
        kinds, weights = zip(*SHARES[struck], strict=True)
        at = chance.expovariate(1 / mean)
        while at < self.seconds:
            (kind,) = chance.choices(kinds, weights)
            lasts = 0.0
            if kind in LASTS:
                shortest, longest = LASTS[kind]
                lasts = shortest * (longest / shortest) ** chance.random()
            yield Fault(at, kind, target, lasts)
            at += chance.expovariate(1 / mean)

"""Times of process failures in a simulation, from their own random generator."""

from __future__ import annotations

import math
from enum import Enum

import numpy as np

from distkeras.simulation.conditions import Outages


class Moment(Enum):
    """Events of the whole job."""

    SNAPSHOT = "snapshot"
    SERVER_FAILS = "server fails"
    JOB_FAILS = "job fails"
    WORKERS_FAIL = "workers fail"


class Schedule:
    """The times at which processes fail.

    Args:
        outages: frequencies of the failures.
        num_workers: number of workers.
        chance: random generator of all draws.
    """

    def __init__(self, outages: Outages, num_workers: int, chance: np.random.Generator) -> None:
        self._chance = chance
        alone = math.inf if outages.together else outages.worker
        self._means = {
            Moment.SERVER_FAILS: outages.server,
            Moment.JOB_FAILS: outages.job,
            Moment.WORKERS_FAIL: outages.worker / num_workers if outages.together else math.inf,
        }
        # Only a server that fails needs snapshots.
        self._snapshot = math.inf if math.isinf(outages.server) else outages.snapshot
        self._worker_mean, self._cut_mean = alone, outages.cut
        self._failures = [self._after(0.0, alone) for _ in range(num_workers)]
        self._cuts = [self._after(0.0, outages.cut) for _ in range(num_workers)]

    def next(self, moment: Moment, now: float) -> float:
        """Return the next time of `moment` after `now`; infinity for never."""
        if moment is Moment.SNAPSHOT:
            return now + self._snapshot
        return self._after(now, self._means[moment])

    def failure_of(self, worker: int, start: float, end: float) -> float | None:
        """Return when a worker that trains from `start` to `end` fails; `None` if it does not fail."""
        if self._failures[worker] >= end:
            return None
        failed = max(start, self._failures[worker])  # It may have failed while it was waiting.
        self._failures[worker] = math.inf
        return failed

    def started(self, worker: int, now: float) -> None:
        """Record that a process has replaced a failed one."""
        self._failures[worker] = self._after(now, self._worker_mean)

    def is_cut(self, worker: int, now: float) -> bool:
        """Return whether a worker's connection has been lost since the last call for it."""
        if self._cuts[worker] > now:
            return False
        self._cuts[worker] = self._after(now, self._cut_mean)
        return True

    def _after(self, now: float, mean: float) -> float:
        return math.inf if math.isinf(mean) else now + float(self._chance.exponential(mean))

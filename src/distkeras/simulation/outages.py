"""When processes of a simulation fail, drawn from a source of chance of its own."""

from __future__ import annotations

import math
from enum import Enum

import numpy as np

from distkeras.simulation.conditions import Outages


class Moment(Enum):
    """What happens to the whole job at some moment."""

    SNAPSHOT = "snapshot"
    SERVER_FAILS = "server fails"
    JOB_FAILS = "job fails"
    WORKERS_FAIL = "workers fail"


class Schedule:
    """The moments at which processes fail.

    Args:
        outages: how often.
        num_workers: workers.
        chance: of all draws.
    """

    def __init__(self, outages: Outages, num_workers: int, chance: np.random.Generator) -> None:
        self._chance = chance
        alone = math.inf if outages.together else outages.worker
        self._means = {
            Moment.SERVER_FAILS: outages.server,
            Moment.JOB_FAILS: outages.job,
            Moment.WORKERS_FAIL: outages.worker / num_workers if outages.together else math.inf,
        }
        # Snapshots matter to a server that fails, and to nobody else.
        self._snapshot = math.inf if math.isinf(outages.server) else outages.snapshot
        self._worker_mean, self._cut_mean = alone, outages.cut
        self._failures = [self._after(0.0, alone) for _ in range(num_workers)]
        self._cuts = [self._after(0.0, outages.cut) for _ in range(num_workers)]

    def next(self, moment: Moment, now: float) -> float:
        """Return when `moment` comes next, after `now`; infinity: never."""
        if moment is Moment.SNAPSHOT:
            return now + self._snapshot
        return self._after(now, self._means[moment])

    def failure_of(self, worker: int, start: float, end: float) -> float | None:
        """Return when a worker fails that trains from `start` to `end`; `None`: it does not."""
        if self._failures[worker] >= end:
            return None
        failed = max(start, self._failures[worker])  # It may have failed while it waited.
        self._failures[worker] = math.inf
        return failed

    def started(self, worker: int, now: float) -> None:
        """Note that a process has taken the place of one that failed."""
        self._failures[worker] = self._after(now, self._worker_mean)

    def is_cut(self, worker: int, now: float) -> bool:
        """Return whether a worker's connection has been cut since it was last asked."""
        if self._cuts[worker] > now:
            return False
        self._cuts[worker] = self._after(now, self._cut_mean)
        return True

    def _after(self, now: float, mean: float) -> float:
        return math.inf if math.isinf(mean) else now + float(self._chance.exponential(mean))

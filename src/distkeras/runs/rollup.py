"""The events of a run, added up by second and by epoch, for those who look at it.

A training has millions of windows. What a page or a chart shows of them is here in a few megabytes: one
`Second` for each second in which windows came, one `Epoch` for each epoch, and every rare event as it is.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from distkeras.events import (
    EpochEnded,
    Reported,
    RoundClosed,
    RoundOpened,
    ServerRestored,
    ServerStatus,
    Timing,
    Window,
)
from distkeras.runs.counted import Seen
from distkeras.runs.event_files import RunResumed, Written
from distkeras.runs.lines import Lines
from distkeras.runs.records import EpochRecord

FOLDER = "rollups"
MOST_BUCKETS, MOST_ENTRIES = 2_000, 2**17
"""Buckets of one width, and workers in them all. Then the width doubles: a long run stays short to read."""
LATE = 60.0
"""Widths by which a window may come before the bucket that it is added to; else the clock was set back."""


class WorkerSecond(NamedTuple):
    """What a worker did in a bucket: sums over its windows, as in `Timing`."""

    rows: int = 0
    windows: int = 0
    computing: float = 0.0
    waiting: float = 0.0
    exchanging: float = 0.0
    blocked: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0
    resends: int = 0


SHARES = ("computing", "waiting", "exchanging", "blocked")
"""The fields of `WorkerSecond` and `Timing` that say where a worker's time went."""


@dataclass(frozen=True, slots=True)
class Second:
    """The windows of a bucket of time. A bucket that an epoch or a restart has cut comes in two parts.

    Attributes:
        start: begin of the bucket, in seconds since the Unix epoch; in a simulation, virtual seconds from 0.
        seconds: its width. It doubles in a long run.
        rows: rows of all workers.
        windows: windows of all workers.
        updates: updates of the center.
        samples: rows of the center at the end of the bucket, over the whole run; a restart takes some back.
        metrics: means of the metrics over the rows.
        staleness: numbers of windows with a staleness of 0, 1, 2 to 3, 4 to 7, 8 to 15, and so on.
        workers: the workers, by index.
    """

    start: float
    seconds: float
    rows: int
    windows: int
    updates: int
    samples: int
    metrics: dict[str, float]
    staleness: list[int]
    workers: dict[str, WorkerSecond]


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch of the center that the driver has closed.

    Attributes:
        epoch: the epoch, 0-based.
        logs: its logs, with those of the validation and of callbacks.
        samples: rows of the center at its end, over the whole run; 0 if they are unknown.
        seconds: seconds since the run began.
        timestamp: seconds since the Unix epoch; in a simulation, virtual seconds.
        member: in an ensemble, the member.
    """

    epoch: int
    logs: dict[str, float]
    samples: int
    seconds: float
    timestamp: float
    member: int | None = None


Rolled = Second | Epoch | Written
ROLLUPS = Lines(typing.get_args(Rolled))
_LEFT_OUT = (RoundOpened, RoundClosed, Reported)
"""Frequent events of which nobody looks at each."""


@dataclass
class Totals:
    """What counts of a run so far, after all that restarts have taken back. Give it everything, in order.

    Attributes:
        samples: rows of the center, over the whole run.
        windows: windows of all workers.
        updates: updates of the center.
    """

    samples: int = 0
    windows: int = 0
    updates: int = 0
    _base: tuple[int, int, int] = (0, 0, 0)  # What was before the first row of the present center,
    _epochs: int = 0  # and the epochs.
    _ends: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def take(self, rolled: Rolled) -> None:
        """Count a bucket, or what an event takes back."""
        if isinstance(rolled, Second):
            self.add(rolled.rows, rolled.windows, rolled.updates)
        elif isinstance(rolled, EpochEnded):
            self._ends[self._epochs + rolled.epoch] = self.samples, self.windows, self.updates
        elif isinstance(rolled, ServerRestored):
            samples, windows, updates = self._base
            self.samples = samples + rolled.samples
            self.windows, self.updates = windows + sum(rolled.commits), updates + rolled.num_updates
        elif isinstance(rolled, RunResumed) and rolled.source == "checkpoint":
            self._epochs = rolled.epochs
            self._base = self._ends.get(rolled.epochs - 1, (0, 0, 0))
            self.samples, self.windows, self.updates = self._base

    def add(self, rows: int, windows: int, updates: int) -> None:
        """Count more rows, windows and updates."""
        self.samples += rows
        self.windows += windows
        self.updates += updates

    def of_center(self, samples: int) -> int:
        """Return the rows over the whole run, of a center that has `samples` since it began."""
        return self._base[0] + samples


def epoch_of(record: EpochRecord, totals: Totals, began: float) -> Epoch:
    """Return what rollups have of the record of an epoch, in a run whose first driver `began` then."""
    samples = totals.of_center(record.samples) if record.samples else 0
    seconds, logs = record.timestamp - began, dict(record.logs)
    return Epoch(record.epoch, logs, samples, seconds, record.timestamp, record.member)


class Rollup:
    """Adds up the events of a run. The same events give the same rollups.

    Args:
        seconds: width of the first buckets.

    Attributes:
        totals: what counts so far.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.totals = Totals()
        self._seconds = seconds
        self._bucket: _Bucket | None = None
        self._end = -math.inf  # Of the last bucket.
        self._buckets = self._entries = 0
        self._seen = Seen()
        self._in_rounds = False  # Whether the windows of an update share its number.
        self._number: tuple[int, int] | None = None

    def add(self, event: Written) -> list[Rolled]:
        """Add an event; return what is complete now, in order."""
        if isinstance(event, Window):
            return self._add_window(event) if self._seen.is_new(event) else []
        if isinstance(event, RoundOpened):
            self._in_rounds = True
        if isinstance(event, RoundClosed):
            self._number = None
        if isinstance(event, _LEFT_OUT):
            return []
        if isinstance(event, ServerStatus):
            rolled, bucket = self._turn(event.timestamp)
            bucket.statuses[event.server] = event
            return rolled
        cuts = isinstance(event, EpochEnded | ServerRestored | RunResumed)
        rolled = self.flush() if cuts or self._is_over(event.timestamp) else []
        if isinstance(event, ServerRestored | RunResumed):
            self._seen.roll_back(event)
        if isinstance(event, EpochEnded):
            event = replace(event, states=b"")  # Many bytes that nobody looks at.
        self.totals.take(event)
        return [*rolled, event]

    def flush(self) -> list[Rolled]:
        """Return what has come of the last bucket, which ends."""
        bucket, self._bucket = self._bucket, None
        if bucket is None:
            return []
        rolled: list[Rolled] = [*bucket.statuses.values()]
        if bucket.workers:
            rolled.append(bucket.second(self.totals.samples))
        self._buckets += 1
        self._entries += len(bucket.workers)
        if self._buckets >= MOST_BUCKETS or self._entries >= MOST_ENTRIES:
            self._seconds *= 2
            self._buckets = self._entries = 0
        return rolled

    def _add_window(self, window: Window) -> list[Rolled]:
        rolled, bucket = self._turn(window.timestamp)
        updates = 0
        if window.verdict == "take":
            number = window.fragment, window.number
            updates = int(not self._in_rounds or number != self._number)
            self._number = number
        counts = window.samples, int(window.steps > 0), updates  # Last commits of fragments have no steps.
        self.totals.add(*counts)
        bucket.add(window, *counts)
        return rolled

    def _turn(self, timestamp: float) -> tuple[list[Rolled], _Bucket]:
        """Return what is complete before `timestamp`, and the bucket for it."""
        rolled = self.flush() if self._is_over(timestamp) else []
        if self._bucket is None:
            start = math.floor(timestamp / self._seconds) * self._seconds
            end = start + self._seconds
            if start < self._end <= timestamp:  # The first of a greater width begins where the last one ends.
                start = self._end
            self._bucket, self._end = _Bucket(start, end - start), end
        return rolled, self._bucket

    def _is_over(self, timestamp: float) -> bool:
        bucket = self._bucket
        if bucket is None:
            return False
        since = (timestamp - bucket.start) / bucket.seconds
        return not -LATE <= since < 1


@dataclass(slots=True)
class _Bucket:
    """What has come of a bucket."""

    start: float
    seconds: float
    rows: int = 0
    windows: int = 0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    staleness: list[int] = field(default_factory=list)
    workers: dict[int, list[Any]] = field(default_factory=dict)  # As `WorkerSecond`.
    statuses: dict[int, ServerStatus] = field(default_factory=dict)

    def add(self, window: Window, rows: int, windows: int, updates: int) -> None:
        self.rows += rows
        self.windows += windows
        self.updates += updates
        for name, value in window.metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + rows * value
            self.weights[name] = self.weights.get(name, 0) + rows
        place = window.staleness.bit_length()
        if place >= len(self.staleness):
            self.staleness += [0] * (place + 1 - len(self.staleness))
        self.staleness[place] += 1
        own = self.workers.get(window.worker)
        if own is None:
            own = self.workers[window.worker] = [0, 0, *Timing()]
        own[0] += rows
        own[1] += windows
        if window.timing is not None:
            for index, value in enumerate(window.timing, 2):
                own[index] += value

    def second(self, samples: int) -> Second:
        """Return the bucket; the center has `samples` rows at its end."""
        means = {name: total / self.weights[name] for name, total in self.sums.items() if self.weights[name]}
        workers = {str(worker): _rounded(self.workers[worker]) for worker in sorted(self.workers)}
        counts = self.rows, self.windows, self.updates, samples
        return Second(self.start, self.seconds, *counts, means, self.staleness, workers)


def _rounded(own: list[Any]) -> WorkerSecond:
    """Return what a worker did, in whole microseconds: longer numbers take more room and say no more."""
    return WorkerSecond(*own[:2], *(round(value, 6) for value in own[2:6]), *own[6:])

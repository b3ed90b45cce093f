"""What the page draws of one run, built from the run's rollups and sent on in parts."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras.events import (
    EpochEnded,
    ServerRestored,
    ServerStatus,
    SnapshotWritten,
    UpdateRefused,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)
from distkeras.monitor.dashboard.buckets import MOST, Buckets
from distkeras.monitor.dashboard.crew import ENDED, PARTS, Crew
from distkeras.monitor.dashboard.figures import LONG, listed, plain, rates_of, span_of
from distkeras.monitor.dashboard.servers import Servers
from distkeras.monitor.dashboard.wording import said
from distkeras.runs.event_files import CenterEvaluated, RunResumed
from distkeras.runs.rollup import SHARES, Epoch, Second, Totals

MOST_LINES = 2000
"""Lines of the log that are kept."""
MOST_NAMED = 16
"""Workers up to which each has its line; of more, the slowest do."""
SLOWEST = 3
STALENESS_GROUPS = 24
EXCHANGING, BLOCKED = PARTS.index("exchanging"), PARTS.index("blocked")
_KEPT = [PARTS.index(name) for name in ("rows", *SHARES)]
"""What is kept of each worker over time, in this order."""


class Picture:
    """The numbers of one run so far.

    Args:
        most: largest number of buckets.

    Attributes:
        crew: its workers.
        totals: what counts of rows, windows and updates.
        newest: timestamp of the newest entry; `None` before the first.
        broken: lines that could not be read.
    """

    def __init__(self, most: int = MOST) -> None:
        self.crew, self.servers = Crew(), Servers()
        self.buckets = Buckets(most)
        self.totals = Totals()
        self.newest: float | None = None
        self.broken = 0
        self._origin: float | None = None
        self._nonce = secrets.token_hex(4)
        self._resets = 0
        self._named: list[int] = []
        self._epochs: list[dict[str, Any]] = []
        self._ends: dict[int, float] = {}  # When the center had so many rows.
        self._evaluated: list[dict[str, Any]] = []
        self._log: deque[dict[str, Any]] = deque(maxlen=MOST_LINES)
        self._logged = 0

    def take(self, entry: Any) -> None:
        """Take the next entry of the rollups."""
        self.totals.take(entry)
        if isinstance(entry, Second):
            self._second(entry)
            return
        time = self._time_of(entry.timestamp, resumed=isinstance(entry, RunResumed))
        match entry:
            case Epoch():
                self._epoch(entry, time)
            case ServerStatus():
                self.servers.take(entry, self.buckets, self.buckets.at(time, self.buckets.width or 1.0))
            case SnapshotWritten():
                self.servers.wrote(entry, time)
            case CenterEvaluated():
                values = {name: plain(value) for name, value in entry.metrics.items()}
                self._evaluated.append({"t": time, "samples": entry.samples, "logs": values})
            case EpochEnded():
                self._ends[self.totals.of_center(entry.samples)] = time
            case RunResumed(source="checkpoint"):
                self._roll_back(entry.epochs)
            case _:
                self._event(entry, time)
        if (words := said(entry)) is not None:
            self._logged += 1
            line = {"n": self._logged, "t": round(time, 3), "kind": type(entry).__name__, **words._asdict()}
            self._log.append(line | {"worker": getattr(entry, "worker", None)})

    def _time_of(self, timestamp: float, *, resumed: bool = False) -> float:
        """Return seconds of training: the time between two drivers is left out."""
        if self._origin is None:
            self._origin = math.floor(timestamp)
        if resumed and self.newest is not None:
            self._origin += max(0.0, timestamp - self.newest)
        self.newest = timestamp if self.newest is None else max(timestamp, self.newest)
        return max(0.0, timestamp - self._origin)

    def _second(self, second: Second) -> None:
        time = self._time_of(second.start)
        self.newest = max(self.newest or 0.0, second.start + second.seconds)
        buckets, index = self.buckets, self.buckets.at(time, second.seconds)
        for name in ("rows", "windows", "updates"):
            buckets.add(index, name, getattr(second, name))
        buckets.put(index, "samples", second.samples)
        for name, value in second.metrics.items():
            buckets.add(index, f"metric {name}", value * second.rows)
            buckets.add(index, f"weight {name}", second.rows)
        counts = np.array(second.staleness[:STALENESS_GROUPS], np.float64)
        buckets.add_in(index, "staleness", np.arange(len(counts)), counts)
        if second.workers:
            self._worked(index, time, second.workers)

    def _worked(self, index: int, time: float, workers: Mapping[str, Sequence[float]]) -> None:
        """Take what each worker has done in a second, all at once: a run may have a thousand of them."""
        indices = np.fromiter(map(int, workers), np.int64, len(workers))
        values = np.fromiter(chain.from_iterable(workers.values()), np.float64, len(workers) * len(PARTS))
        parts = values.reshape(len(workers), len(PARTS))
        # What the server held back is a part of the exchange: here each second of a worker counts once.
        parts[:, EXCHANGING] -= parts[:, BLOCKED]
        self.crew.worked(indices, time, parts)
        self.buckets.add_in(index, "work", indices, parts[:, _KEPT])
        totals = parts.sum(axis=0)
        for part in ("bytes_out", "bytes_in"):
            self.buckets.add(index, part, float(totals[PARTS.index(part)]))

    def _event(self, event: Any, time: float) -> None:
        crew = self.crew
        match event:
            case WorkerPhase():
                crew.move(event.worker, time, event.phase)
            case WorkerJoined():
                crew.joined(event.worker, time, event.attempt, event.about)
            case WorkerLost():
                crew.trouble(event.worker)
                crew.move(event.worker, time, "lost")
            case WorkerBack():
                crew.move(event.worker, time, "training")
            case WorkerFailed():
                crew.trouble(event.worker)
                crew.move(event.worker, time, "failed")
            case WorkerLeft():
                crew.move(event.worker, time, "resting" if event.rests else "done")
            case UpdateRefused():
                crew.trouble(event.worker)
            case ServerRestored():
                crew.restored(event.left, time)

    def _epoch(self, entry: Epoch, time: float) -> None:
        """Take the logs of an epoch; a restarted server or a resumed driver may bring it again.

        They are of the center as it was when the epoch ended, which may be long before it was validated.
        """
        row = {"epoch": entry.epoch, "t": self._ends.get(entry.samples, time), "samples": entry.samples}
        logs = {name: plain(value) for name, value in entry.logs.items()}
        if entry.member is None:
            kept = [each for each in self._epochs if each["epoch"] < entry.epoch]
            self._resets += len(kept) < len(self._epochs)
            self._epochs = [*kept, {**row, "logs": logs}]
            return
        # Members of an ensemble end their epochs each at its own time: an epoch has the logs of all of them.
        rows = {each["epoch"]: each for each in self._epochs}
        known = rows.setdefault(entry.epoch, {**row, "t": time, "logs": {}})
        known["logs"] |= {f"{name}, member {entry.member}": value for name, value in logs.items()}
        self._epochs = [rows[epoch] for epoch in sorted(rows)]
        self._resets += 1

    def _roll_back(self, epochs: int) -> None:
        self._epochs = [each for each in self._epochs if each["epoch"] < epochs]
        self._resets += 1

    def head(self, rows: int | None, epochs: int | None, first: int = 0) -> dict[str, Any]:
        """Return the numbers at the top.

        Args:
            rows: rows of an epoch, if known.
            epochs: number of the last epoch, from 1, if known.
            first: number of the first epoch.
        """
        buckets = self.buckets
        rates = rates_of(buckets, buckets.sums("rows")[:, None], max(0, buckets.count - 1))
        rate = float(rates[-1, 0]) if buckets.count else None
        total = rows * (epochs - first) if rows and epochs else None
        left = (total - self.totals.samples) / rate if total and rate else None
        metrics = {name: plain(values[-1]) for name, values in self._metrics(0).items() if len(values)}
        return {
            "samples": self.totals.samples,
            "total": total,
            "windows": self.totals.windows,
            "updates": self.totals.updates,
            "epoch": first + (self.totals.samples // rows if rows else len(self._epochs)),
            "epochs": epochs,
            "rate": rate,
            "left": None if left is None else max(0.0, left),
            "seconds": self.buckets.until,
            "metrics": metrics,
            "logs": self._epochs[-1]["logs"] if self._epochs else {},
        }

    def since(self, cursor: str) -> dict[str, Any]:
        """Return what has come since `cursor`, an earlier answer's; all for another one, such as "".

        Columns begin at bucket `from`, whose earlier numbers they replace.
        """
        self._name_workers()
        start, epochs, logged, changed = self._place(cursor)
        crew, columns = self.crew, self._columns(start or 0)
        answer: dict[str, Any] = {
            "cursor": self.cursor,
            "reset": start is None,
            "from": start or 0,
            "width": self.buckets.width,
            "columns": columns,
            "workers": crew.table() | {"recent": self._recent(crew.indices())},
            "epochs": self._epochs[epochs:],
            "log": [line for line in self._log if line["n"] > logged],
            "servers": self.servers.facts(),
            "broken": self.broken,
        }
        if start is None:
            answer["evaluated"] = self._evaluated
        if changed != crew.changed:
            answer["lanes"] = crew.lanes()
        return answer

    @property
    def cursor(self) -> str:
        """What names the present state, for `since`."""
        last, resets = max(0, self.buckets.count - 1), self._resets + self.buckets.folds
        at = (resets + len(self._evaluated), last, len(self._epochs), self._logged, self.crew.changed)
        return ".".join([self._nonce, *map(str, at)])

    def _place(self, cursor: str) -> tuple[int | None, int, int, int]:
        nonce, *numbers = cursor.split(".")
        if nonce != self._nonce or len(numbers) != 5 or not all(map(str.isdecimal, numbers)):
            return None, 0, 0, -1
        resets, bucket, epochs, logged, changed = map(int, numbers)
        same = resets == self._resets + self.buckets.folds + len(self._evaluated)
        return (bucket, epochs, logged, changed) if same else (None, 0, 0, -1)

    def _name_workers(self) -> None:
        """Choose the workers with lines of their own: the slowest, if there are many."""
        workers = self.crew.workers
        named = self.crew.indices()
        if len(workers) > MOST_NAMED:
            alive = [index for index in named if workers[index].state not in ENDED] or named
            named = sorted(sorted(alive, key=self.crew.rows_of)[:SLOWEST])
        if named != self._named:
            self._named = named
            self._resets += 1

    def _metrics(self, since: int) -> dict[str, npt.NDArray[np.float64]]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                name: self.buckets.sums(f"metric {name}", since) / self.buckets.sums(f"weight {name}", since)
                for name in self.buckets.names("metric ")
            }

    def _columns(self, since: int) -> dict[str, Any]:
        buckets, indices = self.buckets, self.crew.indices()
        work = buckets.grid("work", indices, parts=(len(_KEPT),))
        rows = rates_of(buckets, work[..., 0], since, LONG)
        spent = work[since:, :, 1:].sum(axis=1)
        places = {index: place for place, index in enumerate(indices)}
        bands = np.quantile(rows, (0.1, 0.5, 0.9), axis=1) if len(indices) > MOST_NAMED else ()
        return {
            "rate": listed(rates_of(buckets, buckets.sums("rows")[:, None], since)[:, 0], 1),
            "samples": listed(buckets.states("samples", since), 0),
            "bytes_out": listed(buckets.sums("bytes_out", since), 0),
            "bytes_in": listed(buckets.sums("bytes_in", since), 0),
            "metrics": {name: listed(values, None) for name, values in self._metrics(since).items()},
            "shares": {part: listed(spent[:, place], 3) for place, part in enumerate(SHARES)},
            "staleness": buckets.grid("staleness", range(STALENESS_GROUPS), since).astype(int).tolist(),
            "named": {str(index): listed(rows[:, places[index]], 1) for index in self._named},
            "bands": [listed(band, 1) for band in bands],
            "servers": self.servers.columns(buckets, since),
        }

    def _recent(self, indices: list[int]) -> dict[str, list[Any]]:
        """Return each worker's rows a second, and where its time went, in the last seconds."""
        buckets = self.buckets
        if not buckets.count or not indices:
            return {}
        since = max(0, buckets.count - span_of(buckets, LONG))
        work = buckets.grid("work", indices, since, (len(_KEPT),)).sum(axis=0)
        rates = {"rate": listed(work[:, 0] / float(buckets.seconds(since).sum()), 1)}
        return rates | {part: listed(work[:, place], 3) for place, part in enumerate(SHARES, start=1)}

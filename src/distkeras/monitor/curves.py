"""The curves of a training over the rows of its center, for monitors that draw them elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distkeras.events import EpochEnded, ServerRestored, ServerStatus, Timing, Window
from distkeras.monitor.monitors import TrainingFacts
from distkeras.runs.event_files import CenterEvaluated, Written
from distkeras.runs.rollup import SHARES, Epoch, Rolled, Rollup, Second


@dataclass(frozen=True, slots=True)
class Point:
    """Values of some curves at one place.

    Attributes:
        worker: index of the worker, or in an ensemble of the member; `None` for the center.
        samples: rows of the center, over the whole run; in an ensemble, of the member alone for its points.
        timestamp: seconds since the Unix epoch; in a simulation, virtual seconds.
        values: the values by name, all finite or NaN.
    """

    worker: int | None
    samples: int
    timestamp: float
    values: Mapping[str, float]


class Curves:
    """Makes points of the events of a training: one a second of the center and of each worker, and the rare.

    Of a second: the means of the metrics over its rows, `rows_per_second`, the mean `staleness`, and how a
    worker's time was shared, such as `share/computing`, with `bytes_per_second/out` and `/in`. Of an epoch:
    its logs, as `epoch/loss` and `val_loss`. Of a server: `server-0/memory_bytes` and so on.

    Args:
        training: the training.
    """

    def __init__(self, training: TrainingFacts) -> None:
        self._behind = training.behind
        self._rollup = Rollup()
        self._sums: dict[int, _Sum] = {}
        self._held: Second | None = None
        self._held_sums: dict[int, _Sum] = {}
        members = training.members if training.members > 1 else 0
        self._own = dict.fromkeys(range(members), training.behind // max(1, members))  # Rows of each member.

    def samples(self, worker: int | None = None) -> int:
        """Return the rows of the center so far, over the whole run; in an ensemble, those of a member."""
        if worker in self._own:
            return self._own[worker]
        return self._behind + self._rollup.totals.samples

    def add(self, event: Written | Epoch) -> Iterator[Point]:
        """Yield the points that are complete with `event`."""
        if isinstance(event, Epoch):
            yield self._epoch(event)
            return
        for rolled in self._rollup.add(event):
            yield from self._points(rolled, is_cut=isinstance(event, EpochEnded))
        if isinstance(event, Window):
            self._sums.setdefault(event.worker, _Sum()).add(event)
            if event.worker in self._own:
                self._own[event.worker] += event.samples
        elif isinstance(event, ServerRestored):
            yield from self._close()
            # Exact for windows of one length. The ends of epochs say the rest.
            commits = max(1, sum(event.commits))
            self._own = {worker: event.samples * event.commits[worker] // commits for worker in self._own}
        elif isinstance(event, EpochEnded) and event.member in self._own:
            self._own[event.member] = self._behind // len(self._own) + event.samples

    def flush(self) -> Iterator[Point]:
        """Yield the points of what is left, at the end."""
        for rolled in self._rollup.flush():
            yield from self._points(rolled)
        yield from self._close()

    def _points(self, rolled: Rolled, *, is_cut: bool = False) -> Iterator[Point]:
        if isinstance(rolled, Second):
            # The end of an epoch cuts a second in two, which are one point.
            if self._held is not None and self._held.start != rolled.start:
                yield from self._close()
            for worker, own in self._sums.items():
                self._held_sums.setdefault(worker, _Sum()).join(own)
            self._held, self._sums = rolled, {}
            if not is_cut:
                yield from self._close()
        elif isinstance(rolled, ServerStatus):
            yield Point(None, self.samples(), rolled.timestamp, _of_server(rolled))
        elif isinstance(rolled, CenterEvaluated):
            values = {f"val_{name}": value for name, value in rolled.metrics.items()}
            yield Point(None, self._behind + rolled.samples, rolled.timestamp, values)

    def _close(self) -> Iterator[Point]:
        """Yield the points of the second that is held."""
        second, sums = self._held, self._held_sums
        self._held, self._held_sums = None, {}
        if second is None:
            return
        samples, end = self._behind + second.samples, second.start + second.seconds
        center = _Sum()
        for worker in sorted(sums):
            yield Point(worker, self._own.get(worker, samples), end, sums[worker].values(second.seconds))
            center.join(sums[worker])
        yield Point(None, samples, end, center.values(second.seconds))

    def _epoch(self, epoch: Epoch) -> Point:
        values = {
            name if name.startswith("val_") else f"epoch/{name}": float(value)
            for name, value in epoch.logs.items()
        }
        return Point(epoch.member, epoch.samples or self.samples(epoch.member), epoch.timestamp, values)


@dataclass(slots=True)
class _Sum:
    """Windows added up."""

    rows: int = 0
    windows: int = 0
    staleness: int = 0
    metrics: dict[str, tuple[float, int]] = field(default_factory=dict)
    timing: list[float] | None = None

    def add(self, window: Window) -> None:
        self.rows += window.samples
        self.windows += 1
        self.staleness += window.staleness
        for name, value in window.metrics.items():
            self._add_metric(name, value * window.samples, window.samples)
        self._add_timing(window.timing)

    def join(self, other: _Sum) -> None:
        self.rows += other.rows
        self.windows += other.windows
        self.staleness += other.staleness
        for name, (total, rows) in other.metrics.items():
            self._add_metric(name, total, rows)
        self._add_timing(other.timing)

    def values(self, seconds: float) -> dict[str, float]:
        """Return means, shares and rates of what came in so many seconds."""
        found = {name: total / rows for name, (total, rows) in self.metrics.items() if rows}
        found |= {
            "rows_per_second": self.rows / seconds,
            "staleness": self.staleness / max(1, self.windows),
        }
        if self.timing is None:
            return found
        timing = dict(zip(Timing._fields, self.timing, strict=True))
        together = timing["computing"] + timing["waiting"] + timing["exchanging"]
        if together > 0:
            found |= {f"share/{name}": timing[name] / together for name in SHARES}
        found["bytes_per_second/out"] = timing["bytes_out"] / seconds
        found["bytes_per_second/in"] = timing["bytes_in"] / seconds
        return found

    def _add_metric(self, name: str, total: float, rows: int) -> None:
        before, weight = self.metrics.get(name, (0.0, 0))
        self.metrics[name] = before + total, weight + rows

    def _add_timing(self, timing: Timing | list[float] | None) -> None:
        if timing is not None:
            before = self.timing or [0.0] * len(timing)
            self.timing = [old + new for old, new in zip(before, timing, strict=True)]


def _of_server(status: ServerStatus) -> dict[str, float]:
    values = {
        "memory_bytes": status.memory,
        "connections": status.connections,
        "apply_seconds_p50": status.apply_p50,
        "apply_seconds_p99": status.apply_p99,
        "center_norm": status.center_norm,
        "message_norm": status.message_norm,
    }
    return {
        f"server-{status.server}/{name}": float(value)
        for name, value in values.items()
        if math.isfinite(value)
    }

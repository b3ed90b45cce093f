"""The curves of a training: its metrics against time, samples and bytes."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from distkeras.events import ServerRestored, Window
from distkeras.runs import LoadedRun, RunResumed
from distkeras.runs.event_files import CenterEvaluated
from distkeras.runs.rollup import Epoch, Rolled, Rollup, Second, Totals

Along = Literal["time", "samples", "bytes"]

LABELS: Mapping[Along, str] = {
    "time": "seconds since the first commit",
    "samples": "rows of all workers together",
    "bytes": "bytes sent and received by all workers",
}
POINTS = 200
"""Points of a curve, about. A training of a few seconds has finer buckets than one second for them."""
FEW_SECONDS = 50


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric.

    Attributes:
        time: seconds since the first commit; those between two sessions of a run are left out.
        samples: rows of the center.
        bytes: bytes that all workers have sent and received by then.
        value: the value.
        rows: rows that it is a mean of.
    """

    time: float
    samples: int
    bytes: int
    value: float
    rows: int = 1


@dataclass
class Curves:
    """The metrics of one training.

    Attributes:
        label: name of the training.
        points: for each metric, its points in order: of a metric of the training means over short times, of a
            metric of the validation, `val_...`, one an epoch.
    """

    label: str
    points: dict[str, list[Point]] = field(default_factory=dict)

    def along(self, metric: str, along: Along) -> tuple[list[float], list[float]]:
        """Return the places and the values of a metric."""
        points = self.points.get(metric, [])
        return [float(getattr(point, along)) for point in points], [point.value for point in points]

    def has_bytes(self, metric: str) -> bool:
        """Whether bytes were measured."""
        return any(point.bytes for point in self.points.get(metric, []))


def curves_of(source: Any) -> Curves:
    """Return the curves of a training.

    Args:
        source: address of a run, a loaded run, a history, a trainer, or the result of a training or of a
            simulation.

    Raises:
        TypeError: it is none of these.
        ValueError: the training has no run directory, or there is no run.
    """
    if isinstance(source, str | os.PathLike):
        return _of_run(LoadedRun(os.fspath(source)))
    if isinstance(source, LoadedRun):
        return _of_run(source)
    if hasattr(source, "get_history"):
        return _of_history(source.get_history(), type(source).__name__)
    if hasattr(source, "versions") and hasattr(source, "losses"):
        return _of_simulation(source)
    if isinstance(source, list) and hasattr(source, "history"):
        return _of_history(source, "training")
    if hasattr(source, "checkpoints") and hasattr(source, "reason"):
        if source.run is None:
            raise ValueError(
                "Expected a training with a run directory: `train(..., run=...)`. Without one, pass its "
                "`get_history()`. Received: a result with run=None"
            )
        return _of_run(LoadedRun(source.run))
    raise TypeError(
        "Expected the address of a run, a history, a trainer, or the result of a training or a simulation. "
        f"Received: {type(source)}"
    )


def windows_in_buckets(windows: Sequence[Window], points: int = POINTS) -> Iterator[Second]:
    """Yield the windows added up in about so many buckets of time."""
    if not windows:
        return
    times = [window.timestamp for window in windows]
    rollup = Rollup(max(1e-6, (max(times) - min(times)) / points))
    for window in windows:
        yield from (each for each in rollup.add(window) if isinstance(each, Second))
    yield from (each for each in rollup.flush() if isinstance(each, Second))


class _Collector:
    """Collects the points of a training from its rollups, in order."""

    def __init__(self, label: str) -> None:
        self.curves = Curves(label)
        self._totals = Totals()
        self._bytes = 0
        self._of_center: set[str] = set()  # Metrics of the center itself.
        self._origin: float | None = None  # The time of the first commit, later for what was no training.
        self._end = 0.0

    def take(self, rolled: Rolled) -> None:
        """Take the next one."""
        if isinstance(rolled, Second):
            self._second(rolled)
            return
        if isinstance(rolled, Epoch):
            self._epoch(rolled)
            return
        if isinstance(rolled, CenterEvaluated):
            self._evaluated(rolled)
            return
        self._totals.take(rolled)
        if isinstance(rolled, ServerRestored | RunResumed):
            self._take_back()
        if isinstance(rolled, RunResumed):
            self.go_on(rolled.timestamp)

    def go_on(self, timestamp: float) -> None:
        """Leave out the time before another session, which begins now."""
        if self._origin is not None:
            self._origin += max(0.0, timestamp - self._end)
            self._end = max(self._end, timestamp)

    @property
    def samples(self) -> int:
        """Rows of the center so far."""
        return self._totals.samples

    def _second(self, second: Second) -> None:
        self._totals.take(second)
        if self._origin is None:
            self._origin = second.start
        self._end = max(self._end, second.start + second.seconds)
        self._bytes += sum(worker.bytes_out + worker.bytes_in for worker in second.workers.values())
        for name, value in second.metrics.items():
            if name in self._of_center:
                continue
            self._add(name, second.start + second.seconds, self._totals.samples, value, second.rows)

    def _epoch(self, epoch: Epoch) -> None:
        for name, value in epoch.logs.items():
            if name.startswith("val_") and not epoch.member:
                self._add(name, epoch.timestamp, epoch.samples or self._totals.samples, value)

    def _evaluated(self, event: CenterEvaluated) -> None:
        """Take an evaluation of a simulation: it says more than the windows of its workers."""
        if self._origin is None:
            self._origin = event.timestamp
        for name, value in event.metrics.items():
            if name not in self._of_center:
                self.curves.points.pop(name, None)
                self._of_center.add(name)
            self._add(name, event.timestamp, event.samples, value)

    def _add(self, name: str, timestamp: float, samples: int, value: float, rows: int = 1) -> None:
        time = 0.0 if self._origin is None else max(0.0, timestamp - self._origin)
        self.curves.points.setdefault(name, []).append(Point(time, samples, self._bytes, value, rows))

    def _take_back(self) -> None:
        """Drop the points of windows that do not count: they are trained again."""
        for name, points in self.curves.points.items():
            self.curves.points[name] = [each for each in points if each.samples <= self._totals.samples]


def _of_run(run: LoadedRun) -> Curves:
    collector = _Collector(run.address.rstrip("/").rpartition("/")[2])
    rollups = list(run.rollups())
    if sum(isinstance(each, Second) for each in rollups) < FEW_SECONDS:
        _take_finely(collector, run, rollups)
    else:
        for each in rollups:
            collector.take(each)
    return collector.curves


def _take_finely(collector: _Collector, run: LoadedRun, rollups: Sequence[Rolled]) -> None:
    """Take the windows of a short run that count, in finer buckets than its rollups have, and the epochs."""
    last = {(each.member, each.epoch): each for each in rollups if isinstance(each, Epoch)}
    known: list[Epoch | CenterEvaluated] = [*last.values()]
    known += [each for each in rollups if isinstance(each, CenterEvaluated)]
    epochs = deque(sorted(known, key=lambda each: each.samples))
    sessions = deque(each.timestamp for each in rollups if isinstance(each, RunResumed))
    for second in windows_in_buckets(list(run.windows())):
        while epochs and epochs[0].samples <= collector.samples:
            collector.take(epochs.popleft())
        while sessions and sessions[0] <= second.start:
            collector.go_on(sessions.popleft())
        collector.take(second)
    for epoch in epochs:
        collector.take(epoch)


def _of_history(history: Any, label: str) -> Curves:
    """Return the curves of the windows, and of the validations at the ends of the epochs of the center."""
    collector = _Collector(label)
    seconds = list(windows_in_buckets(history))
    for second in seconds:
        collector.take(second)
    curves = collector.curves
    points = next(iter(curves.points.values()), [])
    if not points or not history.epoch:
        return curves
    ends = list(accumulate(_rows_by_epoch(history)))
    for name, values in history.history.items():
        if name.startswith("val_") and len(values) == len(history.epoch) <= len(ends):
            curves.points[name] = [_at(points, end, value) for end, value in zip(ends, values, strict=False)]
    return curves


def _rows_by_epoch(history: Sequence[Window]) -> list[int]:
    """Return the rows of each epoch: those of all workers together are the same as those of the center."""
    rows: dict[int, int] = {}
    for window in history:
        rows[window.epoch] = rows.get(window.epoch, 0) + window.samples
    return [rows.get(epoch, 0) for epoch in range(max(rows) + 1)]


def _at(points: Sequence[Point], samples: int, value: float) -> Point:
    """Return a point for `value` where the center has so many samples."""
    found = next((point for point in points if point.samples >= samples), points[-1])
    return Point(found.time, samples, found.bytes, value)


def _of_simulation(result: Any) -> Curves:
    """Return the curves of a simulation, of which each evaluated version of the center is a point."""
    curves = Curves(f"{result.algorithm.name}, {result.num_workers} workers")
    total = int(result.bytes_sent) + int(result.bytes_received)
    last = max(1, int(result.samples[-1]))
    for name, values in {"loss": result.losses, **result.metrics}.items():
        curves.points[name] = [
            Point(
                float(time),
                int(result.samples[version]),
                total * int(result.samples[version]) // last,
                float(value),
            )
            for version, time, value in zip(result.versions, result.evaluated, values, strict=True)
            if math.isfinite(value)
        ]
    return curves

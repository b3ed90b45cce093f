"""The present state of a training in numbers, added up from its rollups."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from distkeras.events import (
    EpochEnded,
    EventsDropped,
    RecordFailed,
    ServerRestored,
    ServerStatus,
    SnapshotFailed,
    SnapshotWritten,
    UpdateRefused,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)
from distkeras.runs.event_files import CenterEvaluated, WriteFailed
from distkeras.runs.rollup import Epoch, Rolled, Second, Totals, WorkerSecond

STARTS, TRAINS, LOST, LEFT, FAILED = range(5)
"""States of a worker."""
_OF_WORKER = {
    "rows": "distkeras_worker_rows",
    "windows": "distkeras_worker_windows",
    "computing": "distkeras_worker_computing_seconds",
    "waiting": "distkeras_worker_waiting_seconds",
    "exchanging": "distkeras_worker_exchange_seconds",
    "blocked": "distkeras_worker_blocked_seconds",
    "bytes_out": "distkeras_worker_sent_bytes",
    "bytes_in": "distkeras_worker_received_bytes",
    "resends": "distkeras_worker_resends",
}
_COUNTED = {
    WorkerJoined: "distkeras_joins",
    ServerRestored: "distkeras_server_restores",
    SnapshotWritten: "distkeras_snapshots",
    UpdateRefused: "distkeras_refused_updates",
    SnapshotFailed: "distkeras_failed_writes",
    WriteFailed: "distkeras_failed_writes",
    RecordFailed: "distkeras_failed_writes",
}
_STATES: dict[type, int] = {WorkerBack: TRAINS, WorkerLost: LOST, WorkerLeft: LEFT, WorkerFailed: FAILED}
_NO_NAME = re.compile(r"\W")


@dataclass(frozen=True, slots=True)
class Value:
    """A number as Prometheus takes it.

    Attributes:
        kind: "counter" or "gauge". Prometheus adds `_total` to the name of a counter.
        name: the name.
        about: what it is.
        value: the number.
        worker: index of the worker as a text; `None` if it is of the whole training.
    """

    kind: Literal["counter", "gauge"]
    name: str
    about: str
    value: float
    worker: str | None = None


class Gauges:
    """The state of one training. Give it its rollups, in order.

    Args:
        run: name of the run, the label of every value.
        behind: rows of the run before those in the rollups; 0 for rollups of the whole run.
        target: rows with which the training ends; 0 if that is not known.
    """

    def __init__(self, run: str, behind: int = 0, target: int = 0) -> None:
        self.run = run
        self._behind, self._target = behind, target
        self._totals = Totals()
        self._workers: dict[str, list[float]] = {}
        self._states: dict[int, int] = {}
        self._counts: Counter[str] = Counter(dict.fromkeys(_COUNTED.values(), 0))
        self._staleness: list[int] = []
        self._metrics: dict[str, float] = {}
        self._servers: dict[int, ServerStatus] = {}
        self._snapshot: SnapshotWritten | None = None
        self._epochs = 0
        self._rate, self._start = 0.0, -math.inf

    def add(self, rolled: Rolled) -> None:
        """Take a rollup."""
        self._totals.take(rolled)
        if isinstance(rolled, Second):
            self._second(rolled)
        elif isinstance(rolled, Epoch):
            self._epochs = rolled.epoch + 1
            self._take_metrics(
                {n[4:]: v for n, v in rolled.logs.items() if n.startswith("val_")}, "validation"
            )
        elif isinstance(rolled, EpochEnded):
            self._epochs = max(self._epochs, rolled.epoch + 1)
        elif isinstance(rolled, CenterEvaluated):
            self._take_metrics(rolled.metrics, "validation")
        elif isinstance(rolled, ServerStatus):
            self._servers[rolled.server] = rolled
        elif isinstance(rolled, EventsDropped):
            self._counts["distkeras_dropped_events"] += rolled.count
        elif isinstance(rolled, WorkerPhase):
            self._states[rolled.worker] = TRAINS if rolled.phase == "training" else STARTS
        elif isinstance(rolled, WorkerJoined):
            self._states.setdefault(rolled.worker, STARTS)
        elif isinstance(rolled, WorkerBack | WorkerLost | WorkerLeft | WorkerFailed):
            self._states[rolled.worker] = _STATES[type(rolled)]
        if isinstance(rolled, SnapshotWritten):
            self._snapshot = rolled
        if type(rolled) in _COUNTED:
            self._counts[_COUNTED[type(rolled)]] += 1

    def values(self) -> Iterator[Value]:
        """Yield every number there is."""
        yield from self._of_center()
        yield from self._of_workers()
        yield from self._of_servers()
        if (last := self._snapshot) is not None:
            yield Value("gauge", "distkeras_snapshot_bytes", "Size of the last snapshot.", last.num_bytes)
            yield Value("gauge", "distkeras_snapshot_seconds", "Time for the last snapshot.", last.seconds)
        for name, count in sorted(self._counts.items()):
            yield Value("counter", name, "Number of these events.", count)

    def staleness_buckets(self) -> list[tuple[str, float]]:
        """Return how many windows had at most a staleness of 0, 1, 3, 7, ..., and of any."""
        counts = list(accumulate(self._staleness)) or [0]
        bounds = [(str(float(2**place - 1)), float(count)) for place, count in enumerate(counts)]
        return [*bounds, ("+Inf", float(counts[-1]))]

    def _second(self, second: Second) -> None:
        # The end of an epoch cuts a second in two.
        before = self._rate if self._start == second.start else 0.0
        self._rate, self._start = before + second.rows / second.seconds, second.start
        self._take_metrics(second.metrics, "metric")
        self._staleness += [0] * (len(second.staleness) - len(self._staleness))
        for place, count in enumerate(second.staleness):
            self._staleness[place] += count
        for worker, new in second.workers.items():
            old = self._workers.get(worker, WorkerSecond())
            self._workers[worker] = [a + b for a, b in zip(old, new, strict=True)]
            if self._states.get(int(worker), STARTS) == STARTS:
                self._states[int(worker)] = TRAINS

    def _take_metrics(self, metrics: dict[str, float], kind: str) -> None:
        for name, value in metrics.items():
            self._metrics[f"distkeras_{kind}_{_NO_NAME.sub('_', name)}"] = value

    def _of_center(self) -> Iterator[Value]:
        yield Value(
            "gauge", "distkeras_center_rows", "Rows of the center.", self._behind + self._totals.samples
        )
        yield Value("gauge", "distkeras_center_updates", "Updates of the center.", self._totals.updates)
        yield Value("gauge", "distkeras_center_epochs", "Epochs that have ended.", self._epochs)
        yield Value("gauge", "distkeras_rows_per_second", "Rows per second of all workers.", self._rate)
        if self._target:
            yield Value("gauge", "distkeras_target_rows", "Rows at which the training ends.", self._target)
        for name, value in sorted(self._metrics.items()):
            yield Value("gauge", name, "A metric: of the last second, or of the last validation.", value)

    def _of_workers(self) -> Iterator[Value]:
        for worker, state in sorted(self._states.items()):
            about = "0: starting, 1: training, 2: lost, 3: left, 4: failed."
            yield Value("gauge", "distkeras_worker_state", about, state, str(worker))
        for place, field in enumerate(WorkerSecond._fields):
            for name, sums in self._workers.items():
                yield Value("counter", _OF_WORKER[field], f"Total {field} of it.", sums[place], name)

    def _of_servers(self) -> Iterator[Value]:
        servers = list(self._servers.values())
        if not servers:
            return
        for name, field in (
            *(("cpu_seconds", "cpu"), ("exchanges", "exchanges")),
            *(("sent_bytes", "bytes_out"), ("received_bytes", "bytes_in")),
        ):
            total = sum(getattr(each, field) for each in servers)
            yield Value("counter", f"distkeras_server_{name}", "Of all servers since their start.", total)
        memory, connections = sum(s.memory for s in servers), sum(s.connections for s in servers)
        yield Value("gauge", "distkeras_server_memory_bytes", "Memory of all servers.", memory)
        yield Value("gauge", "distkeras_server_connections", "Connections of all servers.", connections)
        for name, field in (("apply_p50_seconds", "apply_p50"), ("apply_p99_seconds", "apply_p99")):
            slowest = max(getattr(each, field) for each in servers)
            yield Value("gauge", f"distkeras_server_{name}", "Time for a commit, on the slowest.", slowest)
        for name in ("center_norm", "message_norm"):
            norm = math.sqrt(sum(getattr(each, name) ** 2 for each in servers))
            yield Value("gauge", f"distkeras_{name}", "Euclidean norm, over all servers.", norm)

"""The workers of a run as its page shows them: state, attempt, history of states, where the time went."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras.runs.rollup import WorkerSecond

MOST_CHANGES = 200
"""Changes of state that are kept of each worker: shares of an elastic training rest after every epoch."""

ENDED = ("done", "failed")
NOT_YET = ("starting", "importing", "loading", "compiling", "waiting", "resting")
"""States of a worker whose next window says that it trains."""

PARTS = WorkerSecond._fields
"""What a worker has done, as rollups have it, in their order."""


@dataclass
class Worker:
    """One worker.

    Attributes:
        state: one of `NOT_YET`, "training", "lost", "failed" or "done".
        attempt: number of its process, from 0.
        since: time of the last change of state.
        about: host, device and so on, as its newest process has told.
        changes: (time, state, attempt) of each change of state.
        problems: how often it was lost, has failed or had a window refused.
    """

    state: str = "starting"
    attempt: int = 0
    since: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)
    changes: deque[tuple[float, str, int]] = field(default_factory=lambda: deque(maxlen=MOST_CHANGES))
    problems: int = 0


class Crew:
    """All workers of a run, by index.

    Attributes:
        workers: the workers that have been heard of.
        changed: number of changes of state so far, of all of them.
    """

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.changed = 0
        self._totals = np.zeros((8, len(PARTS)))

    def of(self, index: int) -> Worker:
        """Return a worker, a new one if nothing was known of it."""
        return self.workers.setdefault(index, Worker())

    def move(self, index: int, time: float, state: str, attempt: int | None = None) -> None:
        """Note the state of a worker."""
        worker = self.of(index)
        attempt = worker.attempt if attempt is None else attempt
        if worker.changes and (worker.state, worker.attempt) == (state, attempt):
            return
        worker.state, worker.attempt, worker.since = state, attempt, time
        worker.changes.append((time, state, attempt))
        self.changed += 1

    def joined(self, index: int, time: float, attempt: int, about: Any) -> None:
        """Note that a process of a worker has come; `about` has the facts of it, or is `None`."""
        worker = self.of(index)
        if about is not None:
            worker.about = {each.name: getattr(about, each.name) for each in fields(about)}
        if attempt != worker.attempt or not worker.changes or worker.state in ("lost", "resting", "failed"):
            self.move(index, time, "starting", attempt)

    def worked(self, indices: npt.NDArray[np.int64], time: float, parts: npt.NDArray[np.float64]) -> None:
        """Add what some workers have done from `time` on.

        Args:
            indices: the workers, shape (n,).
            time: when they have begun with it.
            parts: the `PARTS` of each, shape (n, 9).
        """
        size = int(indices.max()) + 1
        if size > len(self._totals):
            self._totals = np.concatenate([self._totals, np.zeros((size, len(PARTS)))])
        self._totals[indices] += parts
        for index in indices.tolist():
            worker = self.workers.get(index)
            # A Second is written when it is over: the worker may have ended or been lost since it began.
            if worker is None or worker.state in NOT_YET:
                self.move(index, time if worker is None else max(time, worker.since), "training")

    def rows_of(self, index: int) -> float:
        """Return how many rows a worker has trained."""
        return self._total(index, 0)

    def _total(self, index: int, place: int) -> float:
        return float(self._totals[index, place]) if index < len(self._totals) else 0.0

    def trouble(self, index: int) -> None:
        """Count a problem of a worker."""
        self.of(index).problems += 1

    def restored(self, left: Iterable[bool], time: float) -> None:
        """Note that a restored server does not know that some workers had ended."""
        for index, has_left in enumerate(left):
            if not has_left and index in self.workers and self.workers[index].state == "done":
                self.move(index, time, "waiting")

    def indices(self) -> list[int]:
        """Return the indices of the workers, in order."""
        return sorted(self.workers)

    def table(self) -> dict[str, list[Any]]:
        """Return the workers as columns, in the order of their indices."""
        indices = self.indices()
        each = [self.workers[index] for index in indices]
        columns: dict[str, list[Any]] = {
            "index": indices,
            "state": [worker.state for worker in each],
            "attempt": [worker.attempt for worker in each],
            "since": [round(worker.since, 2) for worker in each],
            "problems": [worker.problems for worker in each],
        }
        for place, name in enumerate(PARTS):
            columns[name] = [round(self._total(index, place), 3) for index in indices]
        for name in ("host", "device", "cores", "memory", "pid", "executor", "backend"):
            columns[name] = [worker.about.get(name) for worker in each]
        columns["share"] = [worker.about.get("rows") for worker in each]
        return columns

    def lanes(self) -> list[list[tuple[float, str, int]]]:
        """Return the changes of state of each worker, in the order of their indices."""
        return [
            [(round(time, 2), state, attempt) for time, state, attempt in self.workers[index].changes]
            for index in self.indices()
        ]

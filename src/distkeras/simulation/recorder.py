"""Records the trajectory of a simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.simulation.conditions import Length, Seconds
from distkeras.simulation.problem import Problem
from distkeras.simulation.result import Result
from distkeras.simulation.server_queue import ServerQueue

KEEP_BYTES = 2**30
"""Most memory for kept centers, in bytes."""

Tell = Callable[[int, int, dict[str, float], float], None]


class Recorder:
    """Records every commit, and evaluates the center at intervals.

    Args:
        problem: evaluates the center.
        length: when the run ends.
        evaluate_every: commits or virtual seconds between two evaluations.
        keep_centers: whether to keep every evaluated center, not only the last.

    Attributes:
        next_look: virtual time of the next evaluation at an even time; infinity for none.
        tell: receives rows, updates, metrics and time of each evaluated center.

    Raises:
        ValueError: the centers to keep would take more than `KEEP_BYTES`; where their number is not known
            before the run, as soon as they do.
    """

    def __init__(
        self,
        problem: Problem,
        length: Length,
        evaluate_every: int | Seconds,
        keep_centers: bool,
    ) -> None:
        self._evaluate_every, self._bytes = evaluate_every, problem.initial.nbytes
        if keep_centers:
            self._check_memory(_most_evaluations(length, evaluate_every))
        self._problem = problem
        self._num_commits = length.num_commits
        self._every_commits = None if isinstance(evaluate_every, Seconds) else evaluate_every
        self._every_seconds = evaluate_every.seconds if isinstance(evaluate_every, Seconds) else math.inf
        self._keep_centers = keep_centers
        self.tell: Tell = lambda *_: None
        self._times = [0.0]
        self._samples = [0]
        self._workers: list[int] = []
        self._staleness: list[int] = []
        self._versions: list[int] = []
        self._evaluated: list[float] = []
        self._centers: list[Vector] = []
        self._reports: list[dict[str, float]] = []
        self._looks, self.next_look = 1, self._every_seconds
        self.bytes_sent = 0
        self.bytes_received = 0
        self.num_crashes = 0
        self.num_duplicates = 0
        self.num_restored = 0
        self.num_stopped = 0

    def add(self, time: float, samples: int, worker: int, staleness: int) -> bool:
        """Record a commit; return whether the center must be evaluated now."""
        self._times.append(time)
        self._samples.append(self._samples[-1] + samples)
        self._workers.append(worker)
        self._staleness.append(staleness)
        version = len(self._workers)
        if self._every_commits is not None and version % self._every_commits == 0:
            return True
        return version == self._num_commits

    @property
    def num_samples(self) -> int:
        """Rows behind the last version."""
        return self._samples[-1]

    def look(self, read: Callable[[], Vector]) -> None:
        """Record the metrics of the center, which `read` returns, at `next_look`."""
        time, self._looks = self.next_look, self._looks + 1
        self.next_look = self._looks * self._every_seconds
        if self._versions[-1] != len(self._workers):
            self._evaluate(read(), time)
        else:  # The center is the same.
            self._note(self._centers[-1], self._reports[-1], time)

    def evaluate(self, center: Vector) -> None:
        """Record the problem's metrics of `center`, the last version, unless they are recorded already."""
        if not self._versions or self._versions[-1] != len(self._workers):
            self._evaluate(center, self._times[-1])

    def _evaluate(self, center: Vector, time: float) -> None:
        self._note(center, self._problem.evaluate(center), time)

    def _note(self, center: Vector, report: dict[str, float], time: float) -> None:
        if self._keep_centers:
            self._check_memory(len(self._centers) + 1)
        else:
            self._centers.clear()
        version = len(self._workers)
        self._centers.append(center)
        self._versions.append(version)
        self._reports.append(report)
        self._evaluated.append(time)
        self.tell(self._samples[-1], version, report, time)

    def _check_memory(self, count: int) -> None:
        """Raise ValueError if so many centers are too many to keep."""
        if count * self._bytes > KEEP_BYTES:
            raise ValueError(
                f"{count} centers would take {count * self._bytes / 2**30:.1f} GiB: pass a larger "
                "`evaluate_every`, or keep_centers=False. "
                f"Received: evaluate_every={self._evaluate_every}"
            )

    def roll_back(self, version: int, center: Vector) -> None:
        """Drop what came after `version`, whose center is `center`; it will be trained again."""
        del self._times[version + 1 :], self._samples[version + 1 :]
        del self._workers[version:], self._staleness[version:]
        while self._versions and self._versions[-1] > version:
            self._versions.pop()
            self._reports.pop()
            self._evaluated.pop()
            if self._centers:  # Without `keep_centers` there is only the last one.
                self._centers.pop()
        self.num_restored += 1
        self.evaluate(center)

    def result(self, algorithm: Algorithm, num_workers: int, diverged: bool, queue: ServerQueue) -> Result:
        """Return the recorded trajectory, and how busy the server was."""
        metrics = {
            name: np.array([report[name] for report in self._reports], np.float64)
            for name in self._reports[0]
        }
        return Result(
            algorithm=algorithm,
            num_workers=num_workers,
            times=np.array(self._times, np.float64),
            samples=np.array(self._samples, np.int64),
            workers=np.array(self._workers, np.int64),
            staleness=np.array(self._staleness, np.int64),
            versions=np.array(self._versions, np.int64),
            evaluated=np.array(self._evaluated, np.float64),
            centers=np.stack(self._centers),
            losses=metrics.pop("loss"),
            metrics=metrics,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            num_crashes=self.num_crashes,
            num_duplicates=self.num_duplicates,
            num_restored=self.num_restored,
            num_stopped=self.num_stopped,
            server_seconds=queue.busy,
            waiting_seconds=queue.waiting,
            num_messages=queue.num_messages,
            diverged=diverged,
        )


def _most_evaluations(length: Length, evaluate_every: int | Seconds) -> int:
    """Return how many evaluations there are at most; 0 if that is not known before the run."""
    if isinstance(evaluate_every, Seconds):
        return 0 if math.isinf(length.until) else 2 + int(length.until // evaluate_every.seconds)
    return 0 if length.num_commits is None else 1 + -(-length.num_commits // evaluate_every)

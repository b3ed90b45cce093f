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

TOGETHER, TOGETHER_BYTES = 256, 2**20
"""Most centers, and most of their bytes, that wait to be evaluated together."""

Tell = Callable[[int, int, dict[str, float], float], None]


class Recorder:
    """Records every commit, and evaluates the center at intervals.

    Args:
        problem: evaluates the center.
        length: when the run ends.
        evaluate_every: commits or virtual seconds between two evaluations.
        keep_centers: whether to keep every evaluated center, not only the last.

    Attributes:
        num_samples: rows behind the last version.
        next_look: virtual time of the next evaluation at an even time; infinity for none.
        tell: receives rows, updates, metrics and time of each evaluated center; `None` for nobody.

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
        self._most = KEEP_BYTES // self._bytes if keep_centers else math.inf
        self._check_memory(_most_evaluations(length, evaluate_every))
        self._problem = problem
        self._num_commits = length.num_commits
        self._every_commits = None if isinstance(evaluate_every, Seconds) else evaluate_every
        self._every_seconds = evaluate_every.seconds if isinstance(evaluate_every, Seconds) else math.inf
        self._keep_centers = keep_centers
        self.tell: Tell | None = None
        self._evaluate_many: Callable[[list[Vector]], list[dict[str, float]]] | None
        # A subclass that evaluates in its own way is obeyed.
        alike = _owner(problem, "evaluate") is _owner(problem, "evaluate_many")
        self._evaluate_many = getattr(problem, "evaluate_many", None) if alike else None
        self._together = min(TOGETHER, TOGETHER_BYTES // self._bytes)
        self._waiting: list[Vector] = []  # The last centers, whose reports are still to come.
        self.num_samples = self._version = 0
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
        self.num_samples += samples
        self._times.append(time)
        self._samples.append(self.num_samples)
        self._workers.append(worker)
        self._staleness.append(staleness)
        version = self._version = self._version + 1
        every = self._every_commits
        return version == self._num_commits or (every is not None and version % every == 0)

    def look(self, read: Callable[[], Vector]) -> None:
        """Record the metrics of the center, which `read` returns, at `next_look`."""
        time, self._looks = self.next_look, self._looks + 1
        self.next_look = self._looks * self._every_seconds
        if self._versions[-1] != self._version:
            self._evaluate(read(), time)
        else:  # The center is the same.
            self._report()
            self._keep(self._centers[-1], time)
            self._take(self._reports[-1], time)

    def evaluate(self, center: Vector) -> None:
        """Record the problem's metrics of `center`, the last version, unless they are recorded already."""
        if not self._versions or self._versions[-1] != self._version:
            self._evaluate(center, self._times[-1])

    def _evaluate(self, center: Vector, time: float) -> None:
        self._keep(center, time)
        if self._evaluate_many is None or self.tell is not None or self._together < 2:
            self._take(self._problem.evaluate(center), time)
            return
        self._waiting.append(center)
        if len(self._waiting) >= self._together:
            self._report()

    def _keep(self, center: Vector, time: float) -> None:
        """Keep a center that is evaluated, without its metrics."""
        if not self._keep_centers:
            self._centers.clear()
        self._centers.append(center)
        if len(self._centers) > self._most:
            self._check_memory(len(self._centers))
        self._versions.append(self._version)
        self._evaluated.append(time)

    def _take(self, report: dict[str, float], time: float) -> None:
        """Note the metrics of the last center."""
        self._reports.append(report)
        if self.tell is not None:
            self.tell(self._samples[-1], self._versions[-1], report, time)

    def _report(self) -> None:
        """Evaluate the centers that wait."""
        if self._evaluate_many is not None and self._waiting:
            self._reports += self._evaluate_many(self._waiting)
            self._waiting.clear()

    def _check_memory(self, count: int) -> None:
        """Raise ValueError if so many centers are too many to keep."""
        if count > self._most:
            raise ValueError(
                f"{count} centers would take {count * self._bytes / 2**30:.1f} GiB: pass a larger "
                "`evaluate_every`, or keep_centers=False. "
                f"Received: evaluate_every={self._evaluate_every}"
            )

    def roll_back(self, version: int, center: Vector) -> None:
        """Drop what came after `version`, whose center is `center`; it will be trained again."""
        self._report()
        del self._times[version + 1 :], self._samples[version + 1 :]
        del self._workers[version:], self._staleness[version:]
        self.num_samples, self._version = self._samples[-1], version
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
        self._report()
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


def _owner(problem: Problem, name: str) -> type | None:
    """Return the class that defines a method of `problem`."""
    return next((cls for cls in type(problem).__mro__ if name in vars(cls)), None)


def _most_evaluations(length: Length, evaluate_every: int | Seconds) -> int:
    """Return how many evaluations there are at most; 0 if that is not known before the run."""
    if isinstance(evaluate_every, Seconds):
        return 0 if math.isinf(length.until) else 2 + int(length.until // evaluate_every.seconds)
    return 0 if length.num_commits is None else 1 + -(-length.num_commits // evaluate_every)

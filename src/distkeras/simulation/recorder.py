"""Records the trajectory of a simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.simulation.problem import Problem
from distkeras.simulation.result import Result

KEEP_BYTES = 2**30
"""Most memory for kept centers, in bytes."""

Tell = Callable[[int, int, dict[str, float], float], None]


class Recorder:
    """Records every commit, and evaluates the center at intervals.

    Args:
        problem: evaluates the center.
        num_commits: largest number of commits.
        evaluate_every: commits between two evaluations.
        keep_centers: whether to keep every evaluated center, not only the last.

    Attributes:
        tell: receives rows, updates, metrics and time of each evaluated center.

    Raises:
        ValueError: the centers to keep would take more than `KEEP_BYTES`.
    """

    def __init__(
        self,
        problem: Problem,
        num_commits: int,
        evaluate_every: int,
        keep_centers: bool,
    ) -> None:
        rows = 1 + -(-num_commits // evaluate_every)
        num_bytes = rows * problem.initial.nbytes
        if keep_centers and num_bytes > KEEP_BYTES:
            raise ValueError(
                f"{rows} centers would take {num_bytes / 2**30:.1f} GiB: pass a larger `evaluate_every`, or "
                f"keep_centers=False. Received: evaluate_every={evaluate_every}, num_commits={num_commits}"
            )
        self._problem = problem
        self._num_commits = num_commits
        self._evaluate_every = evaluate_every
        self._keep_centers = keep_centers
        self.tell: Tell = lambda *_: None
        self._times = [0.0]
        self._samples = [0]
        self._workers: list[int] = []
        self._staleness: list[int] = []
        self._versions: list[int] = []
        self._centers: list[Vector] = []
        self._reports: list[dict[str, float]] = []
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
        return version % self._evaluate_every == 0 or version == self._num_commits

    def evaluate(self, center: Vector) -> None:
        """Record the problem's metrics of `center`, the last version, unless they are recorded already."""
        version = len(self._workers)
        if self._versions and self._versions[-1] == version:
            return
        if not self._keep_centers:
            self._centers.clear()
        self._centers.append(center)
        self._versions.append(version)
        self._reports.append(self._problem.evaluate(center))
        self.tell(self._samples[-1], version, self._reports[-1], self._times[-1])

    def roll_back(self, version: int, center: Vector) -> None:
        """Drop what came after `version`, whose center is `center`; it will be trained again."""
        del self._times[version + 1 :], self._samples[version + 1 :]
        del self._workers[version:], self._staleness[version:]
        while self._versions and self._versions[-1] > version:
            self._versions.pop()
            self._reports.pop()
            if self._centers:  # Without `keep_centers` there is only the last one.
                self._centers.pop()
        self.num_restored += 1
        self.evaluate(center)

    def result(self, algorithm: Algorithm, num_workers: int, diverged: bool) -> Result:
        """Return the recorded trajectory."""
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
            centers=np.stack(self._centers),
            losses=metrics.pop("loss"),
            metrics=metrics,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            num_crashes=self.num_crashes,
            num_duplicates=self.num_duplicates,
            num_restored=self.num_restored,
            num_stopped=self.num_stopped,
            diverged=diverged,
        )

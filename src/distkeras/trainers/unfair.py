"""Says where workers of unequal speed meet an algorithm that gives the fast ones a larger part."""

from __future__ import annotations

from collections import defaultdict

from distkeras.algorithms import Algorithm, is_fair
from distkeras.events import Window

UNEQUAL = 2.0
"""How much faster than the slowest worker the fastest one must be: below, it may be chance."""
ENOUGH = 10
"""Windows of each worker from which its speed is known."""


class UnfairWarning(UserWarning):
    """Fast workers have a larger part in the model than slow ones, by the algorithm of the training."""


class Speeds:
    """The speeds of the workers of one training, from their windows.

    Args:
        algorithm: the algorithm of the training.
        quorum: messages that complete a synchronous round; `None` for those of all workers.
        fair: whether speeds do no harm, whatever the algorithm: in an elastic training the workers of the
            events are shares of the rows, which whoever is free trains; in an ensemble each has a model of
            its own.
    """

    def __init__(self, algorithm: Algorithm, quorum: int | None, fair: bool = False) -> None:
        self._algorithm, self._fair = algorithm, fair or is_fair(algorithm, quorum)
        self._steps: dict[int, int] = defaultdict(int)
        self._seconds: dict[int, float] = defaultdict(float)
        self._windows: dict[int, int] = defaultdict(int)
        self._told = False

    def take(self, window: Window) -> None:
        """Count a window. The first one of a worker compiles the step, and does not count."""
        if self._fair or window.timing is None or not window.iteration:
            return
        self._steps[window.worker] += window.steps
        self._seconds[window.worker] += window.timing.computing + window.timing.waiting
        self._windows[window.worker] += 1

    def warning(self) -> str | None:
        """Return what is to be said of the speeds so far, once; `None` for nothing."""
        speeds = {
            worker: self._steps[worker] / seconds
            for worker, seconds in self._seconds.items()
            if seconds and self._windows[worker] >= ENOUGH
        }
        if self._told or len(speeds) < 2:
            return None
        slow, fast = (choice(speeds, key=lambda worker: speeds[worker]) for choice in (min, max))
        if speeds[fast] < UNEQUAL * speeds[slow]:
            return None
        self._told = True
        return (
            f"Worker {fast} trains {speeds[fast]:.3g} minibatches a second, worker {slow} "
            f"{speeds[slow]:.3g}, and with {self._algorithm.name} faster workers have more influence on "
            "the model. This does no harm if all workers have similar rows. If they do not, for example if "
            "labels differ by machine, shuffle the rows (`train(shuffle=True)`), or choose RescaledASGD, "
            "RingleaderASGD or a synchronous algorithm. See docs/algorithms.md, Fairness."
        )

"""Says where workers of unequal speed meet an algorithm that gives the fast ones a larger part."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque

from distkeras.algorithms import Algorithm, is_fair
from distkeras.events import Window

UNEQUAL = 2.0
"""How much faster than the slowest worker the fastest one must be: below, it may be chance."""
ENOUGH = 10
"""Windows of each worker from which its speed is known."""
RECENT = 100
"""Windows of each worker of which its speed is the median: one in which it compiled, or stood still, does not
count."""


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
        self._recent: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._told = False

    def take(self, window: Window) -> None:
        """Count a window. The first one of a worker compiles the step, and does not count."""
        if self._fair or window.timing is None or not window.iteration:
            return
        seconds = window.timing.computing + window.timing.waiting
        if seconds:
            self._recent[window.worker].append(window.steps / seconds)

    def warning(self) -> str | None:
        """Return what is to be said of the speeds so far, once; `None` for nothing."""
        speeds = {
            worker: statistics.median(recent)
            for worker, recent in self._recent.items()
            if len(recent) >= ENOUGH
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

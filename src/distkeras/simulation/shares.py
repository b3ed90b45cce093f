"""The shares of the rows: which machine trains which share, and when a share has run out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from distkeras.center import CenterConfig
from distkeras.simulation.problem import Problem


class Shares:
    """Counts the steps that are left of each worker's share, over all epochs.

    Without `num_epoch`, shares have no end. In an elastic training, the workers of the center are shares,
    four for each machine. A machine trains a share for one epoch and then takes the next one of the queue, as
    on Spark: all shares of an epoch come before those of the next, and no share is with two machines.

    Args:
        problem: says how many steps a share has in an epoch.
        config: settings of the center.
        num_epoch: epochs of each share; `None` for no end.
    """

    def __init__(self, problem: Problem, config: CenterConfig, num_epoch: int | None) -> None:
        count = config.num_workers
        self._num_epoch = num_epoch
        self._elastic = config.elastic is not None
        steps: Callable[[int, int], int] = getattr(
            problem, "steps_of_share", lambda worker, workers: problem.steps_per_epoch(workers)
        )
        self._steps = [] if num_epoch is None else [steps(share, count) for share in range(count)]
        self.endless = num_epoch is None
        times = num_epoch if self._elastic and num_epoch is not None else 1
        self._queue = deque((epoch, share) for epoch in range(times) for share in range(count))
        self._machine = list(range(count))
        self._epoch = [0] * count
        self._taken: set[int] = set()

    @property
    def steps_in_all(self) -> int | None:
        """Steps of all shares in all epochs; `None` for no end."""
        return None if self._num_epoch is None else self._num_epoch * sum(self._steps)

    def machine(self, share: int) -> int:
        """Return the machine that trains a share, or did so last."""
        return self._machine[share]

    def left(self, share: int, step: int) -> int | None:
        """Return the steps to the end of a share after `step` of all its epochs; `None` for no end."""
        if self._num_epoch is None:
            return None
        epochs = self._epoch[share] + 1 if self._elastic else self._num_epoch
        return epochs * self._steps[share] - step

    def rests(self, share: int) -> bool:
        """Return whether a share that has run out has epochs left, which may be another machine's."""
        return self._elastic and self._num_epoch is not None and self._epoch[share] + 1 < self._num_epoch

    def take(self, machine: int) -> int | None:
        """Return the next share for a machine without one; `None` if there is none that it could train."""
        for index, (epoch, share) in enumerate(self._queue):
            if share not in self._taken:
                del self._queue[index]
                self._taken.add(share)
                self._machine[share], self._epoch[share] = machine, epoch
                return share
        return None

    def give_back(self, share: int) -> int:
        """Say that a share has run out for this epoch; return the machine that has trained it."""
        self._taken.discard(share)
        return self._machine[share]

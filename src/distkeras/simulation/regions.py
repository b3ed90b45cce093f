"""Servers in two levels: regions of workers, whose servers are the workers of a global server."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from distkeras.algorithms import Algorithm, State, Vector
from distkeras.center import Center, CenterConfig
from distkeras.center.answers import Exchanged, Joined, Polled
from distkeras.center.requests import Exchange, Join, Poll
from distkeras.center.worker_side import WorkerSide
from distkeras.simulation.problem import Problem, Replica
from distkeras.simulation.step_time import Gamma, StepTime, WindowTime


class Regions:
    """A problem and its step times, for `simulate`: its workers are regions with a server and workers each.

    Pass it as `problem` and as `step_time`. A step of a region is a commit of one of its workers to its
    server; the region's window ends with the last of `communication_window` such commits. While a region's
    server waits for the global one, its workers stand still, unless `overlap=True`. Exchanges within a region
    take no time. A region that fails begins anew: so do its server's momentum and its workers.

    Args:
        problem: the problem to train.
        algorithm: the asynchronous rule within a region. Its windows count minibatch steps.
        num_workers: workers of a region.
        step_time: seconds of a minibatch step; `Gamma()` by default.

    Raises:
        ValueError: the rule is synchronous, or its window is an epoch or in fragments.

    Example:
        >>> from distkeras.algorithms import DelayedNesterov, HALoS
        >>> from distkeras.simulation import Quadratic, Regions, simulate
        >>> local = DelayedNesterov(8, outer_learning_rate=3.2, period=16)
        >>> regions = Regions(Quadratic(), local, num_workers=4)
        >>> result = simulate(HALoS(), regions, step_time=regions, num_workers=4, num_commits=40,
        ...                   learning_rate=0.001)
        >>> bool(result.losses[-1] < result.losses[0])
        True
    """

    def __init__(
        self, problem: Problem, algorithm: Algorithm, num_workers: int, step_time: StepTime | None = None
    ) -> None:
        window = algorithm.communication_window
        if algorithm.synchronous or window is None or algorithm.fragments != 1:
            raise ValueError(
                "Expected an asynchronous algorithm with a `communication_window` in steps, without "
                "fragments. "
                f"Received: algorithm={algorithm!r}"
            )
        self._problem, self._window = problem, window
        self._config = CenterConfig(algorithm, num_workers, num_trainable=problem.num_trainable)
        self._step_time = step_time or Gamma()
        self._turns: dict[int, list[int]] = {}

    @property
    def initial(self) -> Vector:
        """The first center."""
        return self._problem.initial

    @property
    def num_trainable(self) -> int:
        """Number of leading elements that gradients move."""
        return self._problem.num_trainable

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return the commits of a region in an epoch of its workers."""
        steps = self._problem.steps_per_epoch(num_workers * self._config.num_workers)
        return max(1, steps // self._window) * self._config.num_workers

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return the metrics of the problem."""
        return self._problem.evaluate(weights)

    def windows(self, num_workers: int, rng: np.random.Generator) -> WindowTime:
        """Return the clock of `num_workers` regions. It notes whose commit each step is, for `train`."""
        each = self._config.num_workers
        seconds = self._step_time.windows(num_workers * each, rng)
        now = [0.0] * num_workers
        heaps = [
            [(seconds(region * each + worker, self._window), worker) for worker in range(each)]
            for region in range(num_workers)
        ]
        for heap in heaps:
            heapq.heapify(heap)

        def window_time(region: int, num_steps: int) -> float:
            heap, before, turns = heaps[region], now[region], []
            for _ in range(num_steps):
                time, worker = heap[0]
                turns.append(worker)
                heapq.heapreplace(heap, (time + seconds(region * each + worker, self._window), worker))
                now[region] = time
            self._turns[region] = turns
            return now[region] - before

        return window_time

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Put `weights` in place at the region's server, and handle the commits of its window."""
        turns = self._turns.get(replica.worker, [])
        if len(turns) != num_steps:
            raise ValueError(
                "Expected `step_time` to be the same `Regions`, and `overlap` True or False. Received: a "
                f"window of {num_steps} commits, and the times of {len(turns)}"
            )
        region = replica.memory.get("region")
        if region is None:
            region = replica.memory["region"] = _Region(self._problem, self._config, replica, weights)
        region.put(weights)
        rows = sum(region.commit(worker, self._window) for worker in turns)
        center = region.center.snapshot()
        # The global server is to refuse what a region has refused.
        return np.full_like(center, np.nan) if region.diverged else center, rows


@dataclass
class _Worker:
    """A worker of a region: what it trains from, its place, and what it keeps."""

    replica: Replica
    weights: Vector
    anchor: Vector
    memory: State
    sequence: int = 0


class _Region:
    """The server of a region, and its workers.

    Attributes:
        center: the server.
        diverged: whether it has refused a commit, because it was not finite.
    """

    def __init__(self, problem: Problem, config: CenterConfig, replica: Replica, weights: Vector) -> None:
        self._problem = problem
        self.center, self.diverged = Center(config, weights, clock=lambda: 0.0, num_shards=1), False
        self._side = WorkerSide(config.algorithm, config.trainable_of(weights.size), None)
        self._seen, count = 0, config.num_workers
        self._workers = [self._joined(index, replica, count) for index in range(count)]

    def _joined(self, index: int, replica: Replica, count: int) -> _Worker:
        [(_, joined)] = self.center.handle(Join(index))
        if not isinstance(joined, Joined):
            raise TypeError(f"Expected Joined. Received: {joined!r}")
        own = Replica(
            worker=replica.worker * count + index,
            num_workers=replica.num_workers * count,
            learning_rate=replica.learning_rate,
            momentum=replica.momentum,
            seed=(*replica.seed, index),
            averaging=replica.averaging,
        )
        return _Worker(own, joined.center, joined.center, {})

    def put(self, weights: Vector) -> None:
        """Make `weights` the center; the rule's state, and what workers train from, stay."""
        self.center.put(weights)
        [(_, polled)] = self.center.handle(Poll(self._seen))
        if isinstance(polled, Polled):
            self._seen = polled.next  # What was read is dropped.

    def commit(self, index: int, num_steps: int) -> int:
        """Train a window of a worker and commit it; return its rows."""
        if self.diverged:
            return 0
        worker = self._workers[index]
        local, rows = self._problem.train(worker.weights, num_steps, worker.replica)
        message = self._side.message(local, worker.anchor, num_steps, 0, worker.memory)
        worker.sequence += 1
        request = Exchange(index, worker.sequence, num_steps, rows, 0, worker.sequence, message.copy())
        [(_, answer)] = self.center.handle(request)
        if isinstance(answer, Exchanged):
            worker.weights = self._side.adopted(local, message, answer, 0, worker.memory)
            worker.anchor = self._side.anchor(worker.weights, answer)
        else:
            self.diverged = True
        return rows

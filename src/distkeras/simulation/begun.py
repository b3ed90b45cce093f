"""Windows that have begun: they are trained together as soon as the first of their commits is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distkeras.algorithms import Vector
from distkeras.simulation.problem import Problem, TrainMany
from distkeras.simulation.state import Worker

Trained = tuple[Vector, int]
"""Weights after some steps, and the rows of these steps."""


class Begun:
    """Trains windows that have begun. No later event changes what they yield: it can only drop them.

    A problem with `train_many` trains all of them when it must train one; another trains each when its commit
    is due.

    Args:
        problem: the problem to train.
        late_steps: the steps that a worker goes on with while its window's message is exchanged; they are
            trained along with the window. `None` to train them when the reply arrives, as is needed where
            workers may lose them.
        in_turn: train each window when its commit is due in any case: a worker may drop one, and needs its
            rows and its random numbers for the next.
    """

    def __init__(
        self, problem: Problem, late_steps: Callable[[Worker], int] | None, in_turn: bool = False
    ) -> None:
        self._train, self._late_steps = problem.train, late_steps
        self._train_many: TrainMany | None = None if in_turn else getattr(problem, "train_many", None)
        self._begun: dict[int, Worker] = {}
        self._coming: Iterator[tuple[int, Trained]] = iter(())
        self._windows: dict[int, Trained] = {}
        self._late: dict[int, Trained] = {}

    def begin(self, worker: int, state: Worker) -> None:
        """Expect the worker's window, of which `state` holds all that decides its result."""
        self._begun[worker] = state

    def forget(self, worker: int) -> None:
        """Forget the worker's window, which is not trained yet."""
        self._begun.pop(worker, None)

    def drop(self) -> None:
        """Forget all windows: their workers have failed."""
        self._coming = iter(())
        for kept in (self._begun, self._windows, self._late):
            kept.clear()

    def window(self, worker: int) -> Trained:
        """Return the weights after the worker's window, and its rows."""
        if self._train_many is None:
            state = self._begun.pop(worker)
            return self._train(state.weights, state.window - state.trained, state.replica)
        if worker in self._begun:
            self._windows.update(self._coming)
            self._coming = self._train_all(self._train_many)
        while worker not in self._windows:
            ready, trained = next(self._coming)
            self._windows[ready] = trained
        return self._windows.pop(worker)

    def late(self, worker: int, weights: Vector, num_steps: int, state: Worker) -> Trained:
        """Return the weights `num_steps` steps after the window, which ended at `weights`, and their rows."""
        if worker in self._late:
            return self._late.pop(worker)
        return self._train(weights, num_steps, state.replica)

    def _train_all(self, train_many: TrainMany) -> Iterator[tuple[int, Trained]]:
        """Train the windows that have begun; yield their results in the order of their commits."""
        begun = sorted(self._begun.items(), key=lambda entry: entry[1].sent_at)
        self._begun.clear()
        workers, states = [worker for worker, _ in begun], [state for _, state in begun]
        replicas = [state.replica for state in states]
        lengths = [state.window - state.trained for state in states]
        trained = train_many([state.weights for state in states], lengths, replicas)
        if self._late_steps is not None:
            trained = list(trained)
            ends = [weights for weights, _ in trained]
            late = train_many(ends, [self._late_steps(state) for state in states], replicas)
            self._late.update(zip(workers, late, strict=True))
        return zip(workers, trained, strict=True)

"""The problem that simulated workers train: its interface, and the quadratic of the papers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.simulation.ahead import Ahead


@dataclass
class Replica:
    """A worker, as the problem sees it.

    Attributes:
        worker: its index.
        num_workers: workers of the job.
        learning_rate: learning rate of the inner optimizer.
        momentum: momentum of the inner optimizer; above 0, the step is Nesterov's:
            `v <- momentum v - learning_rate grad f(x + momentum v); x <- x + v`.
        seed: seed of this process's random generator.
        memory: state that the problem keeps between windows (a velocity, a place in the data); lost when the
            worker fails.
        averaging: `mu_x` and `mu_y` of primal averaging (`GPA`), with a step by the gradient at `y`:
            `y = mu_y x + (1 - mu_y) z; z <- z - learning_rate grad f(y); x <- mu_x x + (1 - mu_x) z`. `None`
            for none.
    """

    worker: int
    num_workers: int
    learning_rate: float
    momentum: float
    seed: tuple[int, ...]
    memory: dict[str, Any] = field(default_factory=dict)
    averaging: tuple[float, float] | None = None

    @cached_property
    def rng(self) -> np.random.Generator:
        """This worker's random generator."""
        return np.random.default_rng(self.seed)

    @cached_property
    def descent(self) -> Vector:
        """`-learning_rate`, as an array without dimensions: NumPy converts a number at each use."""
        return np.array(-self.learning_rate, np.float32)

    @cached_property
    def ahead(self) -> Ahead | None:
        """The step of `averaging` or `momentum`; `None` for neither."""
        return Ahead.of(self.momentum, self.averaging)


class TrainMany(Protocol):
    """`Problem.train` for many workers of one simulation at once."""

    def __call__(
        self, weights: Sequence[Vector], num_steps: Sequence[int], replicas: Sequence[Replica], /
    ) -> Iterable[tuple[Vector, int]]:
        """Return what `train` would return for each worker, in order; an iterator may wait for each.

        No worker comes twice, and `weights` must not change.
        """
        ...


class Problem(Protocol):
    """A problem to train. `Quadratic` is the shortest example.

    A problem may also have an attribute `train_many`, a `TrainMany` or `None`. Its windows are then trained
    together, before their commits are due; the results must be those of `train`, one worker after another.
    With a method `evaluate_many(weights) -> metrics`, of lists, centers that nobody waits for are evaluated
    together; the results must be those of `evaluate`.
    """

    @property
    def initial(self) -> Vector:
        """The first center, shape (d,)."""
        ...

    @property
    def num_trainable(self) -> int:
        """Number of leading elements that gradients move; the rest are statistics, averaged over workers."""
        ...

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return the steps of one worker's epoch: the window of algorithms whose window is `None`."""
        ...

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Train `num_steps` steps from `weights`; return the new weights and the rows seen.

        Must not change `weights`: other workers may hold the same array.
        """
        ...

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return the metrics of a center, `"loss"` included."""
        ...


@dataclass(frozen=True)
class Quadratic:
    """`f(w) = sum(curvature * w ** 2) / 2`, with Gaussian noise on the gradient. The minimum is at 0.

    Args:
        curvature: h, a number or shape (d,).
        noise: standard deviation of the gradient's noise, per element.
        start: the first center, a number or shape (d,).

    Raises:
        ValueError: the shapes do not match, or the noise is negative.
    """

    curvature: float | npt.ArrayLike = 1.0
    noise: float = 0.0
    start: float | npt.ArrayLike = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"`noise` must be at least 0 and finite. Received: noise={self.noise!r}")
        shapes = {np.shape(self.curvature), np.shape(self.start)} - {()}
        if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
            raise ValueError(
                "`curvature` and `start` must be numbers or vectors of the same length. "
                f"Received: curvature={self.curvature!r}, start={self.start!r}"
            )

    @cached_property
    def _curvature(self) -> Vector:
        return np.atleast_1d(np.asarray(self.curvature, np.float32))

    @cached_property
    def _noise(self) -> Vector:
        return np.array(self.noise, np.float32)

    @cached_property
    def initial(self) -> Vector:
        """The first center."""
        start, _ = np.broadcast_arrays(np.asarray(self.start, np.float32), self._curvature)
        return start.copy()

    @property
    def num_trainable(self) -> int:
        """Number of elements: all are trainable."""
        return self.initial.size

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return 1: there is no data."""
        return 1

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Take `num_steps` gradient steps, one row each."""
        curvature, descent, ahead, memory = self._curvature, replica.descent, replica.ahead, replica.memory
        for _ in range(num_steps):
            velocity = None if ahead is None else memory.get("velocity")
            at: Vector = weights if ahead is None or velocity is None else weights + ahead.ahead * velocity
            gradient = curvature * at
            if self.noise:
                gradient += self._noise * replica.rng.standard_normal(gradient.size, np.float32)
            step: Vector = descent * gradient
            if ahead is not None:
                step = step if velocity is None else step + ahead.carried * velocity
                memory["velocity"], step = ahead.kept * step, ahead.moved * step
            weights = weights + step
        return weights, num_steps

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return the loss."""
        return self.evaluate_many([weights])[0]

    def evaluate_many(self, weights: Sequence[Vector]) -> list[dict[str, float]]:
        """Return the loss of each center."""
        wide = np.array(weights, np.float64)
        curved = self._curvature * wide
        losses = 0.5 * np.matmul(curved[:, None, :], wide[:, :, None]).ravel()
        return [{"loss": loss} for loss in losses.tolist()]

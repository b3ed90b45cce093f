"""Time of a minibatch step on a worker: constant or random, on equal or unequal machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

WindowTime = Callable[[int, int], float]
"""Seconds that a worker (by index) takes for a number of steps: a new draw at each call."""


class StepTime(Protocol):
    """The distribution of the time of one step, in seconds.

    A window's time is drawn as a whole, from the distribution of the sum of its steps: one draw per window.
    """

    def windows(self, num_workers: int, rng: np.random.Generator) -> WindowTime:
        """Return the clock of `num_workers` machines; all its draws come from `rng`."""
        ...


@dataclass(frozen=True)
class Constant:
    """Every step takes `seconds`. Workers that start together commit in turn, in the order of their index.

    Args:
        seconds: seconds of one step.
    """

    seconds: float = 1.0

    def __post_init__(self) -> None:
        _positive("seconds", self.seconds)

    def windows(self, num_workers: int, rng: np.random.Generator) -> WindowTime:
        """Return a clock that draws nothing."""
        return lambda worker, num_steps: self.seconds * num_steps


@dataclass(frozen=True)
class Exponential:
    """Memoryless steps: with a window of 1, each commit comes from a uniformly random worker.

    Args:
        mean: mean seconds of one step.

    Reference: Mitliagkas et al. 2016, Asynchrony begets Momentum.
    """

    mean: float = 1.0

    def __post_init__(self) -> None:
        _positive("mean", self.mean)

    def windows(self, num_workers: int, rng: np.random.Generator) -> WindowTime:
        """Return a clock with one draw per window: a sum of exponentials is a gamma variable."""
        return lambda worker, num_steps: self.mean * rng.standard_gamma(num_steps)


@dataclass(frozen=True)
class Gamma:
    """A homogeneous cluster: shape 100 gives a coefficient of variation of 0.1.

    Args:
        mean: mean seconds of one step.
        shape: shape of the gamma distribution; the coefficient of variation is `shape ** -0.5`.
    """

    mean: float = 1.0
    shape: float = 100.0

    def __post_init__(self) -> None:
        _positive("mean", self.mean)
        _positive("shape", self.shape)

    def windows(self, num_workers: int, rng: np.random.Generator) -> WindowTime:
        """Return a clock with one draw per window: a sum of gammas is a gamma variable."""
        scale = self.mean / self.shape
        return lambda worker, num_steps: scale * rng.standard_gamma(self.shape * num_steps)


@dataclass(frozen=True)
class Heterogeneous:
    """Unequal machines: each has its own mean, around which its steps vary. Both are gamma variables.

    Args:
        mean: mean seconds of one step, over all machines.
        machine_variation: coefficient of variation between machines.
        step_variation: coefficient of variation between the steps of one machine.
    """

    mean: float = 1.0
    machine_variation: float = 0.6
    step_variation: float = 0.1

    def __post_init__(self) -> None:
        _positive("mean", self.mean)
        _positive("machine_variation", self.machine_variation)
        _positive("step_variation", self.step_variation)

    def windows(self, num_workers: int, rng: np.random.Generator) -> WindowTime:
        """Draw the machines and return their clock."""
        shape = self.machine_variation**-2
        machines = self.mean / shape * rng.standard_gamma(shape, num_workers)
        step_shape = self.step_variation**-2
        scales: list[float] = (machines / step_shape).tolist()
        return lambda worker, num_steps: scales[worker] * rng.standard_gamma(step_shape * num_steps)


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be positive and finite. Received: {name}={value!r}")

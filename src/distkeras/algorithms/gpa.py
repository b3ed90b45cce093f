"""Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs, Defazio et al., 2025 (2512.17131)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class GPA(Algorithm):
    """LocalSGD whose workers average their steps: `c <- c + mean_i d_i`, by the workers' samples.

    In the worker, at every step, with what its Keras optimizer does at `y`, `s(y)`:

        y = mu_y x + (1 - mu_y) z;  z <- z + s(y);  x <- mu_x x + (1 - mu_x) z

    An exchange moves `x`, and leaves `z - x` as it is; the replacement of a worker starts with `z = x`. With
    one worker it is the paper's generalized primal averaging: what one worker of DiLoCo does, at each step
    and without the second loop.

    The Keras optimizer is any, with its learning rate, schedule and momentum. With SGD and
    `mu_x = mu_y = mu` it is Nesterov momentum `mu` at `1 - mu` times the learning rate: the defaults, which
    are ours, need ten times the learning rate of plain SGD. With `mu_x=0` it is LocalSGD.

    The paper is for one worker. It decays the weights `z`; here the Keras optimizer decays `y`.

    Args:
        communication_window: minibatch steps between two rounds.
        mu_x: part of `x` in its average, in [0, 1).
        mu_y: part of `x` in the point where the gradient is computed, in [0, 1].

    Reference: Defazio et al. 2025, generalized primal averaging.
    """

    communication_window: int | None = 16
    mu_x: float = 0.9
    mu_y: float = 0.9

    synchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "mu_x", "[0, 1)")
        check_interval(self, "mu_y", "[0, 1]")

    @property
    def inner_averaging(self) -> tuple[float, float] | None:
        return self.mu_x, self.mu_y

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center

"""SlowMo: Improving Communication-Efficient Distributed SGD with Slow Momentum, Wang et al., ICLR 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class SlowMo(Algorithm):
    """Heavy-ball momentum over rounds: `u <- beta u - mean_i d_i / gamma; c <- c - alpha gamma u`.

    The state is `-gamma u`, so the update does not need the inner learning rate `gamma`. (If `gamma` follows
    a schedule, the paper rescales the momentum with it; here the momentum keeps its length.)

    Args:
        communication_window: minibatch steps between two rounds.
        outer_learning_rate: the paper's slow learning rate `alpha`, above 0.
        outer_momentum: the paper's slow momentum `beta`, in [0, 1).

    Reference: Wang et al. 2020 (1910.00643), algorithm 1.
    """

    communication_window: int | None = 48
    outer_learning_rate: float = 1.0
    outer_momentum: float = 0.5

    synchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "outer_momentum", "[0, 1)")

    def init(self, center: Vector) -> State:
        return {"velocity": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        velocity = state["velocity"]
        velocity *= self.outer_momentum
        velocity += message
        center += self.outer_learning_rate * velocity
        return center

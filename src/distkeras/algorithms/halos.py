"""HALoS: Hierarchical Asynchronous Local SGD over Slow Networks, Kim et al., ICML 2025 (2506.04531)."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Vector
from distkeras.algorithms.delayed_nesterov import DelayedNesterov
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class HALoS(DelayedNesterov):
    """DelayedNesterov whose workers merge the center into their own weights: `x <- (1 - alpha) x + alpha c`.

    The rule between a global server and the servers of regions, which are its workers: a region's server
    sends what it has moved since the last merge after each `communication_window` commits of its own workers.
    Within a region, `DelayedNesterov(8, outer_learning_rate=3.2, outer_momentum=0.9, period=16)` is the
    paper's. `regions=` of a trainer gives both levels on Spark, `distkeras.simulation.Regions` in the
    simulator. Without regions the workers themselves merge, and a window counts minibatch steps.

    The paper's learning rates are those of one push, ours are divided by `period`: 0.15 with a period of 2 is
    0.3 here. With `alpha=1` it is DelayedNesterov.

    Args:
        communication_window: commits of a region's workers between two exchanges with the global server;
            minibatch steps where there are no regions.
        outer_learning_rate: `eps` of the global server, above 0.
        outer_momentum: `beta` of the global server, in [0, 1).
        period: `n`, commits between two updates of the momentum; `None` for the number of workers.
        activation: `cc`, the share of the momentum in each commit, in [0, 1 / n].
        alpha: part of the center in what a worker continues from, in (0, 1].

    Reference: Kim et al. 2025, algorithm 1, and the settings of its script for 70M parameters in 4 regions.
    """

    communication_window: int | None = 32
    outer_learning_rate: float = 0.3
    outer_momentum: float = 0.5
    period: int | None = 2
    alpha: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "alpha", "(0, 1]")

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        return reply if self.alpha == 1 else (1 - self.alpha) * local + self.alpha * reply

"""Asynchronous Local-SGD Training for Language Modeling, Liu et al., 2024 (2401.09135)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from distkeras.algorithms.delayed_nesterov import DelayedNesterov


@dataclass(frozen=True)
class DyLU(DelayedNesterov):
    """DelayedNesterov with dynamic local updates: slow workers have short windows.

    A worker of speed `v_i` (minibatch steps a second) trains `max(1, floor(v_i / max_j v_j * H))` steps, so
    that all workers end their windows after about the same time. The speeds are averages over recent windows;
    workers whose speed is not known yet, such as replacements, train `H` steps.

    Args:
        communication_window: `H`, minibatch steps between two exchanges of the fastest worker.
        outer_learning_rate: `eps`, above 0.
        outer_momentum: `beta`, in [0, 1).
        period: `n`, commits between two updates of the momentum; by default the number of workers.
        activation: `cc`, the share of the momentum in each commit, in [0, 1 / n].

    Reference: Liu et al. 2024, algorithm 3 and "Dynamic Local Updates".
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.communication_window is None:
            raise ValueError(
                "`communication_window` of DyLU must be a number of minibatch steps: slower workers train "
                "a fraction of it. Received: communication_window=None"
            )

    def window(self, worker: int, speeds: Mapping[int, float]) -> int | None:
        return window_by_speed(self.communication_window or 1, worker, speeds)


def window_by_speed(window: int, worker: int, speeds: Mapping[int, float]) -> int:
    """Return the part of `window` that `worker` trains while the fastest worker trains all of it.

    Args:
        window: minibatch steps of the fastest worker's window.
        worker: index of the worker.
        speeds: as in `Algorithm.window`.
    """
    if worker not in speeds:
        return window
    # Averages of equal times differ in their last bits, and must not cost a step.
    return max(1, math.floor(speeds[worker] / max(speeds.values()) * window + 1e-6))

"""Rescaled Asynchronous SGD, Mahran, Maranjyan and Richtarik, 2026 (2605.13434)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class RescaledASGD(Algorithm):
    """DOWNPOUR in which a delta counts the more the rarer its worker commits: `c <- c + w_i d`.

    `w_i` is the mean number of commits, of all workers, from one commit of worker i to its next, divided by
    N: the paper's `t_i / mean_j t_j`. So fast and slow workers have equal parts in the center, which
    matters if their data differ. Workers that commit in turn have `w_i = 1` from their second commit on.

    The paper takes the times `t_i` of a step as known; here the commits so far measure them. A worker's
    first delta counts `(tau + 1) / N`. A late delta of a slow worker has a large weight: lower the learning
    rate if the slowest worker is much slower than the mean.

    Args:
        communication_window: minibatch steps between two exchanges of one worker; 1 in the paper.

    Reference: Mahran et al. 2026, Rescaled Asynchronous SGD.
    """

    communication_window: int | None = 1

    fair: ClassVar[bool] = True

    def init_with(self, center: Vector, num_workers: int) -> State:
        return {
            "total": np.zeros(1, np.int64),
            "commits": np.zeros(num_workers, np.int64),
            "first": np.zeros(num_workers, np.int64),
        }

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        worker, total, commits = commit.worker, state["total"], state["commits"]
        total += 1
        gap = commit.staleness + 1.0
        if commits[worker]:
            gap = float(total[0] - state["first"][worker]) / float(commits[worker])
        else:
            state["first"][worker] = total[0]
        commits[worker] += 1
        message *= gap / commit.num_workers
        center += message
        return center

"""Ringleader ASGD, Maranjyan and Richtarik, ICLR 2026 (2509.22860)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import BUFFER, TAKE, Algorithm, Commit, Memory, State, Vector, Verdict


@dataclass(frozen=True)
class RingleaderASGD(Algorithm):
    """Steps by the mean of the workers' own means, which a table holds: `c <- c + mean_i G_i / n_i`.

    The server adds deltas to the table, `G_i <- G_i + d; n_i <- n_i + 1`, until every worker has an entry.
    Then each worker has one step, in the order in which they arrive: the first one is that of the delta
    that has completed the table, and a delta enters the table before its step (our reading). What comes from
    a worker that has had its step goes into the next table. So fast and slow workers have equal parts in the
    center, and the staleness is at most `2 N - 2`.

    Nobody waits: a worker whose delta was buffered continues from the center. The server does not wait for
    workers that have left or are lost. Deltas in an incomplete table at the end of the training have no
    effect. The table takes the memory of N centers: see `ServerOptions(memory=...)`.

    The paper's step size `min(1 / (8 N L), eps B / (10 L sigma^2))`, with the harmonic mean B of the `n_i`,
    is the learning rate of the inner optimizer here. One step of all N of a table moves the center by a
    whole mean delta.

    Args:
        communication_window: minibatch steps between two exchanges of one worker; 1 in the paper.

    Reference: Maranjyan and Richtarik 2025, algorithm 1.
    """

    communication_window: int | None = 1

    fair: ClassVar[bool] = True

    def init_with(self, center: Vector, num_workers: int) -> State:
        return {
            "table": np.zeros((num_workers, center.size), center.dtype),
            "counts": np.zeros(num_workers, np.int64),
            "waiting": np.zeros(num_workers, np.bool_),
            "entries": np.ones(1, np.int64),
            "mean": np.zeros_like(center),
        }

    def decide_with(self, commit: Commit, memory: Memory, training: Collection[int]) -> Verdict:
        return TAKE if has_step(commit.worker, memory, training) else BUFFER

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        worker, counts, waiting, mean = commit.worker, state["counts"], state["waiting"], state["mean"]
        row = state["table"][worker]  # Its deltas' mean.
        counts[worker] += 1
        change = (message - row) / counts[worker].astype(center.dtype)
        row += change
        if commit.verdict is not TAKE:
            waiting[worker] = False
            return center
        if waiting[worker]:
            mean += change / state["entries"].astype(center.dtype)
        else:  # It has completed the table. Who still waits has left before its step of the last one.
            state["table"][waiting], counts[waiting] = 0, 0
            waiting[:] = counts > 0
            state["entries"][:] = waiting.sum()
            np.divide(state["table"].sum(axis=0), state["entries"][0], out=mean)
        center += mean
        row[:], counts[worker], waiting[worker] = 0, 0, False
        return center


def has_step(worker: int, memory: Memory, training: Collection[int]) -> bool:
    """Return whether a delta of `worker` is followed by a step.

    Args:
        worker: index of the worker.
        memory: the workers whose step is still to come, `waiting`, and those with an entry in the next table,
            `heard`; both change.
        training: as in `Algorithm.decide_with`.
    """
    waiting, heard = set(memory.get("waiting", ())) & set(training), set(memory.get("heard", ()))
    steps = worker in waiting
    if not steps:
        heard.add(worker)
        if not waiting and heard >= set(training):
            steps, waiting, heard = True, heard, set()
    waiting.discard(worker)
    memory.update(waiting=sorted(waiting), heard=sorted(heard))
    return steps

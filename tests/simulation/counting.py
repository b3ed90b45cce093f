"""Algorithms whose center counts what is committed to it."""

from __future__ import annotations

import dataclasses

import numpy as np

from distkeras.algorithms import Algorithm


@dataclasses.dataclass(frozen=True)
class CountSteps(Algorithm):
    """The center counts the steps that were committed to it."""

    def commit(self, local, anchor, num_steps):
        return np.full_like(local, num_steps)

    def apply(self, center, message, commit, state):
        center += message
        return center


class CountRounds(CountSteps):
    synchronous = True

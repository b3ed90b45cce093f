"""Euclidean norms of the center and of what comes in, measured when somebody asks."""

from __future__ import annotations

import math

import numpy as np

from distkeras.algorithms import Vector


class Norms:
    """The norm of a message now and then: one of all messages costs as much as a third of its use.

    Attributes:
        wanted: whether the next message is to be measured.
        message: norm of the last message that was; NaN before the first.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.message = math.nan

    def see(self, message: Vector) -> None:
        """Measure the message that is wanted."""
        self.wanted = False
        self.message = norm_of(message)


def norm_of(vector: Vector) -> float:
    """Return the Euclidean norm of a vector, in one pass and without a copy."""
    return math.sqrt(float(np.dot(vector, vector)))

"""What a simulation keeps of time, of its workers, and of what is on its way to the server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distkeras.algorithms import Vector
from distkeras.center.messages import Exchange
from distkeras.simulation.problem import Replica


class Arrival(Enum):
    """What of a worker arrives at the server."""

    COMMIT = "commit"
    DUPLICATE = "duplicate"
    JOIN = "join"


@dataclass
class VirtualClock:
    """The time, as the center reads it."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the virtual seconds since the start."""
        return self.now


@dataclass(frozen=True)
class Inner:
    """How every worker trains a window: gradient descent, the window's steps, and the seed of its chance."""

    learning_rate: float
    momentum: float
    window: int
    seed: int


@dataclass(slots=True)
class Worker:
    """One simulated worker. While it trains it holds `weights`, where its window began.

    `anchor` is what it last received, the same vector unless exchanges overlap. Others may share both.
    """

    weights: Vector
    anchor: Vector
    replica: Replica
    local: Vector | None = None
    message: Vector | None = None
    sent: Exchange | None = None
    sent_at: float = 0.0
    sequence: int = 0
    samples: int = 0
    attempt: int = 0

"""State of a simulation: the clock, the workers, and the kinds of messages in transit."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from distkeras.algorithms import State, Vector
from distkeras.center.messages import Exchange
from distkeras.simulation.problem import Replica


class Arrival(Enum):
    """Kinds of a worker's messages that arrive at the server."""

    COMMIT = "commit"
    DUPLICATE = "duplicate"
    JOIN = "join"


@dataclass
class VirtualClock:
    """The current virtual time, for the center."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the virtual seconds since the start."""
        return self.now


@dataclass(frozen=True)
class Inner:
    """Settings of every worker's inner training: gradient descent, steps of a window, and random seed."""

    learning_rate: float
    momentum: float
    window: int
    seed: int


@dataclass(slots=True)
class Worker:
    """One simulated worker. While it trains, `weights` holds the weights at the start of its window.

    `anchor` is the center it last received: the same vector unless exchanges overlap. Workers may share both.
    `window` counts the minibatch steps of its current window, and `next_window` those of the next one.
    """

    weights: Vector
    anchor: Vector
    replica: Replica
    next_window: int
    window: int = 0
    seconds: float = 0.0
    step: int = 0
    memory: State = field(default_factory=dict)
    local: Vector | None = None
    message: Vector | None = None
    sent: Exchange | None = None
    sent_at: float = 0.0
    sequence: int = 0
    samples: int = 0
    attempt: int = 0

"""State of a simulation: the clock, the workers, and the kinds of messages in transit."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from distkeras.algorithms import State, Vector
from distkeras.center.fragments import Behind
from distkeras.center.requests import Exchange
from distkeras.events import Timing
from distkeras.simulation.problem import Replica


class Arrival(Enum):
    """Kinds of a worker's messages that arrive at the server."""

    COMMIT = "commit"
    DROP = "drop"
    DUPLICATE = "duplicate"
    JOIN = "join"
    TAKE = "take"
    LEAVE = "leave"


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
    averaging: tuple[float, float] | None = None


@dataclass(slots=True)
class Account:
    """Where a worker's virtual time went since its last commit, and what its connection carried.

    Attributes:
        handled: when the server had handled its last commit.
        exchanging: seconds in which it could not train because of the exchange before.
        blocked: those of them in which the server held the answer back.
    """

    handled: float = 0.0
    exchanging: float = 0.0
    blocked: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0
    resends: int = 0

    def answered(self, num_bytes: int, now: float, exchanging: float) -> None:
        """Add an answer that the server sends `now`: its bytes, and the seconds from message to answer."""
        self.bytes_in += num_bytes
        self.blocked, self.exchanging = now - self.handled, exchanging

    def wait(self, seconds: float) -> None:
        """Say how long the worker had to wait for its answer, if exchanges overlap: not if negative."""
        self.exchanging = max(0.0, seconds)
        self.blocked = min(self.blocked, self.exchanging)

    def close(self, computing: float) -> Timing:
        """Return the timing of a window that has trained for so many seconds, and begin the next account."""
        timing = Timing(
            computing, 0.0, self.exchanging, self.blocked, self.bytes_out, self.bytes_in, self.resends
        )
        self.exchanging = self.blocked = 0.0
        self.bytes_out = self.bytes_in = self.resends = 0
        return timing


@dataclass(slots=True)
class Worker:
    """One simulated worker. Workers may share vectors.

    Attributes:
        weights: the weights at the start of the part of its window that is still to be trained.
        adopted: what it adopted last: `weights`, unless it overlaps whole windows.
        anchor: the center it last received.
        replica: the worker, as the problem sees it.
        behind: counts the steps and rows behind the next message of each fragment.
        next_window: steps of the algorithm's next window, of which a fragment has its share.
        memory: what the algorithm keeps in the worker, by fragment.
        window: steps from the last commit to the next.
        trained: those of them that were trained during the exchange before.
        samples: rows of its window so far.
        account: its time and bytes since the last commit.
    """

    weights: Vector
    adopted: Vector
    anchor: Vector
    replica: Replica
    behind: Behind
    next_window: int
    memory: list[State]
    window: int = 0
    seconds: float = 0.0
    step: int = 0
    local: Vector | None = None
    message: Vector | None = None
    sent: Exchange | None = None
    sent_at: float = 0.0
    sequence: int = 0
    samples: int = 0
    attempt: int = 0
    trained: int = 0
    account: Account = field(default_factory=Account)

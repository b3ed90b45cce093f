"""Answers of the center to requests. The wire carries exactly these."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkeras.algorithms import Vector
from distkeras.center.orders import Orders
from distkeras.events import Event

MAX_PAGE, MAX_PAGE_BYTES = 256, 16 * 2**20
"""Most events and bytes in one answer to the driver: after a pause there may be more than a frame holds."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Answers `Join`.

    Attributes:
        center: shape (size,).
        sequence: number of this worker's last applied commit; 0 for none.
        epoch: epoch of the next minibatch.
        step: index of the next minibatch in that epoch.
        orders: the orders in force; `None` for no orders.
        held: whether the worker has to join again, and wait, if it is not behind at another server.
    """

    center: Vector
    sequence: int
    epoch: int
    step: int
    orders: Orders | None = None
    held: bool = False


@dataclass(slots=True)  # As `Exchange` is.
class Exchanged:
    """Answers `Exchange`.

    Attributes:
        reply: the algorithm's reply for the trainable part, then the center's statistics; if `restart`, the
            whole center. Shape (size,), or the size of the commit's fragment.
        staleness: staleness of the commit; 0 if `restart`.
        restart: whether the commit was applied before and its reply is lost: the worker restarts from the
            center.
        sequence: number of the commit.
        fragment: index of the fragment that was exchanged.
        orders: the orders in force; `None` for no orders.
        held: seconds for which the answer was held back: for a round to be complete, or the driver to decide.
    """

    reply: Vector
    staleness: int
    restart: bool = False
    sequence: int = 0
    fragment: int = 0
    orders: Orders | None = None
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """Answers an `Exchange` whose message must not be applied; the center is unchanged."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Answers an `Exchange` whose message must not be applied and whose window is skipped.

    Attributes:
        center: the worker continues from it. Shape (size,).
        reason: what was wrong.
        orders: the orders in force; `None` for no orders.
    """

    center: Vector
    reason: str
    orders: Orders | None = None


@dataclass(frozen=True, slots=True)
class Rejoin:
    """Answers `Exchange` and `Leave` of a worker that has not joined this server process.

    The worker joins and continues from the place in the answer. It may have trained past that place before.
    """


@dataclass(frozen=True, slots=True)
class Done:
    """Answers `Leave`, `Fail`, `Beat`, `Order`, `Keep`, `Write` and `Report`.

    Attributes:
        drop: to a `Beat`, number of the worker's last commit if it is to drop the window after that, which
            has become too stale; -1 for no window.
    """

    drop: int = -1


@dataclass(frozen=True, slots=True)
class Pulled:
    """Answers `Pull` with the center, shape (size,), and the number of commits; a round counts once."""

    center: Vector
    num_updates: int


@dataclass(frozen=True, slots=True)
class Polled:
    """Answers `Poll` with at most `MAX_PAGE` events, the next number to ask for and the number of commits."""

    events: list[Event]
    next: int
    num_updates: int


WAITS = "waits"
"""The `verdict` of a message that waits in an open round."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the request log: a request that the first server has handled, and what it decided.

    Attributes:
        worker: index of the worker; `DRIVER` for the driver, and for a round that its grace has closed.
        call: number of the request; 0 if the worker has been silent for too long, and is lost; 0 for a grace.
        number: number of the commit that the request led to; 0 for none.
        staleness: its staleness, for the algorithm.
        buffered: messages buffered before it.
        verdict: what the algorithm decided; "" for no commit; `WAITS` for a message in an open round.
        kept: numbers of rows for which the center is copied after the commit.
    """

    worker: int
    call: int = 0
    number: int = 0
    staleness: int = 0
    buffered: int = 0
    verdict: str = ""
    kept: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Followed:
    """Answers `Follow`.

    Attributes:
        leader: name of the first server's process.
        anew: whether entries are missing; then they are the last one of every worker.
        restored: whether that process continues from a snapshot, so that it has lost commits and entries.
        entries: the entries, in order.
        next: the next number to ask for.
    """

    leader: str
    anew: bool
    restored: bool
    entries: list[LogEntry]
    next: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answers `Fetch`.

    Attributes:
        part: index of the part.
        parts: number of parts of the report; 0 if the center has no such report.
        data: the bytes of the part.
    """

    part: int
    parts: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NotYet:
    """Answers `MayJoin` of a process that has to wait, and to ask again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """Answers `MayJoin` of a process that may join. From now on, no other process trains as this worker.

    Attributes:
        epoch: epoch of the worker's next minibatch.
        step: index of the next minibatch in that epoch.
        ticket: with which to join: larger than that of each process before.
        left: whether the worker has committed its last window, or if it rests, the last one of an epoch.
        stopped: whether an order to stop is in force.
    """

    epoch: int
    step: int
    ticket: int = 0
    left: bool = False
    stopped: bool = False


Reply = (
    Joined
    | Exchanged
    | Refused
    | Skipped
    | Rejoin
    | Done
    | Pulled
    | Polled
    | Followed
    | Fetched
    | NotYet
    | Place
)

Answer = tuple[int, Reply]
"""A worker's index and its reply."""

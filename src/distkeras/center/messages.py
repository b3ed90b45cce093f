"""What is said to the center and what it answers. The wire carries exactly these."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkeras.algorithms import Vector
from distkeras.events import Event

DRIVER = -1
"""The `worker` of those who are none."""

MAX_PAGE, MAX_PAGE_BYTES = 256, 16 * 2**20
"""Most events in one answer to the driver: after a pause there may be more than a frame holds."""


@dataclass(frozen=True, slots=True)
class Join:
    """A worker asks for the center and for the place to start from.

    Attributes:
        worker: its index.
        attempt: 0 for the first process that trains as this worker, more for those that replace it.
        ticket: larger for a process that was started later.
        layout: names what lies where in its vectors; "" asks for no comparison.
    """

    worker: int
    attempt: int = 0
    ticket: int = 0
    layout: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A worker commits a window and asks for the reply.

    Attributes:
        worker: its index.
        sequence: number of this commit of this worker, from 1; a repeated one is answered, not applied.
        num_steps: minibatches in the window.
        num_samples: rows in the window.
        epoch: epoch of the next minibatch.
        step: index in that epoch of the next minibatch: where a replacement goes on.
        message: the rule's message for the trainable part, then the worker's statistics as they are. Wire
            and center may overwrite it.
        metrics: what Keras reports over the window.
        window_epoch: epoch in which the window ended.
    """

    worker: int
    sequence: int
    num_steps: int
    num_samples: int
    epoch: int
    step: int
    message: Vector
    metrics: dict[str, float] = field(default_factory=dict)
    window_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """A worker has committed its last window: nobody waits for it any more."""

    worker: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A process that trains as a worker, or is about to, says that it lives.

    Attributes:
        worker: its index.
        ticket: that of `Join`.
    """

    worker: int
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Fail:
    """A worker stops on an exception; `error` is its traceback."""

    worker: int
    error: str


@dataclass(frozen=True, slots=True)
class Pull:
    """Someone who trains nothing (the driver) asks for the center; of an ensemble, for that of `member`."""

    member: int = 0


@dataclass(frozen=True, slots=True)
class Poll:
    """The driver asks for the events since number `since`."""

    since: int = 0


Request = Join | Exchange | Leave | Fail | Pull | Poll | Beat


@dataclass(frozen=True, slots=True)
class Joined:
    """Answers `Join`.

    Attributes:
        center: shape (size,).
        sequence: number of this worker's last applied commit; 0: none.
        epoch: epoch of the minibatch to go on with.
        step: its index in that epoch.
    """

    center: Vector
    sequence: int
    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Answers `Exchange`.

    Attributes:
        reply: the rule's reply for the trainable part, then the center's statistics; where `restart`, the
            whole center. Shape (size,).
        staleness: of the commit; 0 where `restart`.
        restart: the commit had been applied before and its reply is lost: start anew from the center.
        sequence: number of the commit.
    """

    reply: Vector
    staleness: int
    restart: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """Answers an `Exchange` whose message must not be applied; the center is untouched."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Answers an `Exchange` whose message must not be applied and whose window is passed over.

    Attributes:
        center: shape (size,), from which the worker goes on.
        reason: what was wrong.
    """

    center: Vector
    reason: str


@dataclass(frozen=True, slots=True)
class Rejoin:
    """Answers `Exchange` and `Leave` of a worker that this server does not know: it was started again.

    The worker joins, and goes on from the place that it is told, which may be one that it had left behind.
    """


@dataclass(frozen=True, slots=True)
class Done:
    """Answers `Leave`, `Fail` and `Beat`."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """Answers `Pull`: the center, shape (size,), and the commits applied so far; a round counts once."""

    center: Vector
    num_updates: int


@dataclass(frozen=True, slots=True)
class Polled:
    """Answers `Poll`: at most `MAX_PAGE` events since then, the number to ask from next, commits so far."""

    events: list[Event]
    next: int
    num_updates: int


Reply = Joined | Exchanged | Refused | Skipped | Rejoin | Done | Pulled | Polled

Answer = tuple[int, Reply]
"""A worker's index and what it is told."""

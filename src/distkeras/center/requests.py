"""Requests to the center. The wire carries exactly these, except for `Dismiss`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from distkeras.algorithms import Vector
from distkeras.center.orders import Orders
from distkeras.events import Phase, Timing, WorkerAbout

DRIVER = -1
"""The `worker` of senders that are not workers."""

MAX_PART = 640 * 2**10
"""Most bytes in one part of a report: each fits into the text of a frame."""
MAX_PARTS = 2**20
"""Most parts of a report."""
NEWEST = -1
"""The `tag` of a `Fetch` for the newest report, whatever its tag is."""
MAX_STATES = 256 * 2**10
"""Most bytes of the metrics' states in one commit."""

Kind = Literal["state", "evaluation"]
"""What a worker reports: its local state after a window, or what an evaluation gave."""


@dataclass(frozen=True, slots=True)
class Join:
    """A worker asks for the center and for its place in the data.

    Attributes:
        worker: its index.
        attempt: 0 for the first process that trains as this worker, 1 and more for its replacements.
        ticket: larger for a process that was started later.
        layout: fingerprint of the layout of its vectors; "" for no comparison.
        call: number of the request among those of its worker, larger for a later one; the same if it is sent
            again. 0 where there is one server.
        waits: whether the answer may be held back until the driver has decided; else it says so with `held`.
        about: the process; `None` if it does not say.
    """

    worker: int
    attempt: int = 0
    ticket: int = 0
    layout: str = ""
    call: int = 0
    waits: bool = True
    about: WorkerAbout | None = None


# Not frozen, as the others are: that takes five times as long to make, a twentieth of a small exchange.
@dataclass(slots=True)
class Exchange:
    """A worker commits a window and asks for the reply.

    Attributes:
        worker: its index.
        sequence: number of this commit of this worker, from 1; a repeated commit is answered, not applied.
        num_steps: minibatches behind the message.
        num_samples: rows behind the message.
        epoch: epoch of the next minibatch.
        step: index of the next minibatch in that epoch: a replacement continues there.
        message: the algorithm's message for the trainable part, then the worker's statistics, unchanged. The
            wire and the center may overwrite it.
        metrics: Keras's metrics over the window.
        window_epoch: epoch in which the window ended.
        seconds: time for training the window; 0 if it is unknown.
        call: as in `Join`.
        fragment: index of the fragment that is exchanged.
        window_steps: minibatches since the worker's last commit of any fragment; `None` for `num_steps`.
        window_samples: rows since the worker's last commit of any fragment; `None` for `num_samples`.
        states: states of Keras's metrics over the window, little-endian float64: the center adds them up by
            epoch. At most `MAX_STATES` bytes; empty for none.
        timing: where the worker's time went since its last commit; `None` if it was not measured.
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
    seconds: float = 0.0
    call: int = 0
    fragment: int = 0
    window_steps: int | None = None
    window_samples: int | None = None
    states: bytes = b""
    timing: Timing | None = None

    @property
    def window(self) -> tuple[int, int]:
        """Minibatches and rows since the worker's last commit of any fragment."""
        steps = self.num_steps if self.window_steps is None else self.window_steps
        return steps, self.num_samples if self.window_samples is None else self.window_samples


@dataclass(frozen=True, slots=True)
class Leave:
    """A worker has committed its last window; rounds no longer wait for it.

    Attributes:
        worker: its index.
        call: as in `Join`.
        rests: whether another process will go on later, with the next epoch.
    """

    worker: int
    call: int = 0
    rests: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """Heartbeat of a process that trains as a worker or is about to.

    Attributes:
        worker: its index.
        ticket: as in `Join`.
        phase: what the process does now; `None` if it does not say.
    """

    worker: int
    ticket: int = 0
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """A worker stops on an exception; `error` is its traceback."""

    worker: int
    error: str


@dataclass(frozen=True, slots=True)
class Pull:
    """The driver, which trains nothing, asks for the center, or for a copy that a `Keep` has requested.

    Attributes:
        member: in an ensemble, the member whose center it is.
        kept: number of rows of the copy; 0 for the center as it is now.
    """

    member: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Poll:
    """The driver asks for the events since number `since`."""

    since: int = 0


@dataclass(frozen=True, slots=True)
class Follow:
    """Another server of the job asks the first one for the order of its requests.

    Attributes:
        leader: name of the process whose entries it has read; "" for none.
        since: number of the next entry.
    """

    leader: str = ""
    since: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """The driver puts orders in force; the center gives them their number.

    Where they are `None`, the last ones stay in force.

    Attributes:
        orders: the orders.
        member: in an ensemble, the member that they are for; `None` for all.
    """

    orders: Orders
    member: int | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """The driver asks for a copy of the center as it will be after the first message that brings it to
    `samples` rows, such as the end of an epoch.

    The event `CenterKept` tells that there is one, and `Pull` brings it. A center keeps the last two. After a
    restart of the server the driver asks again. If the rows have come, the copy is made after the next
    message, or at once while all workers wait for the driver.

    Attributes:
        samples: the number of rows.
        now: whether the first of several servers has made its part of the copy without a message.
    """

    samples: int
    now: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """The driver puts a new center in place, while the answers to all workers are held back.

    Their answers become `Rejoin`, so that every worker starts anew from this center. The algorithm's state
    stays as it is.

    Attributes:
        center: shape (size,).
        member: in an ensemble, the member whose center it is.
        call: number of the request among those of the driver; 0 where there is one server.
        allowed: whether the first of several servers has put its part in place.
    """

    center: Vector
    member: int = 0
    call: int = 0
    allowed: bool = False

    @property
    def worker(self) -> int:
        """The sender, who is no worker."""
        return DRIVER


@dataclass(frozen=True, slots=True)
class Report:
    """A worker sends one part of what the driver has asked it for. The parts come in order.

    Attributes:
        worker: its index.
        kind: "state" for its local state, which belongs to the commit `tag`; "evaluation" for the result of
            an evaluation of the copy at `tag` rows.
        tag: number of the commit that follows, or of rows.
        part: index of the part, from 0.
        parts: number of parts, the same in all.
        data: the bytes of the part, at most `MAX_PART`.
    """

    worker: int
    kind: Kind
    tag: int
    part: int
    parts: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """The driver, or a worker in place of another process, asks for one part of a report.

    Attributes:
        worker: index of the worker that has reported.
        kind: as in `Report`.
        tag: as in `Report`; or `NEWEST`.
        part: as in `Report`.
    """

    worker: int
    kind: Kind
    tag: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class MayJoin:
    """A process asks whether it may join, where another one may still train as the same worker.

    Attributes:
        worker: index of the worker.
        ticket: as in `Join`.
    """

    worker: int
    ticket: int = 0


Request = (
    Join
    | Exchange
    | Leave
    | Fail
    | Pull
    | Poll
    | Beat
    | Follow
    | Order
    | Keep
    | Write
    | Report
    | Fetch
    | MayJoin
)


def sender_of(request: Request) -> int:
    """Return the worker that sends `request`; `DRIVER` for those that anybody may send."""
    return DRIVER if isinstance(request, Fetch) else getattr(request, "worker", DRIVER)


@dataclass(frozen=True, slots=True)
class Dismiss:
    """The workers in the open round have to join again: another server of the job has lost their commits.

    Others may be in a round there, so that all would wait for each other. It never comes from the wire.
    """

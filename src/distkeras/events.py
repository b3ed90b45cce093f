"""Frozen records of everything that happens in a job, for `monitor`. Imports nothing of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "CenterFailed",
    "CenterKept",
    "EpochEnded",
    "Event",
    "EventsDropped",
    "RecordFailed",
    "Reported",
    "RoundClosed",
    "RoundOpened",
    "ServerRestored",
    "ServerStatus",
    "SnapshotFailed",
    "SnapshotWritten",
    "Timing",
    "UpdateRefused",
    "Window",
    "WorkerAbout",
    "WorkerBack",
    "WorkerFailed",
    "WorkerJoined",
    "WorkerLeft",
    "WorkerLost",
    "WorkerPhase",
]

Phase = Literal["starting", "importing", "loading", "waiting", "compiling", "training"]
"""What a process does as a worker: it has started, imports Keras and the task, loads the model, waits for its
place and its rows, compiles the first step, trains."""


# A tuple, as it is made for every window: a frozen dataclass takes five times as long.
class Timing(NamedTuple):
    """Where a worker's time went since its last commit, in seconds, and what its connections carried.

    A window's own exchange ends after its commit: it is in the timing of the next window.

    Attributes:
        computing: in the steps of the window, and in the read of its weights and metrics at its end. Backends
            compute while the thread that trains goes on; what it then waits for their results is in here.
        waiting: for rows.
        exchanging: in the exchange before this window: from the message to the use of the reply. If exchanges
            overlap training, only what the thread that trains waited for them.
        blocked: the part of `exchanging` in which the server held the answer back: until a round was
            complete, or the driver had decided.
        bytes_out: bytes of the frames that were sent. Vectors in memory that worker and server share count
            as if they were sent.
        bytes_in: bytes of the frames that arrived, likewise.
        resends: requests that were sent again, because their answer had not come.
    """

    computing: float = 0.0
    waiting: float = 0.0
    exchanging: float = 0.0
    blocked: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0
    resends: int = 0


@dataclass(frozen=True, slots=True)
class WorkerAbout:
    """The process that trains as a worker.

    Attributes:
        host: name of its machine.
        pid: its process id.
        executor: id of its Spark executor; "" if it is unknown.
        backend: Keras's backend.
        device: what it computes on, such as "cpu" or the name of a GPU.
        cores: cores that it may use.
        rows: rows of its partition; `None` if they are unknown.
        memory: bytes of memory that it takes when it joins.
    """

    host: str = ""
    pid: int = 0
    executor: str = ""
    backend: str = ""
    device: str = ""
    cores: int = 0
    rows: int | None = None
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """One communication window, committed to the center exactly once.

    Attributes:
        worker: index of the worker, 0-based.
        epoch: epoch in which the window ended, 0-based.
        iteration: number of this worker's window in the job, 0-based.
        steps: minibatches in the window; the last one of an epoch may be partial.
        samples: rows in the window.
        metrics: every metric that Keras reports over the window, `loss` included.
        staleness: updates of the center between this worker's last pull and this commit.
        timestamp: seconds since the Unix epoch at which the center handled the commit.
        number: number of the commit in the job, from 1; the windows of a synchronous round share one.
        verdict: what the algorithm did with the message: "take", "buffer" or "discard". Only a message that
            was taken is an update of the center.
        fragment: index of the fragment of the weights that was exchanged; each has numbers of its own. At the
            end of a training the windows of the last fragments may have no steps.
        timing: where the worker's time went; `None` if it was not measured.
    """

    worker: int
    epoch: int
    iteration: int
    steps: int
    samples: int
    metrics: dict[str, float]
    staleness: int
    timestamp: float
    number: int = 0
    verdict: Literal["take", "buffer", "discard"] = "take"
    fragment: int = 0
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker stopped on an exception; `error` is its whole traceback."""

    worker: int
    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker asked for the center, for its first attempt or a later one that resumes at (epoch, step).

    `about` is its process; `None` if it did not say.
    """

    worker: int
    attempt: int
    epoch: int
    step: int
    timestamp: float
    about: WorkerAbout | None = None


@dataclass(frozen=True, slots=True)
class WorkerPhase:
    """A process that trains as a worker, or is about to, has begun something else."""

    worker: int
    phase: Phase
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker has committed its last window, or if it `rests`, the last one of an epoch.

    A worker that rests is a share of the rows in an elastic training, which another process trains on later.
    """

    worker: int
    timestamp: float
    rests: bool = False


@dataclass(frozen=True, slots=True)
class ServerRestored:
    """The server restarted from a snapshot. Later windows no longer count, and are trained again.

    Attributes:
        commits: number of windows in the center, by worker.
        left: whether the worker has committed its last window, by worker.
        samples: rows in all these windows.
        num_updates: commits applied to the center; a synchronous round counts once.
        timestamp: seconds since the Unix epoch.
    """

    commits: list[int]
    left: list[bool]
    samples: int
    num_updates: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class CenterKept:
    """The server keeps a copy of the center, as a `Keep` has requested.

    Attributes:
        samples: number of rows that was requested.
        number: number of the first commit with which the center had so many.
        num_updates: updates of the center by then.
        timestamp: seconds since the Unix epoch.
    """

    samples: int
    number: int
    num_updates: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """An epoch of the center has ended: all workers together have trained as many rows since the last.

    Epoch e ends with the commit that brings the center to `CenterConfig.epoch_end(e)` rows. A commit that
    ends two epochs belongs to the first of them. After a restart of the server the last one is reported
    again.

    Attributes:
        epoch: the epoch, 0-based.
        samples: rows of the center after that commit.
        number: number of that commit.
        num_updates: updates of the center by then.
        steps: minibatches in the windows of the epoch.
        states: states of Keras's metrics, added up over the windows of the epoch: little-endian float64, in
            the order of `model.metrics_variables`. Empty if the workers sent none, or not alike.
        windows: number of windows in the epoch.
        staleness_mean: mean of their staleness; 0 if there were none.
        member: in an ensemble, the member; otherwise 0.
        whole: whether the rows of the epoch are complete; if not, every worker has left before that.
        timestamp: seconds since the Unix epoch.
    """

    epoch: int
    samples: int
    number: int
    num_updates: int
    steps: int
    states: bytes
    windows: int
    staleness_mean: float
    member: int
    whole: bool
    timestamp: float


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker's report is complete, and `Fetch` brings it.

    Attributes:
        worker: index of the worker.
        kind: "state" for the local state, once its commit was applied; "evaluation" for the result of
            an evaluation.
        tag: number of the commit of the worker, or number of rows of the copy that was evaluated.
        num_bytes: size of the report.
        timestamp: seconds since the Unix epoch.
    """

    worker: int
    kind: Literal["state", "evaluation"]
    tag: int
    num_bytes: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    """The center refused a window: its loss or its message was NaN, infinite or too large.

    Attributes:
        worker: index of the worker.
        epoch: epoch in which the window ended.
        iteration: number of this worker's window in the job.
        reason: what was wrong.
        timestamp: seconds since the Unix epoch.
    """

    worker: int
    epoch: int
    iteration: int
    reason: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker has sent nothing, not even a heartbeat, for `silence` seconds. It may come back."""

    worker: int
    silence: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerBack:
    """A lost worker, or a worker that a restarted server had not heard yet, has sent a message."""

    worker: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """A snapshot could not be written. Training continues, and the next one is tried when it is due."""

    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class SnapshotWritten:
    """A snapshot was written.

    Attributes:
        num_bytes: size of its arrays.
        seconds: time for copying and writing.
        num_updates: number of commits in it; a synchronous round counts once.
        timestamp: seconds since the Unix epoch.
    """

    num_bytes: int
    seconds: float
    num_updates: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class RecordFailed:
    """The record could not be written and ends here. Training continues."""

    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A worker's message opened a synchronous round.

    Attributes:
        round: number of updates of the center before the round.
        worker: index of the worker.
        expected: messages that complete the round, with the current workers.
        timestamp: seconds since the Unix epoch.
    """

    round: int
    worker: int
    expected: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A synchronous round was complete, and the center applied its mean message.

    Attributes:
        round: as in `RoundOpened`.
        workers: indices of the workers with a message in the round.
        live: number of workers that train and are not lost.
        without: lost workers that the round did not wait for.
        timestamp: seconds since the Unix epoch.
    """

    round: int
    workers: list[int]
    live: int
    without: list[int]
    timestamp: float


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """`count` events are missing here: the driver had read none for long, and the server's log was full."""

    count: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server does, about once a second. Numbers that are unknown are NaN.

    Attributes:
        server: index of the server, 0 unless the center is spread over several.
        memory: bytes of memory that its process takes.
        cpu: seconds of processor time that it has used since its start.
        connections: open connections.
        exchanges: commits that it has handled since its start.
        exchange_seconds: seconds that it took for these in the center, without the network.
        apply_p50: median of these seconds, of one commit, since the last status.
        apply_p99: their 99th percentile.
        bytes_out: bytes of the frames that it has sent since its start.
        bytes_in: bytes of the frames that have arrived.
        center_norm: Euclidean norm of the center, or of this server's part of it.
        message_norm: that of a message that came in lately.
        timestamp: seconds since the Unix epoch.
    """

    server: int
    memory: int
    cpu: float
    connections: int
    exchanges: int
    exchange_seconds: float
    apply_p50: float
    apply_p99: float
    bytes_out: int
    bytes_in: int
    center_norm: float
    message_norm: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class CenterFailed:
    """The server cannot continue, and the job ends; `error` is the reason."""

    error: str
    timestamp: float


Event = (
    Window
    | WorkerFailed
    | WorkerJoined
    | WorkerLeft
    | WorkerLost
    | WorkerBack
    | WorkerPhase
    | CenterKept
    | EpochEnded
    | Reported
    | ServerRestored
    | SnapshotFailed
    | SnapshotWritten
    | RecordFailed
    | RoundOpened
    | RoundClosed
    | EventsDropped
    | ServerStatus
    | CenterFailed
    | UpdateRefused
)

"""The frozen records that everything reports and `monitor` reads. Imports nothing of this project."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CenterFailed",
    "Event",
    "EventsDropped",
    "RecordFailed",
    "RoundClosed",
    "RoundOpened",
    "ServerRestored",
    "SnapshotFailed",
    "SnapshotWritten",
    "UpdateRefused",
    "Window",
    "WorkerBack",
    "WorkerFailed",
    "WorkerJoined",
    "WorkerLeft",
    "WorkerLost",
]


@dataclass(frozen=True, slots=True)
class Window:
    """One communication window, committed to the center exactly once.

    Attributes:
        worker: index of the worker, 0-based.
        epoch: epoch in which the window ended, 0-based.
        iteration: number of this worker's window in the job, 0-based.
        steps: minibatches in the window; the last one of an epoch may be partial.
        samples: rows in the window.
        metrics: every metric Keras reports over the window, `loss` included.
        staleness: commits applied to the center between this worker's last pull and this commit.
        timestamp: seconds since the Unix epoch at which the center took the commit.
    """

    worker: int
    epoch: int
    iteration: int
    steps: int
    samples: int
    metrics: dict[str, float]
    staleness: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker stopped on an exception of its own; `error` is its traceback, whole."""

    worker: int
    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker asked for the center: its first attempt, or a later one that resumes at (epoch, step)."""

    worker: int
    attempt: int
    epoch: int
    step: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker has committed its last window."""

    worker: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class ServerRestored:
    """The server was started again from a snapshot: later windows do not count, and are trained again.

    Attributes:
        commits: windows of each worker that the center holds.
        left: whether each worker has committed its last.
        samples: rows behind all these windows.
        num_updates: commits applied to the center; a synchronous round counts once.
        timestamp: seconds since the Unix epoch.
    """

    commits: list[int]
    left: list[bool]
    samples: int
    num_updates: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    """The center did not take a window: its loss or its message was NaN, infinite or too large.

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
    """Nothing was heard of a worker for longer than a heartbeat may take. It may come back."""

    worker: int
    silence: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerBack:
    """A worker is heard again that was lost, or of which a server that was started again knew nothing yet."""

    worker: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """A snapshot could not be written; training goes on, and the next is tried in its turn."""

    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class SnapshotWritten:
    """A snapshot was written.

    Attributes:
        num_bytes: of the arrays in it.
        seconds: that copying and writing took.
        num_updates: commits that it holds; a synchronous round counts once.
        timestamp: seconds since the Unix epoch.
    """

    num_bytes: int
    seconds: float
    num_updates: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class RecordFailed:
    """The record could not be written, and ends here; training goes on."""

    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A worker's message opened a synchronous round.

    Attributes:
        round: updates of the center before it.
        worker: index of the worker.
        expected: messages that complete it, as the workers are now.
        timestamp: seconds since the Unix epoch.
    """

    round: int
    worker: int
    expected: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A synchronous round was complete, and its mean message was applied.

    Attributes:
        round: as in `RoundOpened`.
        workers: whose messages it had, by index.
        live: workers that train, and are not lost.
        without: workers that it did not wait for, since they are lost.
        timestamp: seconds since the Unix epoch.
    """

    round: int
    workers: list[int]
    live: int
    without: list[int]
    timestamp: float


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """So many events are missing here: the driver had read none for long, and the server has no more room."""

    count: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class CenterFailed:
    """The server cannot go on, and the job ends; `error` says why."""

    error: str
    timestamp: float


Event = (
    Window
    | WorkerFailed
    | WorkerJoined
    | WorkerLeft
    | WorkerLost
    | WorkerBack
    | ServerRestored
    | SnapshotFailed
    | SnapshotWritten
    | RecordFailed
    | RoundOpened
    | RoundClosed
    | EventsDropped
    | CenterFailed
    | UpdateRefused
)

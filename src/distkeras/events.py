"""Frozen records of everything that happens in a job, for `monitor`. Imports nothing of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        metrics: every metric that Keras reports over the window, `loss` included.
        staleness: updates of the center between this worker's last pull and this commit.
        timestamp: seconds since the Unix epoch at which the center handled the commit.
        number: number of the commit in the job, from 1; the windows of a synchronous round share one.
        verdict: what the algorithm did with the message: "take", "buffer" or "discard". Only a message that
            was taken is an update of the center.
        fragment: index of the fragment of the weights that was exchanged; each has numbers of its own. At the
            end of a training the windows of the last fragments may have no steps.
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


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker stopped on an exception; `error` is its whole traceback."""

    worker: int
    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker asked for the center, for its first attempt or a later one that resumes at (epoch, step)."""

    worker: int
    attempt: int
    epoch: int
    step: int
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
    """The server keeps a copy of the center, as a `Keep` has asked for.

    Attributes:
        samples: number of rows that was asked for.
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
    | CenterFailed
    | UpdateRefused
)

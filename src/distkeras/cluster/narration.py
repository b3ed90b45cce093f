"""Describe an event in a sentence, with a log level."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distkeras.events import (
    CenterFailed,
    CenterKept,
    EpochEnded,
    Event,
    EventsDropped,
    RecordFailed,
    Reported,
    RoundClosed,
    RoundOpened,
    ServerRestored,
    SnapshotFailed,
    SnapshotWritten,
    UpdateRefused,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)

MAX_NAMED = 8
MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a worker.

    Attributes:
        windows: number of windows that it has committed.
        epoch: epoch in which the last of them ended; `None` after a snapshot, which does not store it.
    """

    windows: int = 0
    epoch: int | None = None

    def __str__(self) -> str:
        if self.windows == 0:
            return ""
        return f" after window {self.windows - 1}" + ("" if self.epoch is None else f", epoch {self.epoch}")


def describe(event: Event, progress: Mapping[int, Progress]) -> tuple[int, str]:
    """Return the log level and the text for `event`.

    Args:
        event: any event but a `Window` or a `ServerStatus`, of which there are too many.
        progress: progress of the workers that have committed windows.
    """
    match event:
        case WorkerJoined() | WorkerLeft() | WorkerLost() | WorkerBack() | WorkerFailed():
            return _of_worker(event, progress.get(event.worker, Progress()))
        case RoundOpened() | RoundClosed():
            return _of_round(event)
        case SnapshotWritten() | SnapshotFailed() | RecordFailed() | ServerRestored():
            return _of_storage(event)
        case WorkerPhase():
            return logging.DEBUG, f"Worker {event.worker} is {event.phase}."
        case CenterKept():
            return logging.DEBUG, (
                f"The server keeps a copy of the center at {event.samples} rows, after commit {event.number}."
            )
        case EpochEnded():
            return logging.INFO, _of_epoch(event)
        case Reported():
            what = "local state" if event.kind == "state" else "evaluation"
            return logging.DEBUG, f"Worker {event.worker} has sent its {what}: {event.num_bytes} bytes."
        case CenterFailed():
            return logging.ERROR, f"The parameter server cannot continue: {event.error}"
        case EventsDropped():
            return logging.WARNING, (
                f"{event.count} events are missing from the history: they were read too late."
            )
        case UpdateRefused():
            return logging.WARNING, (
                f"Window {event.iteration} of worker {event.worker}, epoch {event.epoch}, was refused: "
                f"{event.reason}"
            )
    raise TypeError(f"Expected an event other than a window or a status. Received: {event!r}")


def _of_epoch(event: EpochEnded) -> str:
    part = "" if event.whole else "A part of "
    of = f" of member {event.member}" if event.member else ""
    return (
        f"{part}{'E' if event.whole else 'e'}poch {event.epoch}{of} has ended with {event.samples} rows: "
        f"{event.windows} windows, {event.steps} minibatches."
    )


def _of_worker(
    event: WorkerJoined | WorkerLeft | WorkerLost | WorkerBack | WorkerFailed, place: Progress
) -> tuple[int, str]:
    worker = f"Worker {event.worker}"
    match event:
        case WorkerJoined():
            at = f"epoch {event.epoch}, minibatch {event.step}, window {place.windows}"
            retried = f", attempt {event.attempt}" if event.attempt else ""
            return logging.INFO, f"{worker} joined{retried}: it trains from {at}."
        case WorkerLeft():
            return logging.INFO, f"{worker} {'rests' if event.rests else 'has ended'}{place}."
        case WorkerLost():
            return logging.WARNING, f"{worker} sent no heartbeat for {event.silence:.0f} s{place}."
        case WorkerBack():
            return logging.WARNING, f"{worker} is back{place}."
        case WorkerFailed():
            return logging.ERROR, f"{worker} failed{place}: {_exception_in(event.error)}"


def _of_round(event: RoundOpened | RoundClosed) -> tuple[int, str]:
    if isinstance(event, RoundOpened):
        return logging.INFO, (
            f"Round {event.round} opened by worker {event.worker}: {event.expected} messages complete it."
        )
    without = f", without {_named(event.without)}, lost" if event.without else ""
    return logging.INFO, (
        f"Round {event.round} closed with {len(event.workers)} of {event.live} workers"
        f" ({_named(event.workers)}){without}."
    )


def _of_storage(event: SnapshotWritten | SnapshotFailed | RecordFailed | ServerRestored) -> tuple[int, str]:
    match event:
        case SnapshotWritten():
            return logging.INFO, (
                f"A snapshot was written after {event.num_updates} updates: {event.num_bytes / 1e6:.1f} MB "
                f"in {event.seconds:.2f} s."
            )
        case SnapshotFailed():
            return logging.WARNING, f"A snapshot could not be written: {event.error}"
        case RecordFailed():
            return logging.WARNING, f"The record could not be written, and ends here: {event.error}"
        case ServerRestored():
            ended = sum(event.left)
            return logging.INFO, (
                f"The parameter server resumes from a snapshot of {event.num_updates} updates: "
                f"{sum(event.commits)} windows, {ended} of {len(event.left)} workers have ended."
            )


def _named(workers: Sequence[int]) -> str:
    shown = ", ".join(map(str, workers[:MAX_NAMED]))
    more = len(workers) - MAX_NAMED
    return f"worker{'s' * (len(workers) > 1)} {shown}" + (f" and {more} more" if more > 0 else "")


def _exception_in(trace: str) -> str:
    """Return type and message of the exception in a traceback: the line after its last frame."""
    lines = trace.strip().splitlines() or [""]
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    after = frames[-1] + 1 if frames else 0
    return lines[min(after, len(lines) - 1)][:MAX_TEXT]

"""The log of a run in words: what each event that is not frequent says to a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from distkeras import events
from distkeras.runs import event_files

Level = Literal["note", "good", "warning", "error"]


class Said(NamedTuple):
    """An event in words.

    Attributes:
        level: how much it asks for attention.
        text: one line.
        detail: more, such as a traceback; "" for nothing.
    """

    level: Level
    text: str
    detail: str = ""


def _joined(event: events.WorkerJoined) -> Said:
    again = f", attempt {event.attempt + 1}" if event.attempt else ""
    where = f", from epoch {event.epoch + 1}, step {event.step}" if event.epoch or event.step else ""
    return Said("warning" if event.attempt else "note", f"Worker {event.worker} has joined{again}{where}")


def _left(event: events.WorkerLeft) -> Said:
    return Said("note", f"Worker {event.worker} {'rests' if event.rests else 'has finished'}")


def _failed(event: events.WorkerFailed) -> Said:
    last = event.error.strip().splitlines()
    return Said("error", f"Worker {event.worker} failed: {last[-1] if last else 'no reason'}", event.error)


def _restored(event: events.ServerRestored) -> Said:
    return Said("warning", f"The server restarted from a snapshot with {event.samples:,} rows of the center")


def _resumed(event: event_files.RunResumed) -> Said:
    epochs = f"{event.epochs} {'epoch' if event.epochs == 1 else 'epochs'}"
    return Said("warning", f"A driver resumed the run from a {event.source}, after {epochs}")


def _written(event: events.SnapshotWritten) -> Said:
    size = event.num_bytes
    shown = f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
    return Said("note", f"Snapshot of {shown} in {event.seconds:.2f} s, after {event.num_updates:,} updates")


def _evaluated(event: event_files.CenterEvaluated) -> Said:
    values = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
    return Said("note", f"Center with {event.samples:,} rows evaluated: {values}")


def _refused(event: events.UpdateRefused) -> Said:
    return Said("warning", f"A window of worker {event.worker} was refused: {event.reason}")


_TEXTS: dict[str, Callable[[Any], Said]] = {
    "WorkerJoined": _joined,
    "WorkerLeft": _left,
    "WorkerFailed": _failed,
    "WorkerLost": lambda event: Said(
        "warning", f"Worker {event.worker} was lost: silent for {event.silence:.0f} s"
    ),
    "WorkerBack": lambda event: Said("good", f"Worker {event.worker} is back"),
    "ServerRestored": _restored,
    "RunResumed": _resumed,
    "CenterEvaluated": _evaluated,
    "UpdateRefused": _refused,
    "SnapshotWritten": _written,
    "SnapshotFailed": lambda event: Said("error", "A snapshot could not be written", event.error),
    "RecordFailed": lambda event: Said("error", "The record could not be written and ends", event.error),
    "WriteFailed": lambda event: Said("error", "The run could not be written to", event.error),
    "EventsDropped": lambda event: Said("warning", f"{event.count:,} events are missing here"),
    "CenterFailed": lambda event: Said("error", "The server cannot continue", event.error),
    "RequestTaken": lambda event: Said("good", event.detail),
}


def said(event: object) -> Said | None:
    """Return what an event says; `None` for one that is no news to a person."""
    text = _TEXTS.get(type(event).__name__)
    return None if text is None else text(event)

"""Replays a record with the same algorithm, which gives the same center, bit for bit."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.answers import Polled
from distkeras.center.durable import restore_snapshot
from distkeras.center.making import AnyCenter, make_center
from distkeras.center.requests import Exchange
from distkeras.center.snapshot import read
from distkeras.events import Event
from distkeras.record.entries import (
    FILE,
    GraceOver,
    RecordError,
    Silence,
    Start,
    Step,
    Told,
    read_record,
    records_in,
    told_by,
)
from distkeras.record.settings import config_of


class ReplayDiverged(RuntimeError):
    """An answer of the replay differs from the server's; the message names the first such step."""


@dataclass(frozen=True)
class Replayed:
    """The result of a replay.

    Attributes:
        center: the last center, shape (size,); for an ensemble (workers, size).
        num_updates: number of its commits; a synchronous round counts once.
        events: the first server's events, in order, windows included.
        num_steps: number of replayed requests, over all servers.
    """

    center: Vector
    num_updates: int
    events: list[Event]
    num_steps: int


def replay(
    path: str,
    algorithm: Algorithm | None = None,
    on_step: Callable[[Step, AnyCenter], None] = lambda step, center: None,
) -> Replayed:
    """Replay a record with the same algorithm, and return the resulting center.

    The replay compares each answer with the server's, by its staleness and by a CRC-32 of the vector that was
    sent. It includes restarts of a server from a snapshot.

    Args:
        path: the folder passed as `ServerOptions(record=...)`, or one server's file in it.
        algorithm: the algorithm, if it is not part of this library; by default the one in the record.
        on_step: called after each step with the step and the center, which it may read: `center.snapshot()`.

    Returns:
        The last center and the reported events. The parts of several servers are joined.

    Raises:
        ReplayDiverged: an answer differs from the server's.
        RecordError: there is no record, it comes from a later version, or it is damaged.
        ValueError: the algorithm is not part of this library and was not passed, or another one was passed.
        OSError: the record cannot be read.

    Example:
        ```python
        trainer = DOWNPOUR(model, "sgd", "mse", server=ServerOptions(record="/data/run"))
        trainer.train(df)
        replayed = distkeras.record.replay("/data/run")
        ```
    """
    parts = [_Replay(file, algorithm, on_step).run() for file in _files(path)]
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        center=np.concatenate([part.center for part in parts], axis=-1),
        num_steps=sum(part.num_steps for part in parts),
    )


class _Replay:
    """The replay of one file."""

    def __init__(
        self,
        path: str,
        algorithm: Algorithm | None,
        on_step: Callable[[Step, AnyCenter], None],
    ) -> None:
        self._path = path
        self._algorithm = algorithm
        self._on_step = on_step
        self._center: AnyCenter | None = None
        self._now = 0.0
        self._events: list[Event] = []
        self._seen = 0
        self._steps = 0

    def run(self) -> Replayed:
        for entry in read_record(self._path):
            if isinstance(entry, Start):
                self._center, self._seen = self._begun(entry), 0
            else:
                self._take(entry, self._started())
            self._read(self._started())
        center = self._started()
        return Replayed(center.snapshot(), center.event_log.num_updates, self._events, self._steps)

    def _started(self) -> AnyCenter:
        if self._center is None:
            raise RecordError(f"Expected a record that begins with a server's start. Received: {self._path}")
        return self._center

    def _begun(self, start: Start) -> AnyCenter:
        config, settings = config_of(start.settings, self._algorithm), start.settings
        snapshot = read(io.BytesIO(start.vector.tobytes())) if start.restart else None
        initial = start.vector if snapshot is None else [member.center for member in snapshot.members]
        if settings["independent"]:
            config, first = replace(config, num_workers=len(initial), independent=True), np.asarray(initial)
        else:
            first = np.concatenate(initial) if snapshot is not None else start.vector
        center = make_center(config, first, clock=lambda: self._now, num_shards=settings["num_shards"])
        if snapshot is not None:
            restore_snapshot(center, snapshot)
        return center

    def _take(self, step: Step, center: AnyCenter) -> None:
        self._now = step.time
        if any(told.reply == "Refused" for told in step.told or ()):
            # Snapshots check whether the center is finite. If it is not, all later commits are refused.
            for member in center.members:
                member.finite.check(center.event_log)
        told: tuple[Told, ...] | None = None
        raised: str | None = None
        request = step.request
        try:
            with contextlib.ExitStack() as stack:
                if step.given is not None:
                    for member in center.members:
                        stack.enter_context(member.obeying(step.given))
                if isinstance(request, Silence):
                    answers = center.mark_lost(request.worker, request.seconds)
                elif isinstance(request, GraceOver):
                    answers = center.look()
                else:
                    if isinstance(request, Exchange):  # The center overwrites it; `on_step` needs it.
                        request = replace(request, message=request.message.copy())
                    answers = center.handle(request)
            told = tuple(told_by(answers))
        except Exception as error:
            if type(error).__name__ != step.error:
                raise
            raised = step.error
        if (step.told is not None or step.error is not None) and (told, raised) != (step.told, step.error):
            raise ReplayDiverged(
                f"Expected the answers of the server at step {step.number} of {self._path}, to "
                f"{_short(step)}: {_answer(step.told, step.error)}. Received: {_answer(told, raised)}"
            )
        self._steps += 1
        self._on_step(step, center)

    def _read(self, center: AnyCenter) -> None:
        """Read the events from the log, so that it does not grow."""
        while (page := self._page(center)).events:
            self._events += page.events
            self._seen = page.next

    def _page(self, center: AnyCenter) -> Polled:
        return center.event_log.read(self._seen)


def _files(path: str) -> list[str]:
    """Return the files at `path`: the file itself, or all records of the folder."""
    if not os.path.isdir(path):
        return [path]
    found = records_in(path)
    expected = [os.path.join(path, FILE.format(index)) for index in range(len(found))]
    if found != expected or not found:
        raise RecordError(
            f"Expected the records {FILE.format(0)}, {FILE.format(1)} and so on, of all servers of a job, in "
            f"{path}. Received: {found}"
        )
    return found


def _short(step: Step) -> str:
    request = step.request
    sequence = f", sequence {request.sequence}" if isinstance(request, Exchange) else ""
    return f"{type(request).__name__} of worker {getattr(request, 'worker', -1)}{sequence}"


def _answer(told: tuple[Told, ...] | None, error: str | None) -> str:
    return error or str(list(told or ()))

"""A center that records every request in the order in which it handles it."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras.center.answers import Answer, LogEntry, Polled
from distkeras.center.durable import take_snapshot
from distkeras.center.making import AnyCenter
from distkeras.center.outer import Outer
from distkeras.center.requests import Beat, Dismiss, Fetch, Follow, MayJoin, Poll, Request
from distkeras.events import RecordFailed
from distkeras.record.entries import GraceOver, Recordable, RecordWriter, Silence
from distkeras.record.settings import settings_of

logger = logging.getLogger(__name__)


class Recorded(Outer):
    """Records every request and passes it to a center, one at a time.

    Without a record, exchanges of several workers run in parallel on different shards of the center, and
    every shard has its own order. With a record they run one after the other: the record's order is that of
    all shards, and `replay` repeats the same calls. This costs the parallel exchanges, and the time to write
    a vector for each commit.

    If the disk is full or gone, the record ends with the last whole step and an event reports it; the
    training continues.

    Args:
        center: the center to serve.
        path: path of the file; an existing record is continued.
        restart: whether the center was restored from a snapshot: the record continues from its state.

    Raises:
        RecordError: the file is not a record, or comes from a later version.
        OSError: the file cannot be written to.
    """

    def __init__(self, center: AnyCenter, path: str, *, restart: bool = False) -> None:
        super().__init__(center.members, center.size)
        self.center, self.request_log = center, center.request_log
        self._lock = threading.Lock()
        self._path = path
        self._given: LogEntry | None = None
        self._time = self.event_log.clock()
        for member in center.members:  # A replay must close the same rounds.
            member.clock = lambda: self._time
        self._writer: RecordWriter | None = RecordWriter(path)
        vector: npt.NDArray[Any] = center.snapshot()
        if restart:
            snapshot = take_snapshot(center, {})
            file = io.BytesIO()
            replace(snapshot, unread=Polled([], 0, snapshot.unread.num_updates)).write(file)
            vector = np.frombuffer(file.getbuffer(), np.uint8)
        settings = settings_of(center, vector.shape)
        self._write(lambda writer: writer.start(settings, vector, restart=restart))

    def handle(self, request: Request | Dismiss) -> list[Answer]:
        """As for `Center.handle`."""
        if isinstance(request, Poll | Follow | Fetch | MayJoin):
            return self.center.handle(request)
        if isinstance(request, Beat) and not self._learns(request):
            return self.center.handle(request)  # It changes nothing, and should not wait for an exchange.
        with self._lock:
            return self._handle(request, lambda: self.center.handle(request))

    @contextlib.contextmanager
    def obeying(self, given: LogEntry) -> Iterator[None]:
        """As for `Center.obeying`."""
        self._given = given
        try:
            with contextlib.ExitStack() as stack:
                for member in self.members:
                    stack.enter_context(member.obeying(given))
                yield
        finally:
            self._given = None

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """As for `Center.mark_lost`."""
        with self._lock:
            return self._handle(Silence(worker, silence), lambda: self.center.mark_lost(worker, silence))

    def seconds_left(self) -> float | None:
        """As for `Center.seconds_left`."""
        return self.center.seconds_left()

    def look(self) -> list[Answer]:
        """As for `Center.look`; recorded only if a grace is over, or another server has closed a round."""
        with self._lock:
            over = self._given is not None or self.seconds_left() == 0
            return self._handle(GraceOver(), self.center.look) if over else []

    def close(self) -> None:
        """Stop recording."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _learns(self, beat: Beat) -> bool:
        return any(member.learns(beat) for member in self.members if beat.worker in member.workers)

    def _handle(self, request: Recordable, handle: Callable[[], list[Answer]]) -> list[Answer]:
        time = self._time = self.event_log.clock()
        given = self._given
        self._write(lambda writer: writer.step(request, time, given))
        try:
            answers = handle()
        except Exception as error:
            failed = error
            self._write(lambda writer: writer.failed(failed))
            raise
        self._write(lambda writer: writer.outcome(answers))
        return answers

    def _write(self, write: Callable[[RecordWriter], None]) -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            write(writer)
        except OSError as error:
            self._writer = None
            reason = f"{type(error).__name__}: {error}"
            self.event_log.add(RecordFailed(reason, self.event_log.clock()))
            try:
                writer.close()
            except OSError as again:  # Readers leave out an entry that is not whole.
                logger.debug("The record at %s could not be closed: %s", self._path, again)

"""The thread of the server process that writes snapshots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from distkeras.center import AnyCenter, SnapshotError, take_snapshot
from distkeras.events import CenterFailed, SnapshotFailed, SnapshotWritten
from distkeras.wire.lease import Fenced
from distkeras.wire.store import SnapshotOptions, Store

LOOK_SECONDS = 0.1


class SnapshotWriter:
    """Writes snapshots of a center at intervals and on request.

    If a snapshot fails, an event reports it. The training continues, and the next snapshot is tried when it
    is due.

    Args:
        center: the center to save.
        store: receives the snapshots.
        options: the intervals.
        settings: settings of the job, saved with each snapshot.
        seconds: longest wait of a request for a snapshot.
    """

    def __init__(
        self,
        center: AnyCenter,
        store: Store,
        options: SnapshotOptions,
        settings: Mapping[str, Any],
        seconds: float = 300.0,
    ) -> None:
        self._center = center
        self._store = store
        self._options = options
        self._settings = settings
        self._seconds = seconds
        self._hide = store.hide
        self._changed = threading.Condition()
        self._asked = 0
        self._kept = 0
        self._written = center.event_log.changes  # Changes that are in the last snapshot, or need none.
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="distkeras-snapshots", daemon=True)

    @property
    def epoch(self) -> int:
        """Epoch of the lease for writing; 0 for no lease yet."""
        return self._store.epoch

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def write_now(self) -> None:
        """Wait until a snapshot of everything so far is written or has failed."""
        with self._changed:
            if self._written >= self._center.event_log.changes:
                return
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._kept >= ticket or self._closed, self._seconds):
                self._report(f"Writing a snapshot takes longer than {self._seconds:.0f} s.")

    def write_soon(self) -> None:
        """Let a snapshot of everything so far be written, without waiting for it."""
        with self._changed:
            if self._written < self._center.event_log.changes:
                self._asked += 1
                self._changed.notify_all()

    def close(self) -> None:
        """Stop writing and release the folder. Wait at most a second for a snapshot in progress."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._report_errors_of(self._store.release)

    def _run(self) -> None:
        event_log, options = self._center.event_log, self._options
        last_time, last_update = time.monotonic(), event_log.num_updates
        if self._store.epoch == 0:
            # While the workers start, so that the first snapshot takes less time.
            self._report_errors_of(self._store.open)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._kept or self._closed, LOOK_SECONDS)
                if self._closed:
                    return
                ticket = self._asked
            due = options.seconds is not None and time.monotonic() >= last_time + options.seconds
            due |= options.commits is not None and event_log.num_updates >= last_update + options.commits
            if ticket == self._kept and not due:
                continue
            if event_log.changes > self._written:  # Else the one that was under way has it all.
                last_time, last_update = time.monotonic(), event_log.num_updates
                self._report_errors_of(self._write)
            with self._changed:
                self._kept = ticket
                self._changed.notify_all()

    def _write(self) -> None:
        event_log = self._center.event_log
        changes, started = event_log.changes, time.monotonic()
        snapshot = take_snapshot(self._center, self._settings)
        for member, state in zip(self._center.members, snapshot.members, strict=True):
            # The newest snapshot must be finite.
            if (problem := member.finite.check(self._center.event_log, state)) is not None:
                raise SnapshotError(problem)
        self._store.write(snapshot)
        seconds = time.monotonic() - started
        num_bytes, num_updates = snapshot.num_bytes, snapshot.unread.num_updates
        event_log.add(SnapshotWritten(num_bytes, seconds, num_updates, event_log.clock()))
        # Includes the event above, which needs no further snapshot. Not before it is added: until then, the
        # number would count another event in its place, such as that of a worker that leaves.
        self._written = changes + 1

    def _report_errors_of(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Fenced as error:  # After a crash, no server could continue from that folder.
            self._center.event_log.add(CenterFailed(self._hide(str(error)), self._center.event_log.clock()))
        except Exception as error:  # Any error of a filesystem or a user's algorithm: the job continues.
            self._report(f"{type(error).__name__}: {error}")

    def _report(self, error: str) -> None:
        self._center.event_log.add(SnapshotFailed(self._hide(error), self._center.event_log.clock()))

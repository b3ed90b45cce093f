"""The thread of the server's process that writes snapshots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from distkeras.center import Center, Independent, SnapshotError, take_snapshot
from distkeras.events import CenterFailed, SnapshotFailed, SnapshotWritten
from distkeras.wire.lease import Fenced
from distkeras.wire.redaction import Redaction, secrets_in
from distkeras.wire.store import SnapshotOptions, Store

LOOK_SECONDS = 0.1


class SnapshotWriter:
    """Writes snapshots of a center in its turn, and when it is asked to.

    A snapshot that cannot be written is reported by an event; training goes on, and the next is tried in its
    turn.

    Args:
        center: whose.
        store: where they go.
        options: when.
        settings: of the job; they are written too.
        seconds: how long whoever asks for a snapshot waits for it.
    """

    def __init__(
        self,
        center: Center | Independent,
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
        self._hide = Redaction(secrets_in(store.address))
        self._changed = threading.Condition()
        self._asked = 0
        self._kept = 0
        self._written = center.event_log.changes  # What is in the last snapshot, or needs none.
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="distkeras-snapshots", daemon=True)

    @property
    def epoch(self) -> int:
        """Of the lease under which it writes; 0: it has none yet."""
        return self._store.epoch

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def write_now(self) -> None:
        """Wait until a snapshot is written that has all that has happened before; or could not be."""
        with self._changed:
            if self._written >= self._center.event_log.changes:
                return
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._kept >= ticket or self._closed, self._seconds):
                self._report(f"It takes longer than {self._seconds:.0f} s to write one.")

    def close(self) -> None:
        """Write no more, and give the folder back; wait for one that is being written, but not for long."""
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
            self._report_errors_of(
                self._store.open
            )  # While the workers start: the first snapshot waits less.
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._kept or self._closed, LOOK_SECONDS)
                if self._closed:
                    return
                ticket = self._asked
            due = options.seconds is not None and time.monotonic() >= last_time + options.seconds
            due |= options.commits is not None and event_log.num_updates >= last_update + options.commits
            if ticket == self._kept and not (due and event_log.changes > self._written):
                continue
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
            if (
                problem := member.finite.check(self._center.event_log, state)
            ) is not None:  # One that is finite must stay the newest.
                raise SnapshotError(problem)
        self._store.write(snapshot)
        self._written = changes + 1  # With the event that tells of it, which needs no further snapshot.
        seconds = time.monotonic() - started
        num_bytes, num_updates = snapshot.num_bytes, snapshot.unread.num_updates
        event_log.add(SnapshotWritten(num_bytes, seconds, num_updates, event_log.clock()))

    def _report_errors_of(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Fenced as error:  # No server could go on from what is there, if this one were killed.
            self._center.event_log.add(CenterFailed(self._hide(str(error)), self._center.event_log.clock()))
        except Exception as error:  # Whatever a filesystem or a user's rule comes up with: the job goes on.
            self._report(f"{type(error).__name__}: {error}")

    def _report(self, error: str) -> None:
        self._center.event_log.add(SnapshotFailed(self._hide(error), self._center.event_log.clock()))

"""The records of all workers of a center."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from distkeras.center.checks import ProtocolError
from distkeras.center.ledger import WorkerRecord
from distkeras.center.reports import Reports
from distkeras.center.requests import Beat
from distkeras.events import Event, WorkerBack, WorkerPhase


class Records:
    """The ledger of a center: one record for each worker.

    Args:
        workers: the indices of the center's workers.
        together: whether all records share one lock: a synchronous round moves all its workers at once.
        reports: what the workers report.
        report: receives the events that concern one worker.
        clock: seconds since the epoch, for the timestamps of events.

    Attributes:
        workers: the indices.
        by_worker: the records, by worker.
    """

    def __init__(
        self,
        workers: range,
        together: bool,
        reports: Reports,
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        shared = threading.RLock()
        self.workers = workers
        self.by_worker = {
            worker: WorkerRecord(shared if together else threading.RLock(), reports) for worker in workers
        }
        self._report = report
        self._clock = clock

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self.by_worker.values())

    def of(self, worker: int) -> WorkerRecord:
        """Return the record of `worker`.

        Raises:
            ProtocolError: the center has no such worker.
        """
        record = self.by_worker.get(worker)
        if record is None:
            first, last = self.workers[0], self.workers[-1]
            raise ProtocolError(f"Expected a worker in {first}..{last}. Received: worker={worker}")
        return record

    def hear(self, worker: int, record: WorkerRecord) -> None:
        """Record that `worker`, whose `record` this is, is alive."""
        if not record.missed:  # The usual case takes no lock: an exchange may hold it for long.
            return
        with record.lock:
            if record.missed:
                record.lost = record.missed = False
                self._report(WorkerBack(worker, self._clock()))

    def beat(self, beat: Beat) -> None:
        """Record a heartbeat, and what its process does.

        Raises:
            ProtocolError: the center has no such worker.
        """
        record = self.of(beat.worker)
        if not self.learns(beat):  # The usual case takes no lock, as in `hear`.
            return
        self.hear(beat.worker, record)
        with record.lock:
            if beat.phase is not None and beat.phase != record.phase:
                record.phase = beat.phase
                self._report(WorkerPhase(beat.worker, beat.phase, self._clock()))

    def learns(self, beat: Beat) -> bool:
        """Return whether a heartbeat tells anything new: that its worker is alive, or what it does."""
        record = self.of(beat.worker)
        return record.missed or beat.phase not in (None, record.phase)

    def expected(self) -> list[int]:
        """Return the workers that have committed at least one window but have not left, nor rest."""
        return [
            worker
            for worker, record in self.by_worker.items()
            if record.sequence and not (record.left or record.rests)
        ]

    def training(self) -> int:
        """Return how many workers train now, at least 1."""
        return max(1, len(self.training_now()))

    def training_now(self) -> list[int]:
        """Return the workers that train now."""
        return [worker for worker, record in self.by_worker.items() if record.joined and not record.lost]

    def present(self) -> list[int]:
        """Return the workers that have neither left nor are lost, those that are still to join included."""
        return [worker for worker, record in self.by_worker.items() if not (record.left or record.lost)]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Block all commits in a `with` block, so that the center and the ledger agree."""
        with contextlib.ExitStack() as stack:
            for record in self:
                stack.enter_context(record.lock)
            yield

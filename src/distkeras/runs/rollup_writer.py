"""Writes the rollups of a run beside its events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from distkeras.runs.event_files import EventWriter, Written
from distkeras.runs.folder import Folder
from distkeras.runs.lines import Tail
from distkeras.runs.records import EpochRecord, every_record
from distkeras.runs.rollup import FOLDER, ROLLUPS, Epoch, Rollup, epoch_of
from distkeras.wire.lease import Fenced
from distkeras.wire.redaction import Redaction


class RollupWriter:
    """Adds up the events of a run, and writes what is complete.

    Args:
        folder: the folder of the run.
        check: raises Fenced if another driver has taken the run.
        hide: removes secrets from texts.
    """

    def __init__(self, folder: Folder, check: Callable[[], None], hide: Redaction) -> None:
        self._folder = folder
        self._rollup = Rollup()
        self._writer = EventWriter(folder, check, hide, name=FOLDER, lines=ROLLUPS)
        self._began = 0.0

    def begin(self, began: float) -> None:
        """Say when the first driver of the run began, in seconds since the Unix epoch."""
        self._began = began

    def roll_by(self, seconds: float) -> None:
        """Set the width of the first buckets, before the first event."""
        self._rollup = Rollup(seconds)

    def catch_up(self, events: Iterable[Written]) -> None:
        """Go on after the `events` of earlier drivers; write what they have not come to write.

        The same events give the same rollups: what is there already is not written again.
        """
        written, epochs = 0, set()
        for _, line in Tail(self._folder, FOLDER).new():
            rolled = ROLLUPS.decode(line)
            if isinstance(rolled, Epoch):
                epochs.add((rolled.member, rolled.epoch))
            else:
                written += 1
        for event in events:
            for rolled in self._rollup.add(event):
                if written:
                    written -= 1
                else:
                    self._writer.write(rolled)
        for record in every_record(self._folder):
            if (record.member, record.epoch) not in epochs:
                self.close_epoch(record)

    def write(self, event: Written) -> None:
        """Add an event, and write what is complete.

        Raises:
            Fenced: another driver has taken the run.
        """
        for rolled in self._rollup.add(event):
            self._writer.write(rolled)

    def close_epoch(self, record: EpochRecord) -> None:
        """Write an epoch that the driver has closed.

        Raises:
            Fenced: another driver has taken the run.
        """
        self._writer.write(epoch_of(record, self._rollup.totals, self._began))

    def close(self) -> None:
        """Write all that has come, and end the thread of the writer."""
        with contextlib.suppress(Fenced):  # The driver that has taken the run catches up.
            try:
                for rolled in self._rollup.flush():
                    self._writer.write(rolled)
            finally:
                self._writer.close()

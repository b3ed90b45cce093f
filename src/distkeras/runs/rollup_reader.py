"""Reads the rollups of a run, also while it is written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distkeras.runs.event_files import EVENTS
from distkeras.runs.event_files import FOLDER as EVENT_FOLDER
from distkeras.runs.facts import read_facts
from distkeras.runs.folder import Folder, RunError
from distkeras.runs.lines import Lines, Tail
from distkeras.runs.records import every_record
from distkeras.runs.rollup import FOLDER as ROLLUP_FOLDER
from distkeras.runs.rollup import ROLLUPS, Epoch, Rolled, Rollup, epoch_of

ROLLED_UP = "rollups"
"""The name in `run.json` that says whether the run has rollups."""


class RollupReader:
    """Yields the rollups of a run as they are written. Those of a run without any are made of its events.

    Args:
        folder: the folder of the run.

    Attributes:
        broken: number of lines that could not be read.
        first_broken: file and place of the first of them, and what is wrong; "" for none.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.broken, self.first_broken = 0, ""
        self._rollups, self._events = Tail(folder, ROLLUP_FOLDER), Tail(folder, EVENT_FOLDER)
        self._own: Rollup | None = None  # For a run without rollups.
        self._is_rolled_up = False
        self._epochs: set[tuple[int | None, int]] = set()
        self._began = 0.0

    def new(self) -> Iterator[Rolled]:
        """Yield what has come since the last call, in order.

        Raises:
            RunError: a later release wrote the run.
        """
        if not self._is_rolled_up and self._own is None:
            facts = read_facts(self._folder)
            if facts is None:  # No driver has written yet what it is.
                return
            self._begin(facts)
        if self._own is None:
            yield from self._read(self._rollups, ROLLUPS)
            return
        for event in self._read(self._events, EVENTS):
            yield from self._own.add(event)
        yield from self._own.flush()
        yield from self._new_epochs(self._own)

    def _begin(self, facts: dict[str, Any]) -> None:
        self._is_rolled_up = bool(facts.get(ROLLED_UP))
        if not self._is_rolled_up:
            self._own = Rollup()
            self._began = min((each["began"] for each in facts.get("sessions", ())), default=0.0)

    def _read(self, tail: Tail, lines: Lines) -> Iterator[Any]:
        for where, line in tail.new():
            try:
                record = lines.decode(line)
            except RunError as error:
                self.broken += 1
                self.first_broken = self.first_broken or f"{where}: {error}"
            else:
                if record is not None:
                    yield record

    def _new_epochs(self, own: Rollup) -> Iterator[Epoch]:
        """Yield the epochs whose records are new, of a run without rollups."""
        for record in every_record(self._folder):
            if (record.member, record.epoch) not in self._epochs:
                self._epochs.add((record.member, record.epoch))
                yield epoch_of(record, own.totals, self._began)


def read_rollups(folder: Folder) -> Iterator[Rolled]:
    """Yield the rollups of a run so far, in the order in which they were written.

    Raises:
        RunError: a line is damaged, or a later release wrote the run.
    """
    reader = RollupReader(folder)
    yield from reader.new()
    if reader.broken:
        raise RunError(f"Expected whole lines. Received: {reader.first_broken}")

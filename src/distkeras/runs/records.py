"""The record of each epoch of a run: its logs, and the state of callbacks and driver after it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from distkeras.runs.folder import Folder, RunError
from distkeras.runs.packing import files_in, from_bytes, name_of, pack, to_bytes, to_text, unpack

VERSION = 1
FOLDER = "epochs"
ARRAYS = "arrays"
_NAME = re.compile(r"epoch-(\d+)\.json")


@dataclass(frozen=True)
class EpochRecord:
    """What a driver had decided after one epoch of the center.

    Attributes:
        epoch: the epoch, 0-based.
        logs: its logs, as callbacks got them.
        samples: rows of the center.
        member: in an ensemble, the member.
        timestamp: seconds since the Unix epoch.
        packed: the state in its stored form.
        folder: the folder of the run.
    """

    epoch: int
    logs: Mapping[str, float]
    samples: int
    member: int | None
    timestamp: float
    packed: Any = field(repr=False)
    folder: Folder = field(repr=False, compare=False)

    @cached_property
    def state(self) -> Any:
        """The state that was given, with its arrays.

        Raises:
            RunError: the arrays were removed: no snapshot is so old.
        """
        try:
            return unpack(
                self.packed,
                lambda name: from_bytes(self.folder.read(f"{_folder_of(self.member)}/{ARRAYS}/{name}")),
            )
        except FileNotFoundError as error:
            raise RunError(
                "Expected a record whose arrays are kept: one of the newest epochs. "
                f"Received: epoch={self.epoch}"
            ) from error


class EpochRecords:
    """The records of one model, one file an epoch.

    Arrays in states, such as the weights that `EarlyStopping` restores, are files of their own. States that
    share them share the file. It is removed when no snapshot is so old that a resumed driver needs it.

    Args:
        folder: the folder of the run.
        member: in an ensemble, the member.
        snapshots: number of snapshots that the server keeps.
    """

    def __init__(self, folder: Folder, member: int | None = None, snapshots: int = 2) -> None:
        self._folder = folder
        self._member = member
        self._name = _folder_of(member)
        self._lock = threading.Lock()
        self._records = {record.epoch: record for record in read_records(folder, member)}
        # The epochs behind each kept snapshot. An unknown one may need the first record.
        self._needed: deque[int] = deque([0] * snapshots, snapshots)
        self._files = set(folder.names(f"{self._name}/{ARRAYS}"))

    @property
    def all(self) -> list[EpochRecord]:
        """The records, by epoch."""
        return [self._records[epoch] for epoch in sorted(self._records)]

    def add(self, epoch: int, logs: Mapping[str, float], state: Any, samples: int) -> EpochRecord:
        """Write the record of an epoch, after the arrays of its state.

        Raises:
            NotPlain: the state holds something other than JSON and arrays.
        """
        packed = pack(state, self._keep)
        plain = {name: float(value) for name, value in logs.items()}
        record = EpochRecord(epoch, plain, samples, self._member, time.time(), packed, self._folder)
        text = {
            "version": VERSION,
            "epoch": epoch,
            "samples": samples,
            "timestamp": record.timestamp,
            "logs": {name: to_text(value) for name, value in plain.items()},
            "state": packed,
        }
        self._folder.write(self._file_of(epoch), json.dumps(text).encode())
        with self._lock:
            self._records[epoch] = record
        self._remove_old_arrays()
        return record

    def roll_back(self, epochs: int) -> EpochRecord | None:
        """Remove the records of all but the first `epochs` epochs, and return the last one that is left."""
        for epoch in sorted(self._records, reverse=True):
            if epoch >= epochs:
                self._folder.remove(self._file_of(epoch))
                del self._records[epoch]
        with self._lock:
            self._needed.extend([min(epochs, count) for count in self._needed])
        return self._records[max(self._records)] if self._records else None

    def snapshot_written(self) -> None:
        """Note that the server has a new snapshot, and has removed its oldest one."""
        with self._lock:
            self._needed.append(len(self._records))

    def _keep(self, arrays: list[Any]) -> str:
        name = name_of(arrays)
        if name not in self._files:
            self._folder.write(f"{self._name}/{ARRAYS}/{name}", to_bytes(arrays))
            self._files.add(name)
        return name

    def _remove_old_arrays(self) -> None:
        """Remove the arrays of the records before the one that the oldest snapshot needs."""
        with self._lock:
            oldest = min(self._needed) - 2  # Its event may come after the next record.
            needed = [record for record in self._records.values() if record.epoch >= oldest]
        for name in self._files - files_in([record.packed for record in needed]):
            self._folder.remove(f"{self._name}/{ARRAYS}/{name}")
            self._files.discard(name)

    def _file_of(self, epoch: int) -> str:
        return f"{self._name}/epoch-{epoch + 1:06d}.json"


def read_records(folder: Folder, member: int | None) -> list[EpochRecord]:
    """Return the records of a run, by epoch.

    Raises:
        RunError: a later release wrote one.
    """
    own, found = _folder_of(member), []
    for name in folder.names(own):
        if _NAME.fullmatch(name):
            facts = json.loads(folder.read(f"{own}/{name}"))
            if facts.pop("version") > VERSION:
                raise RunError(
                    f"Expected records of version {VERSION} or earlier. Received: {name} of a later release "
                    "of distkeras: use that release"
                )
            packed = facts.pop("state")
            facts["logs"] = {name: float(value) for name, value in facts["logs"].items()}
            found.append(EpochRecord(**facts, member=member, packed=packed, folder=folder))
    return sorted(found, key=lambda record: record.epoch)


def every_record(folder: Folder) -> Iterator[EpochRecord]:
    """Yield the records of a run, or those of all members of an ensemble."""
    names = folder.names(FOLDER)
    members = [int(name.removeprefix("member-")) for name in names if name.startswith("member-")]
    for member in (None, *sorted(members)):
        yield from read_records(folder, member)


def _folder_of(member: int | None) -> str:
    return FOLDER if member is None else f"{FOLDER}/member-{member}"

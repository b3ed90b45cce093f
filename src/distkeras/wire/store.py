"""The folder of snapshots: the last few, on any filesystem that fsspec supports."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar, cast

from distkeras.center.snapshot import Snapshot, SnapshotError, read, read_facts
from distkeras.wire.lease import Holder, Lease, files, find_holder
from distkeras.wire.redaction import Redaction, secrets_in, without_secrets

logger = logging.getLogger(__name__)
_NAME = re.compile(r"snapshot-(?:(\d{10})-)?(\d{10})\.npz")
PART = ".part"
T = TypeVar("T")
PATIENCE_SECONDS = 60.0
SLOWEST_BYTES = 2e6
"""Bytes per second of the slowest filesystem that is waited for."""


def seconds_to_write(num_bytes: int) -> float:
    """Return the longest time for a snapshot of `num_bytes`, in seconds: a minute, and more by its size.

    Both the driver and the server use it when a job ends.
    """
    return PATIENCE_SECONDS + num_bytes / SLOWEST_BYTES


@dataclass(frozen=True)
class SnapshotOptions:
    """When and where the parameter server writes snapshots.

    The server also writes one before it lets a worker leave: after the worker's process has ended, nothing
    can repeat its windows.

    Attributes:
        address: a folder, on any filesystem that fsspec supports: "/mnt/backup/run", "s3://bucket/run",
            "hdfs:///run". `train(..., resume=True)` continues from it after a crash of the driver or its
            machine. By default a local folder that is removed at the end and covers a crash of the server
            alone.
        seconds: seconds between two snapshots; `None` for no snapshots by time.
        commits: updates of the center between two snapshots; `None` for no snapshots by updates.
        keep: number of snapshots to keep.
        storage_options: arguments of fsspec's driver for the address, such as keys.

    Raises:
        ValueError: a number is not positive, or both `seconds` and `commits` are `None`.
    """

    address: str | None = None
    seconds: float | None = 60.0
    commits: int | None = None
    keep: int = 2
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        address = None if self.address is None else without_secrets(self.address)
        rest = f"seconds={self.seconds}, commits={self.commits}, keep={self.keep}"
        return f"SnapshotOptions(address={address!r}, {rest})"

    def __post_init__(self) -> None:
        numbers = [number for number in (self.seconds, self.commits) if number is not None]
        if not numbers or min(*numbers, self.keep, self.keep) <= 0:
            raise ValueError(
                "Expected a positive number of `seconds` or `commits` between two snapshots, and a positive "
                f"`keep`. Received: {self!r}"
            )


class Store:
    """The snapshots in one folder, ordered by the epoch of the writer's lease and by number.

    Each snapshot is written under another name and renamed when it is complete, so a truncated file is never
    taken for a snapshot. On filesystems where renaming is copying, the checksums detect it. Readers do not
    disturb a run that still writes.

    Args:
        address: the folder, for fsspec; created at the first use if it does not exist.
        keep: number of snapshots to keep.
        run: name of the run that writes; a new one by default.
        epoch: epoch that this run held in a process that was killed; 0 for none.
        storage_options: arguments of fsspec's driver.
    """

    def __init__(
        self,
        address: str,
        keep: int = 2,
        run: str | None = None,
        epoch: int = 0,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.address = address
        self._storage_options = dict(storage_options or {})
        self._keep = keep
        self._run = run or secrets.token_hex(4)
        self._last = epoch
        self._opened: tuple[Any, str] | None = None
        self._lease: Lease | None = None

    @property
    def hide(self) -> Redaction:
        """Hides the secrets of the address."""
        return Redaction(secrets_in(self.address, self._storage_options))

    @property
    def epoch(self) -> int:
        """The epoch for writing; 0 if this run has not taken the folder yet."""
        return 0 if self._lease is None else self._lease.epoch

    def open(self) -> tuple[Any, str]:
        """Return the filesystem and the folder on it, which is created if necessary.

        Raises:
            ValueError, ImportError, OSError: fsspec's error for an invalid address.
        """
        if self._opened is None:
            # Imported here: importing fsspec takes a quarter of a second.
            from fsspec.core import url_to_fs

            fs, folder = url_to_fs(self.address, **self._storage_options)
            fs.makedirs(folder, exist_ok=True)
            self._opened = fs, folder
        return self._opened

    def take(self) -> None:
        """Take the folder from the run that wrote there before.

        Raises:
            Fenced: another run has taken it from this one.
            ValueError, ImportError, OSError: as for `open`, or the folder cannot be written to.
        """
        fs, folder = self.open()
        names = self._names()
        lease = Lease(fs, folder, self._run)
        lease.take(_key(names[-1])[0] if names else 0, self._last)
        self._lease = lease
        for name in files(fs, folder):  # Left by processes that were killed, or may not write any more.
            if name.endswith(PART) and _is_snapshot(name.removesuffix(PART)):
                fs.rm(name)

    def release(self) -> None:
        """Release the folder, if it was taken."""
        if self._lease is not None:
            self._lease.release()

    def holder(self) -> Holder | None:
        """Return the run that writes to the folder, or did when it was killed; `None` for none."""
        return find_holder(*self.open())

    def write(self, snapshot: Snapshot) -> str:
        """Add `snapshot`, remove the oldest beyond `keep`, and return the name of its file.

        Raises:
            Fenced: another run has taken the folder.
            OSError: the snapshot could not be written; the earlier ones are unchanged.
        """
        fs, folder = self.open()
        if self._lease is None:
            self.take()
        lease = cast(Lease, self._lease)
        lease.check()
        names = self._names()
        number = 1 + (_key(names[-1])[1] if names else 0)
        name = f"{folder}/snapshot-{lease.epoch:010d}-{number:010d}.npz"
        part = name + PART
        try:
            with fs.open(part, "wb") as file:
                snapshot.write(file)
                _to_disk(file)
            lease.check()  # Writing may have taken minutes.
            fs.mv(part, name)
        except BaseException:
            with contextlib.suppress(OSError):  # The disk is full, or gone: the first error says more.
                fs.rm(part)
            lease.check()  # A run that took the folder has removed the half-written file.
            raise
        for old in [*names, name][: -self._keep]:
            fs.rm(old)
        return name

    def newest(self) -> Snapshot | None:
        """Return the last complete snapshot; `None` if there is none."""
        return self._last_whole(read)

    def newest_facts(self) -> dict[str, Any] | None:
        """Return the facts of the last complete snapshot; `None` if there is none."""
        return self._last_whole(read_facts)

    def clear(self) -> None:
        """Remove all snapshots and nothing else."""
        fs, _ = self.open()
        for name in self._names():
            fs.rm(name)

    def _last_whole(self, reader: Callable[[IO[bytes]], T]) -> T | None:
        fs, _ = self.open()
        for name in reversed(self._names()):
            try:
                with fs.open(name, "rb") as file:
                    return reader(file)
            except SnapshotError as error:
                logger.warning("%s is skipped: %s", self.hide(name), error)
        return None

    def _names(self) -> list[str]:
        fs, folder = self.open()
        fs.invalidate_cache(folder)
        return sorted(filter(_is_snapshot, files(fs, folder)), key=_key)


def _is_snapshot(name: str) -> bool:
    return _NAME.fullmatch(name.rsplit("/", 1)[-1]) is not None


def _key(name: str) -> tuple[int, int]:
    """Return epoch and number of a snapshot. The first releases wrote no epoch."""
    match = _NAME.fullmatch(name.rsplit("/", 1)[-1])
    return (0, 0) if match is None else (int(match[1] or 0), int(match[2]))


def _to_disk(file: Any) -> None:
    """Make the system write a local file to disk, so that it survives a crash of the machine."""
    file.flush()
    descriptor = getattr(file, "fileno", None)
    if descriptor is not None:
        with contextlib.suppress(OSError, NotImplementedError):  # Remote files have no descriptor.
            os.fsync(descriptor())

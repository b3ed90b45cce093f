"""Where snapshots lie: the last few of them, in a folder on any filesystem that fsspec knows."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
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
"""A second, by the slowest filesystem that is waited for."""


def seconds_to_write(num_bytes: int) -> float:
    """Return how long one snapshot of a center of so many bytes may take: a minute, and more by its size.

    Driver and server both go by it when a job ends.
    """
    return PATIENCE_SECONDS + num_bytes / SLOWEST_BYTES


@dataclass(frozen=True)
class SnapshotOptions:
    """When the parameter server writes down what it holds, and where.

    Besides these times it does so before it lets a worker leave: windows of a worker that has ended can be
    trained again by nobody.

    Attributes:
        address: a folder, on any filesystem that fsspec knows: "/mnt/backup/run", "s3://bucket/run",
            "hdfs:///run". `train(..., resume=True)` goes on from it when the driver or its machine has died.
            Default: a local folder that is removed at the end, which serves when the server alone has died.
        seconds: after so many; `None`: not by time.
        commits: after so many updates of the center; `None`: not by their number.
        keep: how many of the last are kept.

    Raises:
        ValueError: a number that is not positive, or neither of `seconds` and `commits`.
    """

    address: str | None = None
    seconds: float | None = 60.0
    commits: int | None = None
    keep: int = 2

    def __repr__(self) -> str:
        address = None if self.address is None else without_secrets(self.address)
        rest = f"seconds={self.seconds}, commits={self.commits}, keep={self.keep}"
        return f"SnapshotOptions(address={address!r}, {rest})"

    def __post_init__(self) -> None:
        numbers = [number for number in (self.seconds, self.commits) if number is not None]
        if not numbers or min(*numbers, self.keep, self.keep) <= 0:
            raise ValueError(
                "Expected a positive number of `seconds` or `commits` between two snapshots, and a positive "
                f"number to `keep`. Received: {self!r}"
            )


class Store:
    """The snapshots in one folder, by the epoch of the lease under which they were written, and numbered.

    Each is written under another name and moved when it is whole, so that one that was cut off is never taken
    for a snapshot; on a filesystem where moving is copying its checksums tell. Who reads takes nothing from a
    run that still writes.

    Args:
        address: the folder, as fsspec has it; made where it does not exist, at the first use.
        keep: how many of the last are kept.
        run: names the run that writes; default: one of its own.
        epoch: that this run held before, in a process that was killed; 0: none.
    """

    def __init__(self, address: str, keep: int = 2, run: str | None = None, epoch: int = 0) -> None:
        self.address = address
        self._keep = keep
        self._run = run or secrets.token_hex(4)
        self._last = epoch
        self._opened: tuple[Any, str] | None = None
        self._lease: Lease | None = None

    @property
    def epoch(self) -> int:
        """The epoch under which it writes; 0: it has not taken the folder yet."""
        return 0 if self._lease is None else self._lease.epoch

    def open(self) -> tuple[Any, str]:
        """Return the filesystem and the folder on it, which exists then.

        Raises:
            ValueError, ImportError, OSError: whatever fsspec says of an address that is none.
        """
        if self._opened is None:
            # Here: fsspec takes a quarter of a second to import.
            from fsspec.core import url_to_fs

            fs, folder = url_to_fs(self.address)
            fs.makedirs(folder, exist_ok=True)
            self._opened = fs, folder
        return self._opened

    def take(self) -> None:
        """Take the folder, from a run that wrote there before.

        Raises:
            Fenced: another run has taken it from this one.
            ValueError, ImportError, OSError: as `open`, or the folder cannot be written to.
        """
        fs, folder = self.open()
        names = self._names()
        lease = Lease(fs, folder, self._run)
        lease.take(_key(names[-1])[0] if names else 0, self._last)
        self._lease = lease
        for name in files(fs, folder):  # Of processes that were killed, or may write no more.
            if name.endswith(PART) and _is_snapshot(name.removesuffix(PART)):
                fs.rm(name)

    def release(self) -> None:
        """Give the folder back, if it was taken: whoever takes it next takes it from nobody."""
        if self._lease is not None:
            self._lease.release()

    def holder(self) -> Holder | None:
        """Return who writes to the folder, or did when it was killed; `None`: nobody."""
        return find_holder(*self.open())

    def write(self, snapshot: Snapshot) -> str:
        """Add `snapshot`, remove what is older than the last few, and return the name of its file.

        Raises:
            Fenced: another run has taken the folder.
            OSError: it could not be written; the earlier ones are as they were.
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
            with contextlib.suppress(OSError):  # The disk is full, or gone: the first error tells more.
                fs.rm(part)
            lease.check()  # Whoever took the folder removed what was half written.
            raise
        for old in [*names, name][: -self._keep]:
            fs.rm(old)
        return name

    def newest(self) -> Snapshot | None:
        """Return the last snapshot that is whole; `None`: there is none."""
        return self._last_whole(read)

    def newest_facts(self) -> dict[str, Any] | None:
        """Return what `read_facts` tells of the last snapshot that is whole."""
        return self._last_whole(read_facts)

    def clear(self) -> None:
        """Remove all snapshots, and nothing else."""
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
                logger.warning("%s is passed over: %s", Redaction(secrets_in(self.address))(name), error)
        return None

    def _names(self) -> list[str]:
        fs, folder = self.open()
        fs.invalidate_cache(folder)
        return sorted(filter(_is_snapshot, files(fs, folder)), key=_key)


def _is_snapshot(name: str) -> bool:
    return _NAME.fullmatch(name.rsplit("/", 1)[-1]) is not None


def _key(name: str) -> tuple[int, int]:
    """Return epoch and number of a snapshot. The first ones had no epoch."""
    match = _NAME.fullmatch(name.rsplit("/", 1)[-1])
    return (0, 0) if match is None else (int(match[1] or 0), int(match[2]))


def _to_disk(file: Any) -> None:
    """Have the system write a local file out, so that it also survives the machine."""
    file.flush()
    descriptor = getattr(file, "fileno", None)
    if descriptor is not None:
        with contextlib.suppress(OSError, NotImplementedError):  # A remote filesystem's file has none.
            os.fsync(descriptor())

"""Where snapshots lie: the last few of them, in a folder on any filesystem that fsspec knows."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from distkeras.center.snapshot import Snapshot, SnapshotError, read, read_facts

logger = logging.getLogger(__name__)
_NAME = re.compile(r"snapshot-(\d{10})\.npz$")
PART = ".npz.part"
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

    def __post_init__(self) -> None:
        numbers = [number for number in (self.seconds, self.commits) if number is not None]
        if not numbers or min(*numbers, self.keep, self.keep) <= 0:
            raise ValueError(
                "Expected a positive number of `seconds` or `commits` between two snapshots, and a positive "
                f"number to `keep`. Received: {self!r}"
            )


class Store:
    """The snapshots in one folder, numbered.

    Each is written under another name and moved when it is whole, so that one that was cut off is never taken
    for a snapshot; on a filesystem where moving is copying its checksums tell.

    Args:
        address: the folder, as fsspec has it; made where it does not exist, at the first use.
        keep: how many of the last are kept.
    """

    def __init__(self, address: str, keep: int = 2) -> None:
        self.address = address
        self._keep = keep
        self._opened: tuple[Any, str] | None = None

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
            for name in _files(fs, folder):
                if name.endswith(PART):  # Of a process that was killed over it.
                    fs.rm(name)
            self._opened = fs, folder
        return self._opened

    def write(self, snapshot: Snapshot) -> str:
        """Add `snapshot`, remove what is older than the last few, and return the name of its file.

        Raises:
            OSError: it could not be written; the earlier ones are as they were.
        """
        fs, folder = self.open()
        names = self._names()
        number = 1 + (int(_NAME.search(names[-1])[1]) if names else 0)  # type: ignore[index]
        name = f"{folder}/snapshot-{number:010d}.npz"
        part = name.removesuffix(".npz") + PART
        try:
            with fs.open(part, "wb") as file:
                snapshot.write(file)
                _to_disk(file)
            fs.mv(part, name)
        except BaseException:
            with contextlib.suppress(OSError):  # The disk is full, or gone: the first error tells more.
                fs.rm(part)
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
        """Remove all snapshots."""
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
                logger.warning("%s is passed over: %s", name, error)
        return None

    def _names(self) -> list[str]:
        fs, folder = self.open()
        fs.invalidate_cache(folder)
        return sorted(name for name in _files(fs, folder) if _NAME.search(name))


def _files(fs: Any, folder: str) -> list[str]:
    try:
        names: list[str] = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []  # An object store, such as S3, has no folder before the first file in it.
    return names


def _to_disk(file: Any) -> None:
    """Have the system write a local file out, so that it also survives the machine."""
    file.flush()
    descriptor = getattr(file, "fileno", None)
    if descriptor is not None:
        with contextlib.suppress(OSError, NotImplementedError):  # A remote filesystem's file has none.
            os.fsync(descriptor())

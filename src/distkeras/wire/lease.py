"""The right of one run to write to a folder: the last run that took it holds it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import socket
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1
_NAME = re.compile(r"lease-(\d{10})\.json")


class Fenced(RuntimeError):
    """Another run has taken this run's address; this run must not write there any more."""


@dataclass(frozen=True)
class Holder:
    """The holder of a folder.

    Attributes:
        run: name of one driver's job; its restarted servers are the same run.
        epoch: increases each time the folder is taken.
        host: machine of the holder.
        pid: process of the holder on that machine.
        since: time at which it took the folder.
    """

    run: str
    epoch: int
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"run {self.run} (process {self.pid} on {self.host}, since {self.since})"


class Lease:
    """One run's right to write to a folder, until another run takes it: a fence, not a lock.

    A lease is a small file with its epoch in its name. Not every filesystem can create a file only if it does
    not exist: if two runs take the same epoch, the one whose content is in the file holds it.

    Args:
        fs: the fsspec filesystem.
        folder: a path on it.
        run: name of the run.
    """

    def __init__(self, fs: Any, folder: str, run: str) -> None:
        self._fs = fs
        self._folder = folder
        self._run = run
        self._own: Holder | None = None

    @property
    def epoch(self) -> int:
        """The current or last epoch of this lease; 0 for none."""
        return 0 if self._own is None else self._own.epoch

    def take(self, written: int, last: int) -> None:
        """Take the folder from its holder, if it has one.

        Args:
            written: largest epoch of a snapshot in the folder.
            last: epoch that this run held in a process that was killed; 0 for none.

        Raises:
            Fenced: another run has taken the folder since.
            OSError: the folder cannot be written to, and this run does not hold it.
        """
        holder = find_holder(self._fs, self._folder)
        newest = max(written, 0 if holder is None else holder.epoch)
        # A process of this run may have taken it, and been killed before it could say so.
        own_already = holder is not None and (holder.run, holder.epoch) == (self._run, newest)
        if last and newest > last and not own_already:
            raise Fenced(_fenced(self._folder, holder))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        own = Holder(self._run, newest + 1, socket.gethostname(), os.getpid(), now)
        name = f"{self._folder}/lease-{own.epoch:010d}.json"
        try:
            with self._fs.open(name, "wb") as file:
                file.write(json.dumps({"version": VERSION, **asdict(own)}).encode())
        except OSError:
            with contextlib.suppress(OSError):
                self._fs.rm(name)
            if holder is None or not (last and own_already):
                raise
            # The disk is full, but the folder belongs to this run: its killed process held it.
            self._own = holder
            return
        self._own = own
        self.check()
        for name in _names(self._fs, self._folder):
            if _epoch_of(name) < own.epoch:
                with contextlib.suppress(FileNotFoundError):  # Its holder has just released it.
                    self._fs.rm(name)

    def check(self) -> None:
        """Raise Fenced unless this run still holds the folder."""
        holder = find_holder(self._fs, self._folder)
        if self._own is None or holder != self._own:
            raise Fenced(_fenced(self._folder, holder))

    def release(self) -> None:
        """Release the folder, unless another run holds it."""
        if self._own is not None and find_holder(self._fs, self._folder) == self._own:
            self._fs.rm(f"{self._folder}/lease-{self._own.epoch:010d}.json")


def find_holder(fs: Any, folder: str) -> Holder | None:
    """Return the holder of `folder`; `None` if it was released or never taken.

    Raises:
        ValueError: a later version wrote the lease.
    """
    fs.invalidate_cache(folder)
    for name in reversed(_names(fs, folder)):
        with contextlib.suppress(FileNotFoundError), fs.open(name, "rb") as file:
            facts = json.loads(file.read() or b"{}")
            if not facts:  # It is being written, or its writer was killed: it does not count yet.
                continue
            if facts.pop("version", None) != VERSION:
                raise ValueError(
                    f"Expected a lease of version {VERSION}. Received: another one, {name}. A run of another "
                    "release of distkeras writes its snapshots there: use that release, or another address."
                )
            return Holder(**facts)
    return None


def _fenced(folder: str, holder: Holder | None) -> str:
    by = f"It is held by {holder}." if holder else "That run has ended since."
    return (
        f"Another run has taken over {folder}, and this one may no longer write there. {by} "
        "Use one address per training."
    )


def _names(fs: Any, folder: str) -> list[str]:
    return sorted(name for name in files(fs, folder) if _NAME.fullmatch(name.rsplit("/", 1)[-1]))


def _epoch_of(name: str) -> int:
    return int(name[-len("0000000000.json") : -len(".json")])


def files(fs: Any, folder: str) -> list[str]:
    """Return the names of the files in `folder`."""
    try:
        names: list[str] = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []  # An object store, such as S3, has no folder before the first file in it.
    return names

"""Which run may write to a folder of snapshots: the last one that took it."""

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
    """Another run has taken this run's address for snapshots: what this one writes could ruin that one's."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder.

    Attributes:
        run: names the job of one driver; its servers that were started again are the same run.
        epoch: larger for whoever took the folder later.
        host: its machine.
        pid: its process there.
        since: when it took the folder.
    """

    run: str
    epoch: int
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"run {self.run} (process {self.pid} on {self.host}, since {self.since})"


class Lease:
    """One run's right to write to a folder. Whoever takes it next ends it: a fence, and no lock.

    A lease is a small file whose name has its epoch. Not every filesystem can create a file only where there
    is none: of two that take the same epoch, the one whose content is found there has it.

    Args:
        fs: the filesystem, as fsspec has it.
        folder: on it.
        run: names the run.
    """

    def __init__(self, fs: Any, folder: str, run: str) -> None:
        self._fs = fs
        self._folder = folder
        self._run = run
        self._own: Holder | None = None

    @property
    def epoch(self) -> int:
        """The epoch that it holds, or held last; 0: none."""
        return 0 if self._own is None else self._own.epoch

    def take(self, written: int, last: int) -> None:
        """Take the folder from whoever has it.

        Args:
            written: the largest epoch of which there is a snapshot.
            last: the epoch that this run held before, in a process that was killed; 0: none.

        Raises:
            Fenced: another run has taken the folder since.
            OSError: it cannot be written to, and this run does not hold it.
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
            # The disk is full, but the folder is this run's: its process that was killed held it.
            self._own = holder
            return
        self._own = own
        self.check()
        for name in _names(self._fs, self._folder):
            if _epoch_of(name) < own.epoch:
                with contextlib.suppress(FileNotFoundError):  # Its holder has just given it back.
                    self._fs.rm(name)

    def check(self) -> None:
        """Raise Fenced unless this run still holds the folder."""
        holder = find_holder(self._fs, self._folder)
        if self._own is None or holder != self._own:
            raise Fenced(_fenced(self._folder, holder))

    def release(self) -> None:
        """Give the folder back, unless another has it."""
        if self._own is not None and find_holder(self._fs, self._folder) == self._own:
            self._fs.rm(f"{self._folder}/lease-{self._own.epoch:010d}.json")


def find_holder(fs: Any, folder: str) -> Holder | None:
    """Return who holds `folder`; `None`: nobody, it was given back or never taken.

    Raises:
        ValueError: what lies there was written by a later version.
    """
    fs.invalidate_cache(folder)
    for name in reversed(_names(fs, folder)):
        with contextlib.suppress(FileNotFoundError), fs.open(name, "rb") as file:
            facts = json.loads(file.read() or b"{}")
            if not facts:  # It is being written, or its writer was killed: nobody has it yet.
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
        f"Another run has taken over the snapshots at {folder}, and this one may write there no more. {by} "
        "Two trainings at a time need two addresses."
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

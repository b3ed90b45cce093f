"""The jobs of a server in SQLite: what is asked for, and how far it has come."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from distkeras.jobs.engine import ENDED, State

VERSION = 1
"""Version of the tables; a server refuses those of a later release."""
_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    entry TEXT NOT NULL,
    arguments TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    state TEXT NOT NULL,
    submitted REAL NOT NULL,
    began REAL,
    ended REAL,
    stop_asked REAL,
    exit_code INTEGER,
    detail TEXT NOT NULL DEFAULT ''
)
"""


class StoreError(RuntimeError):
    """The file of a server's jobs cannot be used."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job.

    Attributes:
        id: 12 hexadecimal digits.
        name: its name, for people.
        entry: the file that is run.
        arguments: its arguments.
        sha256: hash of its archive.
        num_bytes: size of its archive.
        state: "queued", "running", "succeeded", "failed" or "stopped".
        submitted: seconds since 1970, like the times below.
        began: when it began; `None` for not yet.
        ended: when its last process ended; `None` for not yet.
        stop_asked: when it was asked to end; `None` for never.
        exit_code: exit code of its first process, or the negative number of the signal that killed it.
        detail: what else there is to say, such as why it failed.
    """

    id: str
    name: str
    entry: str
    arguments: tuple[str, ...]
    sha256: str
    num_bytes: int
    state: State = "queued"
    submitted: float
    began: float | None = None
    ended: float | None = None
    stop_asked: float | None = None
    exit_code: int | None = None
    detail: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ENDED


_FIELDS = Job.__struct_fields__


class Store:
    """The jobs of a server. Its methods may be called by any thread; one process writes.

    A change is on the disk when a method returns: the killed server, or the machine without power, finds it.

    Args:
        path: the file; it is made if there is none.

    Raises:
        StoreError: the file is not a store, or one of a later release.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA synchronous = FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._connection.execute("BEGIN")
                self._connection.execute(_TABLES)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
                self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise StoreError(f"Expected the jobs of a server in {path}. Received: {error}") from error
        if version > VERSION:
            self._connection.close()
            raise StoreError(
                f"Expected jobs of this release or an earlier one (version {VERSION}) in {path}: take the "
                f"later release of Distributed Keras, or another folder. Received: version {version}"
            )

    def add(self, job: Job) -> None:
        """Add a job."""
        row = self._row(job)
        names, places = ", ".join(row), ", ".join("?" * len(row))
        self._run(f"INSERT INTO jobs ({names}) VALUES ({places})", *row.values())

    def job(self, job: str) -> Job | None:
        """Return a job; `None` if there is none of this id."""
        found = self._run(f"SELECT {', '.join(_FIELDS)} FROM jobs WHERE id = ?", job)
        return _job(found[0]) if found else None

    def jobs(self, states: Collection[State] = ()) -> list[Job]:
        """Return the jobs in the order in which they came; those of some states, or all."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        found = self._run(f"SELECT {', '.join(_FIELDS)} FROM jobs {where} ORDER BY number", *states)
        return [_job(row) for row in found]

    def change(self, job: str, states: Collection[State], **values: Any) -> bool:
        """Change a job if it is in one of some states; return whether it was."""
        sets, wanted = ", ".join(f"{name} = ?" for name in values), ", ".join("?" * len(states))
        query = f"UPDATE jobs SET {sets} WHERE id = ? AND state IN ({wanted}) RETURNING id"
        return bool(self._run(query, *values.values(), job, *states))

    def remove(self, job: str) -> None:
        """Forget a job."""
        self._run("DELETE FROM jobs WHERE id = ?", job)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _run(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @staticmethod
    def _row(job: Job) -> dict[str, Any]:
        return {**msgspec.structs.asdict(job), "arguments": msgspec.json.encode(job.arguments).decode()}


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_FIELDS, row, strict=True))
    arguments = msgspec.json.decode(values.pop("arguments"), type=tuple[str, ...])
    return Job(arguments=arguments, **values)

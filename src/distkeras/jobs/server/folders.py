"""The folder of one job on the server: its files, what its runner tells there, whether that still lives."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORDER = "order.json"
"""What the runner shall do: command, environment, limits. The runner removes it: it may hold secrets."""
BEGUN = "begun.json"
"""Written by the runner before the job begins: a job that has it may not be started again."""
ENDED = "ended.json"
"""Written by the runner after the last process of the job has ended: exit code and times."""
STOP = "stop.json"
"""Written by the server: the runner shall end the job."""


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job.

    Attributes:
        path: the folder; its name is the job's id.
    """

    path: Path

    @property
    def id(self) -> str:
        """The job's id."""
        return self.path.name

    @property
    def work(self) -> Path:
        """The project, in which the job runs."""
        return self.path / "work"

    @property
    def archive(self) -> Path:
        """The project as it was sent."""
        return self.path / "project.zip"

    @property
    def properties(self) -> Path:
        """The Spark settings of the job."""
        return self.path / "spark.properties"

    @property
    def driver(self) -> Path:
        """Process id of the driver, written by the launcher."""
        return self.path / "driver.pid"

    @property
    def log(self) -> Path:
        """What the job has written to its standard output and error."""
        return self.path / "log"

    @property
    def errors(self) -> Path:
        """What the runner itself has written: nothing, unless it has failed."""
        return self.path / "runner.err"

    def write(self, name: str, value: Any) -> None:
        """Write a file as a whole: a reader finds all of it or nothing, also after a power failure."""
        whole, partial = self.path / name, self.path / f".{name}"
        with open(partial, "w", opener=_private) as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, whole)
        at = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(at)
        finally:
            os.close(at)

    def read(self, name: str) -> Any:
        """Return what a file says; `None` if there is no such file."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self.path / name).exists()

    def hold(self) -> int:
        """Lock the folder for a runner, and return the file descriptor that holds the lock.

        The lock stays as long as any process has the descriptor. So it tells whether the runner lives. A
        process id would not: another process may have it by then.

        Raises:
            BlockingIOError: a runner holds the folder.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    @property
    def is_held(self) -> bool:
        """Whether a runner has this job."""
        try:
            os.close(self.hold())
        except BlockingIOError:
            return True
        return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

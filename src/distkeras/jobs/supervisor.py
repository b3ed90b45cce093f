"""Watches over a job's process on this machine: `python -m distkeras.jobs.supervisor FOLDER`.

The output of the job goes to `log`. In `state.json` is how it goes. A file `stop` asks for its end. While the
supervisor lives it holds a lock on `lock`.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from distkeras.jobs.engine import State
from distkeras.jobs.records import write_whole
from distkeras.jobs.running import JobProcess, Request

COMMAND, LOCK, LOG, PID, STATE, STOP = "command.json", "lock", "log", "driver.pid", "state.json", "stop"
NOW = "now"
"""What `stop` holds if the job is to end at once."""
_APPLICATION = re.compile(rb"\b(app-\d{14}-\d{4}|application_\d{13}_\d{4,}|local-\d{13})\b")
_MOST_LOG = 1 << 20
"""Bytes of a log in which the application's id is searched for."""


class Command(msgspec.Struct, frozen=True):
    """What a supervisor runs.

    Attributes:
        name: name of the job.
        submitted: seconds since 1970.
        command: command line, which no shell reads.
        environment: further variables.
        folder: working directory.
        kill: command line that ends the application on its cluster, without its id, which is added.
        grace: seconds between the requests to end, and to end at once.
    """

    name: str
    submitted: float
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    kill: tuple[str, ...] = ()
    grace: float = 60.0


class Progress(msgspec.Struct, frozen=True):
    """How a job goes."""

    state: State
    began: float
    ended: float | None = None
    exit_code: int | None = None
    application: str | None = None


def application_of(log: Path) -> str | None:
    """Return the id of the Spark application that a log names first."""
    with open(log, "rb") as file:
        found = _APPLICATION.search(file.read(_MOST_LOG))
    return found[1].decode() if found else None


def supervise(folder: Path) -> None:
    """Run the job in `folder` to its end."""
    told = msgspec.json.decode((folder / COMMAND).read_bytes(), type=Command)
    # Ignored signals would stay ignored in the job, which must hear SIGINT; this process outlives them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    began = time.time()
    with open(folder / LOG, "ab") as log:
        try:
            process = JobProcess(
                told.command,
                job=folder.name,
                folder=Path(told.folder),
                environment=told.environment,
                driver=folder / PID,
                output=log,
            )
        except (OSError, ValueError) as error:
            log.write(f"The job cannot be started: {error}\n".encode())
            log.flush()
            _write(folder, Progress("failed", began, time.time(), 127))
            return
    _write(folder, Progress("running", began))
    outcome = process.wait(lambda: _asked(folder), told.grace, lambda: _kill_application(folder, told))
    code = outcome.exit_code
    state: State = "stopped" if outcome.stopped else "succeeded" if code == 0 else "failed"
    _write(folder, Progress(state, began, time.time(), code, application_of(folder / LOG)))


def _asked(folder: Path) -> Request:
    try:
        return "now" if (folder / STOP).read_text() == NOW else "stop"
    except FileNotFoundError:
        return ""


def _kill_application(folder: Path, told: Command) -> None:
    """End the application on its cluster, where the driver is not a process of this machine."""
    if told.kill and (application := application_of(folder / LOG)):
        with open(folder / LOG, "ab") as log:
            subprocess.run([*told.kill, application], stdout=log, stderr=log, check=False)


def _write(folder: Path, progress: Progress) -> None:
    write_whole(folder / STATE, msgspec.json.encode(progress))


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))

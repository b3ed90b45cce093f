"""The processes of a job: found by a mark in their environment, whatever group or session they are in."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "DISTKERAS_JOB"
"""Variable with the job's id in the environment of each of its processes."""
_PROC = Path("/proc")


def marked(job: str) -> list[int]:
    """Return the processes of a job. A system without /proc has no answer: an empty list."""
    wanted, found = f"{MARK}={job}".encode(), []
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Processes of others cannot be read, and any may end meanwhile.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def unmarked() -> dict[str, str]:
    """Return the environment for a process that shall outlive this job, such as that of another job."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def signal_group(group: int, which: signal.Signals) -> None:
    """Send a signal to a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, which)


def kill_all(job: str, group: int | None = None, seconds: float = 10.0) -> list[int]:
    """Kill the processes of a job, those that it has moved to other groups too.

    PySpark's workers, for one, have a group of their own.

    Args:
        job: id of the job.
        group: its process group, if the caller knows that the number is still that of the job.
        seconds: time after which a process that does not go away is given up, such as one that hangs in a
            network filesystem.

    Returns:
        What is left.
    """
    deadline = time.monotonic() + seconds
    if group is not None:
        signal_group(group, signal.SIGKILL)
    while left := marked(job):
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.01)
    return []

"""The process of a job on this machine: started in a group of its own, watched, and ended when asked.

First the driver gets SIGINT, on which a training ends gracefully and keeps its model; then the group gets
SIGTERM; then SIGKILL.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from distkeras.jobs.processes import MARK, kill_all, signal_group

Request = Literal["", "stop", "now"]
"""What is asked of a job: nothing, to end gracefully, or to end at once, without SIGINT."""
EVERY = 0.05
"""Seconds between two looks at the job, and at what is asked of it."""
TERM_SECONDS, NOW_SECONDS = 10.0, 5.0
"""Most seconds from SIGTERM to SIGKILL; the second, if the job is to end at once."""


@dataclass(frozen=True)
class Outcome:
    """How a process has ended.

    Attributes:
        exit_code: its exit code; the negative number of the signal that killed it.
        stopped: whether it was asked to end.
        left: processes of the job that could not be killed.
    """

    exit_code: int
    stopped: bool
    left: list[int]


class JobProcess:
    """The first process of a job.

    Args:
        command: the command, as a list; no shell reads it.
        job: the job's id. All its processes carry it in their environment.
        folder: working directory.
        environment: variables beside those of this process.
        driver: file into which the launcher writes the driver's process id.
        output: where its output and errors go: a file, or `subprocess.PIPE`.

    Raises:
        OSError: it cannot be started.
        ValueError: an argument or a variable holds a null character.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        job: str,
        folder: Path,
        environment: Mapping[str, str],
        driver: Path,
        output: int | IO[bytes],
    ) -> None:
        self._job, self._driver = job, driver
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment, "DISTKERAS_PID_FILE": str(driver), MARK: job},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            bufsize=0,
            process_group=0,
        )

    @property
    def output(self) -> IO[bytes] | None:
        """The pipe with its output, if that was asked for."""
        return self._process.stdout

    def wait(
        self, asked: Callable[[], Request], grace: float, at_stop: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Wait until the process has ended, and kill what the job has left behind.

        Args:
            asked: returns what is asked of the job. It is called every `EVERY` seconds.
            grace: seconds from SIGINT to SIGTERM, and most seconds from SIGTERM to SIGKILL.
            at_stop: is called before the first signal.
        """
        due, steps, request = math.inf, [self._interrupt, self._terminate, self._kill], ""
        while not has_ended(self._process):
            now, before, request = time.monotonic(), request, asked() or request
            if request and not before:
                at_stop()
                due = now
            if request == "now" != before:
                grace, due, steps = min(grace, NOW_SECONDS), now, [self._terminate, self._kill]
            if steps and now >= due:
                due = now + steps.pop(0)(grace)
            time.sleep(EVERY)
        # Before the first process is waited for: until then its number is that of the group.
        left = kill_all(self._job, self._process.pid)
        return Outcome(self._process.wait(), bool(request), left)

    def _interrupt(self, grace: float) -> float:
        """Interrupt the driver; return the seconds until the next step."""
        with contextlib.suppress(OSError, ValueError):  # It has not come so far, or has just ended.
            driver = int(self._driver.read_text())
            if os.getpgid(driver) == self._process.pid:
                os.kill(driver, signal.SIGINT)
                return grace
        return 0.0

    def _terminate(self, grace: float) -> float:
        signal_group(self._process.pid, signal.SIGTERM)
        return min(grace, TERM_SECONDS)

    def _kill(self, grace: float) -> float:
        signal_group(self._process.pid, signal.SIGKILL)
        return grace


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended, and leave it as it is where the system can.

    While nobody has waited for it, no other process group can get its number.
    """
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13.
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

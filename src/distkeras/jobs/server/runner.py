"""Runs one job: starts it, keeps its log within its limit, ends it, and writes how it ended.

It is a process of its own, so that a job outlives a server that is killed, and its exit code is known then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distkeras.jobs.processes import MARK, kill_all, signal_group
from distkeras.jobs.server.folders import BEGUN, ENDED, ORDER, STOP, JobFolder
from distkeras.jobs.server.joblog import LogWriter

EVERY = 0.05
"""Seconds between two looks at the job, and at what the server asks."""
TERM_SECONDS = 10.0
"""Most seconds from SIGTERM to SIGKILL."""
LAST_WORDS = 2.0
"""Seconds for the rest of the output after the last process has ended."""


@dataclass(frozen=True)
class Order:
    """What a runner shall do.

    Attributes:
        command: the command, as a list; no shell reads it.
        environment: variables beside those of the server.
        log_bytes: limit of the log.
        grace: seconds from one request to end to the next, stronger one.
    """

    command: list[str]
    environment: dict[str, str]
    log_bytes: int
    grace: float


class Runner:
    """Runs the job in a folder.

    Args:
        folder: the folder; its order is removed.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._order = Order(**folder.read(ORDER))
        self._is_told = False  # The machine shuts down, or an operator has sent SIGTERM.
        signal.signal(signal.SIGTERM, self._told)
        # A shell ignores these in what it starts in the background, and the job would inherit that.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _told(self, *_: object) -> None:
        self._is_told = True

    def run(self) -> None:
        """Run the job to its end."""
        folder = self._folder
        began = time.time()
        folder.write(BEGUN, {"runner": os.getpid(), "began": began})
        (folder.path / ORDER).unlink()
        with LogWriter(folder.log, self._order.log_bytes) as log:
            try:
                process = self._start()
            except (OSError, ValueError) as error:
                end: dict[str, Any] = {"exit_code": None, "detail": f"The job cannot be started: {error}"}
                stopped = False
            else:
                stopped, end = self._follow(process, log)
        detail = " ".join(filter(None, (end["detail"], log.trouble)))
        folder.write(
            ENDED, {**end, "detail": detail, "stopped": stopped, "began": began, "ended": time.time()}
        )

    def _start(self) -> subprocess.Popen[bytes]:
        work = str(self._folder.work)
        return subprocess.Popen(
            self._order.command,
            cwd=work,
            env={**os.environ, **self._order.environment, MARK: self._folder.id},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            process_group=0,
        )

    def _follow(self, process: subprocess.Popen[bytes], log: LogWriter) -> tuple[bool, dict[str, Any]]:
        """Wait for the end of the job; return whether it was ended, and how it went."""
        copying = threading.Thread(target=log.copy, args=(process.stdout,), daemon=True)
        copying.start()
        stopped = self._wait(process)
        # Before the first process is waited for: its number is still that of the group.
        left = kill_all(self._folder.id, process.pid)
        code = process.wait()
        copying.join(LAST_WORDS)
        detail = f"These processes could not be killed: {left}." if left else ""
        return stopped, {"exit_code": code, "detail": detail}

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the first process of the job has ended. Return whether it was told to."""
        stronger = [self._interrupt, self._terminate, self._kill]
        due = float("inf")
        while not has_ended(process):
            now = time.monotonic()
            if due == float("inf") and (self._is_told or self._folder.has(STOP)):
                due = now
            if now >= due and stronger:
                due += stronger.pop(0)(process.pid)
            time.sleep(EVERY)
        return due < float("inf")

    def _interrupt(self, group: int) -> float:
        """Interrupt the driver, on which a training ends gracefully and keeps its model; return its time."""
        try:
            driver = int(self._folder.driver.read_text())
            is_own = os.getpgid(driver) == group
        except (OSError, ValueError):  # It has not come so far, or is no driver of ours.
            return 0.0
        if is_own:
            os.kill(driver, signal.SIGINT)
        return self._order.grace if is_own else 0.0

    def _terminate(self, group: int) -> float:
        signal_group(group, signal.SIGTERM)
        return min(self._order.grace, TERM_SECONDS)

    def _kill(self, group: int) -> float:
        signal_group(group, signal.SIGKILL)
        return 0.0


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended, and leave it as it is where the system can.

    While nobody has waited for it, no other process group can get its number.
    """
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13.
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    Runner(JobFolder(Path(sys.argv[1]))).run()

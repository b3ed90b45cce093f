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

from distkeras.jobs.running import JobProcess, Outcome, Request
from distkeras.jobs.server.folders import BEGUN, ENDED, ORDER, STOP, JobFolder
from distkeras.jobs.server.joblog import LogWriter

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
                end: dict[str, Any] = {"exit_code": None, "stopped": False}
                detail = f"The job cannot be started: {error}"
            else:
                outcome = self._follow(process, log)
                end = {"exit_code": outcome.exit_code, "stopped": outcome.stopped}
                detail = f"These processes could not be killed: {outcome.left}." if outcome.left else ""
        detail = " ".join(filter(None, (detail, log.trouble)))
        folder.write(ENDED, {**end, "detail": detail, "began": began, "ended": time.time()})

    def _start(self) -> JobProcess:
        return JobProcess(
            self._order.command,
            job=self._folder.id,
            folder=self._folder.work,
            environment=self._order.environment,
            driver=self._folder.driver,
            output=subprocess.PIPE,
        )

    def _follow(self, process: JobProcess, log: LogWriter) -> Outcome:
        """Copy the output of the job until its end; return how it went."""
        copying = threading.Thread(target=log.copy, args=(process.output,), daemon=True)
        copying.start()
        outcome = process.wait(self._asked, self._order.grace)
        copying.join(LAST_WORDS)
        return outcome

    def _asked(self) -> Request:
        return "stop" if self._is_told or self._folder.has(STOP) else ""


if __name__ == "__main__":
    Runner(JobFolder(Path(sys.argv[1]))).run()

"""A parameter server's process: how it is started, the pipes to it, and what it says of its end."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import threading
from collections import deque
from typing import IO

TAIL_LINES = 40
MAX_LINE = 8 * 2**10
ERRORS_SECONDS = 1.0

logger = logging.getLogger(__name__)


class ServerFailed(RuntimeError):
    """The parameter server's process did not start, or ended before the job."""


class Process:
    """A process that serves a job, once it is told one.

    Job and control go to it by one pipe, its port comes back by another. Its standard output is that of this
    process: a rule may print. What it writes to standard error goes to the log, its end into errors.

    Attributes:
        control: where the driver writes; its end ends the process.
        pid: of the process.
    """

    def __init__(self) -> None:
        control, to_process = os.pipe()
        from_process, report = os.pipe()
        try:
            self._popen = subprocess.Popen(
                # -P: the modules of this process's path, and not those that lie where it was started.
                [sys.executable, "-P", "-m", "distkeras.wire", *map(str, (control, report, os.getpid()))],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(control, report),
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the driver, which ends this process in good order.
            )
        except BaseException:
            os.close(to_process)
            os.close(from_process)
            raise
        finally:
            os.close(control)
            os.close(report)
        self.control: IO[bytes] = os.fdopen(to_process, "wb")
        self._report: IO[bytes] = os.fdopen(from_process, "rb")
        self.pid = self._popen.pid
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._errors = threading.Thread(target=self._log_errors, name="distkeras-server-errors", daemon=True)
        self._errors.start()

    @property
    def returncode(self) -> int | None:
        """As that of `subprocess.Popen`."""
        return self._popen.returncode

    def poll(self) -> int | None:
        """Return the exit code; `None`: it runs."""
        return self._popen.poll()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._popen.kill()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end, for at most `seconds`; return its exit code, `None` if it runs on."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def report(self, seconds: float) -> bytes:
        """Return the line that it reports once it is up; empty: it has ended.

        Raises:
            TimeoutError: there was none after `seconds`.
        """
        readable, _, _ = select.select([self._report], [], [], seconds)
        if not readable:
            raise TimeoutError(f"The parameter server's process was not up after {seconds:.0f} s.")
        return self._report.readline()

    def hang_up(self) -> None:
        """Close the pipes: the process writes what it has to, and ends."""
        for pipe in (self.control, self._report):
            with contextlib.suppress(BrokenPipeError):  # What a dead process did not read is lost.
                pipe.close()

    def end(self) -> None:
        """Kill it and forget it."""
        self.kill()
        self.hang_up()
        self._popen.wait()

    def died(self) -> str:
        """Say how the process, which has ended, came to its end, in its own last words."""
        code = self._popen.wait()
        self._errors.join(ERRORS_SECONDS)  # A process of the rule's own may hold its standard error open.
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        tail = "\n".join(self._tail)
        last = f" The end of what it wrote to standard error:\n{tail}" if tail else ""
        return f"The parameter server's process {how}.{last}"

    def _log_errors(self) -> None:
        stream = self._popen.stderr
        if stream is None:
            return
        with stream:
            while line := stream.readline(MAX_LINE):
                text = line.decode(errors="backslashreplace").rstrip()
                self._tail.append(text)
                logger.warning("parameter server %d: %s", self.pid, text)


def _environment() -> dict[str, str]:
    return os.environ | {
        # A rule may come from a module that only this process finds: beside its script, say. An empty entry
        # is the working directory.
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        # A thread a connection computes already: they would wait for each other's threads.
        "OPENBLAS_NUM_THREADS": "1",
        # What it says last must not be lost with it.
        "PYTHONUNBUFFERED": "1",
    }

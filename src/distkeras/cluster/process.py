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

from distkeras.cluster.story import Story
from distkeras.wire.log import LIBRARY, parse_line

TAIL_LINES = 40
MAX_LINE = 8 * 2**10
ERRORS_SECONDS = 1.0


class ServerFailed(RuntimeError):
    """The parameter server's process did not start, or ended before the job."""


class Process:
    """A process that serves a job, once it is told one.

    Job and control go to it by one pipe, its port comes back by another. Its standard output is that of this
    process: a rule may print. What it writes to standard error goes to the log, its end into errors.

    Attributes:
        control: where the driver writes; its end ends the process.
        pid: of the process.
        story: of the job that it serves; what it says is told there.
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
        self.story = Story()
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

    def how_it_ended(self) -> str:
        """Say how the process, which has ended, came to its end: what it did."""
        code = self._popen.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def died(self) -> str:
        """Say how the process, which has ended, came to its end, in its own last words."""
        how = f"The parameter server's process {self.how_it_ended()}."
        self._errors.join(ERRORS_SECONDS)  # A process of the rule's own may hold its standard error open.
        tail = "\n".join(self._tail)
        return f"{how} The end of what it wrote to standard error:\n{tail}" if tail else how

    def _log_errors(self) -> None:
        stream = self._popen.stderr
        if stream is None:
            return
        with stream:
            while line := stream.readline(MAX_LINE):
                self._log(line.decode(errors="backslashreplace").rstrip())

    def _log(self, line: str) -> None:
        level, name, text = parse_line(line) or (logging.WARNING, "", line)
        text = self.story.hide(text)
        if level >= logging.WARNING:
            self._tail.append(text)
        text = f"parameter server {self.pid}: {text}"
        if name.startswith(LIBRARY) and level >= logging.INFO:
            self.story.tell(text, level, name)
        else:  # What a rule writes is no transition; exchanges are too many.
            logging.getLogger(name if name.startswith(LIBRARY) else __name__).log(level, "%s", text)


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

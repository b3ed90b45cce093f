"""A parameter server's process: its start, the pipes to it, and the report of its end."""

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
    """A process that serves a job once it has received one.

    One pipe carries job and control to it, another its port back. It shares this process's standard output,
    since an algorithm may print. Its standard error goes to the log, and the last lines of it into errors.

    Attributes:
        control: pipe for the driver's commands; closing it ends the process.
        pid: id of the process.
        story: the story of the job, which also collects the process's log.
    """

    def __init__(self) -> None:
        control, to_process = os.pipe()
        from_process, report = os.pipe()
        try:
            self._popen = subprocess.Popen(
                # -P: import from this process's path, not from the working directory.
                [sys.executable, "-P", "-m", "distkeras.wire", *map(str, (control, report, os.getpid()))],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(control, report),
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches only the driver, which ends this process cleanly.
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
        """Exit code as in `subprocess.Popen`."""
        return self._popen.returncode

    def poll(self) -> int | None:
        """Return the exit code; `None` while it runs."""
        return self._popen.poll()

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._popen.kill()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait at most `seconds` for its end; return its exit code, or `None` if it still runs."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def report(self, seconds: float) -> bytes:
        """Return the line that the process reports when it is up; empty if it has ended.

        Raises:
            TimeoutError: no report arrived within `seconds`.
        """
        readable, _, _ = select.select([self._report], [], [], seconds)
        if not readable:
            raise TimeoutError(f"The parameter server's process was not up after {seconds:.0f} s.")
        return self._report.readline()

    def hang_up(self) -> None:
        """Close the pipes: the process writes its last snapshot, and ends."""
        for pipe in (self.control, self._report):
            with contextlib.suppress(BrokenPipeError):  # A dead process loses unread commands.
                pipe.close()

    def end(self) -> None:
        """Kill the process and release its resources."""
        self.kill()
        self.hang_up()
        self._popen.wait()

    def how_it_ended(self) -> str:
        """Return how the process, which has ended, came to its end, as a predicate."""
        code = self._popen.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def died(self) -> str:
        """Return how the process, which has ended, came to its end, with its last lines of output."""
        how = f"The parameter server's process {self.how_it_ended()}."
        self._errors.join(ERRORS_SECONDS)  # A child process of the algorithm may keep standard error open.
        tail = "\n".join(self._tail)
        return f"{how} The last lines of its standard error:\n{tail}" if tail else how

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
        else:  # An algorithm's output is not a transition; exchanges are too many.
            logging.getLogger(name if name.startswith(LIBRARY) else __name__).log(level, "%s", text)


def _environment() -> dict[str, str]:
    return os.environ | {
        # An algorithm may come from a module that only this process finds, such as one beside its script. An
        # empty entry is the working directory.
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        # There is already one computing thread per connection: more threads would wait for each other.
        "OPENBLAS_NUM_THREADS": "1",
        # Its last output must not be lost with it.
        "PYTHONUNBUFFERED": "1",
    }

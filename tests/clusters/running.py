"""Programs of the tests of clusters: each with a log, on a host, ended for sure, never waited for in vain."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TAIL = 6000
"""Characters of a log in the message of a failed test."""

FAST = {
    # Masters, workers and drivers of tests hold little, and eight JVMs may run at once.
    "SPARK_DAEMON_MEMORY": "256m",
    "SPARK_NO_DAEMONIZE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Host:
    """Where a program runs.

    Attributes:
        name: host name, as the machine itself knows it.
        address: address that others reach it by.
        prefix: what comes before a command line for it to run there.
    """

    name: str = "127.0.0.1"
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


HERE = Host()


class Program:
    """A process in a group of its own, which ends with this object's `with` block, and with this process.

    Args:
        command: command line.
        log: file that gets what it prints.
        host: where it runs.
        environment: variables besides those of this process. None as a value removes a variable.
        folder: working directory; default: that of the log.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        host: Host = HERE,
        environment: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.log, self.host = log, host
        variables: dict[str, str | None] = {**os.environ, **FAST, **(environment or {})}
        # The kernel ends it with this process, also when that is killed.
        setpriv = shutil.which("setpriv")
        dies_with_us = (setpriv, "--pdeathsig", "KILL") if setpriv else ()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*host.prefix, *dies_with_us, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder or log.parent,
                env={name: value for name, value in variables.items() if value is not None},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process's id."""
        return self.process.pid

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait until it has printed `pattern`, a regular expression; return the match.

        Raises:
            AssertionError: it has ended before, or has not printed it in time.
        """
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.output)) is None:
            ended = self.process.poll()
            if ended is not None and re.search(pattern, self.output) is None:
                raise AssertionError(f"It ended with {ended} before it printed {pattern!r}.\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"It did not print {pattern!r} within {seconds:.0f} s.\n{self.tail()}")
            time.sleep(0.05)
        return found

    def wait(self, seconds: float) -> int:
        """Wait for its end; return its exit code.

        Raises:
            AssertionError: it still runs after `seconds`. It is ended then.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"It did not end within {seconds:.0f} s.\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of its log, with the path, for a message."""
        return f"{self.log}:\n{self.output[-TAIL:]}"

    def end(self) -> None:
        """Kill it, with all processes of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

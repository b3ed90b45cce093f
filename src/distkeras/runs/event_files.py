"""The events of a run as lines of JSON: `[name, fields]`, in numbered files."""

from __future__ import annotations

import errno
import logging
import threading
import time
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from distkeras.events import Event
from distkeras.runs.folder import Folder
from distkeras.runs.lines import Lines, Tail, file_of, numbers_in
from distkeras.wire.redaction import Redaction

logger = logging.getLogger(__name__)

FOLDER = "events"
MAX_BYTES = 64 * 2**20
"""Size after which a new file begins."""
SEGMENT_SECONDS = 5.0
"""Seconds between two files on a store that cannot append."""


@dataclass(frozen=True, slots=True)
class RunResumed:
    """A driver goes on with the run.

    Attributes:
        epochs: whole epochs that the center has behind it.
        source: "snapshot": a `ServerRestored` follows and says which windows count. "checkpoint": the windows
            of the first `epochs` epochs count, and workers begin anew after them; of none, if there was no
            checkpoint.
        timestamp: seconds since the Unix epoch.
    """

    epochs: int
    source: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class CenterEvaluated:
    """A version of the center was evaluated: by validation, or by the simulator.

    Attributes:
        samples: rows of that version.
        num_updates: its updates.
        metrics: every metric, `loss` included.
        timestamp: seconds since the Unix epoch; in a simulation, virtual seconds from 0.
        member: in an ensemble, the member.
    """

    samples: int
    num_updates: int
    metrics: dict[str, float]
    timestamp: float
    member: int = 0


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """The store of the run has refused a record or a checkpoint; the training goes on.

    Attributes:
        error: what was refused, and why.
        timestamp: seconds since the Unix epoch.
    """

    error: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class RequestTaken:
    """The driver has obeyed a request: see `distkeras.runs.control_files`.

    Attributes:
        request: "stop" or "checkpoint".
        detail: what was done, in words; for a checkpoint, where it is.
        timestamp: seconds since the Unix epoch.
    """

    request: str
    detail: str
    timestamp: float


Written = Event | RunResumed | CenterEvaluated | RequestTaken | WriteFailed
EVENTS = Lines(typing.get_args(Written))


class EventWriter:
    """Writes events, or what is made of them, to the files of a folder.

    It never writes to a file of an earlier writer, which may end in half a line.

    A line is in the file when `write` returns, where the store can append. Elsewhere a thread writes a file
    of the lines so far every `seconds`. If that fails, they are tried again with the next ones, and a warning
    is logged.

    Args:
        folder: the folder of the run.
        check: raises Fenced if another driver has taken the run; called before a new file, and at times.
        hide: removes secrets from texts.
        max_bytes: size after which a new file begins.
        seconds: seconds between two files, or two checks.
        name: name of the folder of the files.
        lines: makes the lines.
    """

    def __init__(
        self,
        folder: Folder,
        check: Callable[[], None],
        hide: Redaction,
        max_bytes: int = MAX_BYTES,
        seconds: float = SEGMENT_SECONDS,
        name: str = FOLDER,
        lines: Lines = EVENTS,
    ) -> None:
        self._folder, self._check, self._hide = folder, check, hide
        self._max_bytes, self._seconds = max_bytes, seconds
        self._name, self._encode = name, lines.encode
        self._number = max(numbers_in(folder, name), default=0)
        self._file: IO[bytes] | None = None
        self._bytes = 0
        self._checked = time.monotonic()
        self._lines: list[bytes] = []
        self._is_failing = False
        self._error: BaseException | None = None
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, event: object) -> None:
        """Write an event.

        Raises:
            Fenced: another driver has taken the run.
        """
        line = self._encode(event, self._hide)
        with self._lock:
            self._raise_error()
            self._lines.append(line)
            if self._folder.appends:
                try:
                    self._append_lines()
                    self._is_failing = False
                except OSError as error:
                    if not self._is_failing:
                        self._tell(error)
                    self._is_failing = True
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_segments, daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write all lines so far.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the store cannot be written to.
        """
        with self._lock:
            self._raise_error()
            if self._folder.appends:
                self._append_lines()
            elif self._lines:
                self._check()
                self._folder.write(self._next_name(), b"".join(self._lines))
                self._number += 1
                self._lines.clear()

    def close(self) -> None:
        """Write all lines and end the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()

    def _append_lines(self) -> None:
        """Append the lines that are not written yet, each whole."""
        while self._lines:
            try:
                self._append(self._lines[0])
            except OSError:
                if self._file is not None:  # Its last line may be half written: no other may follow it.
                    self._file.close()
                    self._file = None
                raise
            except BaseException:  # Another driver has taken the run.
                self._lines.clear()
                raise
            del self._lines[0]

    def _append(self, line: bytes) -> None:
        now = time.monotonic()
        if self._file is None or self._bytes > self._max_bytes:
            self._check()
            if self._file is not None:
                self._file.close()
            name = self._next_name()
            self._number += 1
            self._folder.fs.makedirs(self._folder.of(self._name), exist_ok=True)
            # Unbuffered: bytes handed to the system outlive a killed process.
            self._file = open(self._folder.of(name), "xb", buffering=0)  # noqa: SIM115 (closed by `close`)
            self._bytes, self._checked = 0, now
        elif now - self._checked > self._seconds:
            self._check()
            self._checked = now
        if (written := self._file.write(line)) < len(line):  # The disk has become full.
            raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes of an event were written")
        self._bytes += len(line)

    def _next_name(self) -> str:
        return file_of(self._name, self._number + 1)

    def _write_segments(self) -> None:
        while not self._closing.wait(self._seconds):
            try:
                self.flush()
            except OSError as error:
                self._tell(error)
            except BaseException as error:  # The next `write` raises it, in the thread that called.
                self._error = error
                return

    def _tell(self, error: OSError) -> None:
        logger.warning("The %s cannot be written; trying again: %s", self._name, self._hide(str(error)))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def read_events(folder: Folder) -> Iterator[Written]:
    """Yield the events of a run, in the order in which they were written.

    A half-written last line is left out: its driver was killed while it wrote it.

    Raises:
        RunError: a file is damaged.
    """
    for _, line in Tail(folder, FOLDER).new():
        event: Written | None = EVENTS.decode(line)
        if event is not None:
            yield event

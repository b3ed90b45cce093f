"""The progress bar of a training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from distkeras.events import EpochEnded, Event, Window
from distkeras.monitor.progress_line import lines_of, logs_text, seconds_text
from distkeras.monitor.progress_state import Aim, Progress
from distkeras.monitor.screens import Render, screen_of_process

LOOK_SECONDS = 1.0
"""Seconds between two questions to Spark for tasks that wait, each of which takes some milliseconds."""


def checked_verbose(verbose: int | str) -> int | str:
    """Return how much a trainer shows.

    Raises:
        ValueError: it is neither 0, 1, 2 nor "auto".
    """
    if verbose != "auto" and verbose not in (0, 1, 2):
        raise ValueError(f'`verbose` must be 0, 1, 2 or "auto". Received: verbose={verbose!r}')
    return verbose if verbose == "auto" else int(verbose)


class ProgressBar:
    """Shows in one line how far a training is, and before that, what it waits for.

    Of an ensemble each member has a line. Where there is neither a terminal nor a notebook, it prints a line
    an epoch, unless `verbose` is "auto".

    Args:
        title: of the training.
        verbose: 0 for silent; 1 for a bar; 2 for a line an epoch; "auto" for a bar in a terminal or a
            notebook.
        only_waits: end with the first window, without a trace: something else shows the epochs.
        clock: returns seconds from any origin.
    """

    def __init__(
        self,
        title: str,
        verbose: int | str = "auto",
        *,
        only_waits: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._only_waits = only_waits
        self._clock = clock
        self._lock = threading.Lock()
        self._progress = Progress(clock)
        self._screen = screen_of_process() if verbose in (1, "auto") else None
        self._prints = not only_waits and (verbose == 2 or (verbose == 1 and self._screen is None))
        self._close: Callable[[Render], None] | None = None
        self._closes_epochs = False
        self._looked = clock() - LOOK_SECONDS
        self._began: dict[int, float] = {}  # When the present epoch of each member began.

    def __enter__(self) -> ProgressBar:
        if self._screen is not None:
            self._close = self._screen.open(lambda width: self._lines(width, ended=False))
        return self

    def __exit__(self, *_: object) -> None:
        close, self._close = self._close, None
        if close is not None:
            close(lambda width: [] if self._only_waits else self._lines(width, ended=True))

    def waits(self, what: str) -> None:
        """Show what the training waits for, as long as nothing trains."""
        with self._lock:
            self._progress.waits(what)

    def begin(self, aim: Aim, *, closes_epochs: bool = False) -> None:
        """Show what the training is to come to.

        Args:
            aim: its rows and epochs.
            closes_epochs: whether `epoch` will be called for each epoch.
        """
        with self._lock:
            self._progress.begin(aim)
            self._closes_epochs = closes_epochs
            self._began = dict.fromkeys(range(len(aim.ends)), self._clock())

    def __call__(self, event: Event) -> None:
        """Take an event, in the center's order."""
        with self._lock:
            self._progress.take(event)
            if isinstance(event, EpochEnded) and not self._closes_epochs:
                self._print(event.epoch, self._progress.logs(event.member), event.member)
        if self._only_waits and isinstance(event, Window):
            self.__exit__()

    def epoch(self, epoch: int, logs: Mapping[str, float], member: int = 0) -> None:
        """Take the logs of an epoch that the driver has closed.

        Args:
            epoch: its number, 0-based, counted from the first of the whole training.
            logs: its logs, with those of the validation.
            member: in an ensemble, the member.
        """
        with self._lock:
            aim = self._progress.aim
            if aim is not None:
                self._progress.epoch(logs, member)
                self._print(epoch - aim.first, logs, member)

    def look(self, waiting_tasks: Callable[[], int | None]) -> None:
        """Ask Spark for tasks that wait for a slot, about once a second until all workers train."""
        if self._close is None or (now := self._clock()) - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._progress.all_train:
            return
        waiting = waiting_tasks()
        with self._lock:
            self._progress.lack_slots(waiting)

    def _lines(self, width: int, *, ended: bool) -> list[str]:
        with self._lock:
            return lines_of(self._title, self._progress, width, ended=ended)

    def _print(self, epoch: int, logs: Mapping[str, float], member: int) -> None:
        """Print the line of an epoch, whose number is counted from the first of the center."""
        aim = self._progress.aim
        if not self._prints or aim is None:
            return
        now = self._clock()
        seconds, self._began[member] = now - self._began.get(member, now), now
        end_of = aim.ends[member]
        rows = end_of(epoch) - (end_of(epoch - 1) if epoch else 0)
        number = f"epoch {aim.first + epoch + 1}/{aim.first + aim.num_epoch}"
        parts = [
            f"member {member}, {number}" if len(aim.ends) > 1 else number,
            seconds_text(seconds),
            f"{rows / seconds:,.0f} rows/s" if seconds > 0 else "",
            logs_text(logs),
        ]
        print("  ".join(part for part in parts if part), flush=True)

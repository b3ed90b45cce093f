"""Runs monitors beside a training, each in a thread of its own, and keeps their troubles away from it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from distkeras.events import EventsDropped
from distkeras.monitor.monitors import Monitor, Shown, TrainingFacts
from distkeras.wire.redaction import without_secrets

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two batches of events."""
MOST_EVENTS = 100_000
"""Events that wait for a monitor, about 40 MB; the oldest are dropped if there are more."""
_in_use: set[int] = set()
_lock = threading.Lock()


class Monitors:
    """The monitors of one training. `write` never blocks, and no method raises what a monitor raises.

    As a context manager, it ends monitors that have begun when the block ends.

    Args:
        monitors: the monitors.
        every: seconds between two batches.
        most: events that may wait for a monitor.
    """

    def __init__(
        self, monitors: Sequence[Monitor] = (), *, every: float = EVERY, most: int = MOST_EVENTS
    ) -> None:
        self._followed = [_Followed(monitor, every, most) for monitor in monitors]
        self._is_running = False

    def begin(self, training: TrainingFacts) -> None:
        """Start the threads, which begin with `Monitor.begin`."""
        self._is_running = True
        for each in self._followed:
            each.start(training)

    def write(self, event: Shown) -> None:
        """Pass an event to all of them. Any thread may call this."""
        for each in self._followed:
            each.add(event)

    def end(self, result: Mapping[str, Any]) -> None:
        """Let each take what is left, and end; wait for each as long as its `patience`, all side by side."""
        if not self._is_running:
            return
        self._is_running = False
        began = time.monotonic()
        for each in self._followed:
            each.finish(result)
        for each in self._followed:
            each.wait(began)

    def __enter__(self) -> Monitors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        text = "" if error is None else "".join(traceback.format_exception_only(error)).strip()
        self.end({"reason": "error", "error": text})


class _Followed:
    """A monitor with its thread and the events that wait for it."""

    def __init__(self, monitor: Monitor, every: float, most: int) -> None:
        self._monitor = monitor
        self._every = every
        self._most = most
        self._events: deque[Shown] = deque()
        self._dropped = 0
        self._lock = threading.Lock()  # Held for moments only: a slow monitor does not hold it.
        self._is_off = self._has_told = False
        self._finish = threading.Event()
        self._result: Mapping[str, Any] = {}
        self._thread: threading.Thread | None = None

    @property
    def _name(self) -> str:
        return type(self._monitor).__name__

    def start(self, training: TrainingFacts) -> None:
        with _lock:
            if id(self._monitor) in _in_use:
                self._is_off = True
                _warn(
                    f"The monitor {self._name} is following another training of this process, so it does "
                    "not follow this one. Create a monitor for each training."
                )
                return
            _in_use.add(id(self._monitor))
        # A daemon: one that hangs must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, args=(training,), name=f"distkeras-{self._name}", daemon=True
        )
        self._thread.start()

    def add(self, event: Shown) -> None:
        if self._is_off:
            return
        with self._lock:
            if len(self._events) >= self._most:
                self._events.popleft()
                self._dropped += 1
            self._events.append(event)

    def finish(self, result: Mapping[str, Any]) -> None:
        self._result = result
        self._finish.set()

    def wait(self, began: float) -> None:
        if self._thread is None:
            return
        self._thread.join(max(0.0, began + self._monitor.patience - time.monotonic()))
        if self._thread.is_alive():
            self._is_off = True
            _warn(
                f"The monitor {self._name} has not ended within {self._monitor.patience:g} s after the "
                "training, and the training does not wait longer. Its output may lack the last events."
            )

    def _run(self, training: TrainingFacts) -> None:
        try:
            self._monitor.begin(training)
            while not self._finish.wait(self._every):
                self._take()
            self._take()
            self._monitor.end(self._result)
        except BaseException as error:  # Also a `sys.exit()`, which would end this thread without a word.
            self._is_off = True
            self._events.clear()
            last = without_secrets(traceback.format_exception_only(error)[-1].strip())
            logger.info("The monitor %s has failed.", self._name, exc_info=True)
            _warn(
                f"The monitor {self._name} has failed and gets no more events: {last}. The training "
                "continues."
            )
        finally:
            with _lock:
                _in_use.discard(id(self._monitor))

    def _take(self) -> None:
        """Hand over what waits."""
        with self._lock:
            events, self._events = self._events, deque()
            dropped, self._dropped = self._dropped, 0
        batch = list(events)
        if dropped:
            batch.insert(0, EventsDropped(dropped, time.time()))
            if not self._has_told:
                self._has_told = True
                _warn(
                    f"The monitor {self._name} is slower than the training: {dropped} events were dropped "
                    "and are missing from its output."
                )
        if batch:
            self._monitor.take(batch)


def _warn(text: str) -> None:
    """Warn; where warnings are errors, log it: it must not end the training."""
    with contextlib.suppress(RuntimeWarning):
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return
    logger.warning(text)

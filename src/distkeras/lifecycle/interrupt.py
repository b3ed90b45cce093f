"""Ctrl-C during a training: the first one ends it gracefully, the second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class FirstInterrupt:
    """Calls a function at the first Ctrl-C in a `with` block, in place of `KeyboardInterrupt`.

    From the second one on, Ctrl-C does what it did before the block. In threads other than the main one,
    which Ctrl-C does not reach, the block changes nothing.

    Args:
        react: called in the signal handler, so it must return at once.
    """

    def __init__(self, react: Callable[[], None]) -> None:
        self._react = react
        self._before: Any = None
        self._active = False

    def __enter__(self) -> FirstInterrupt:
        # None: a handler that was not installed by Python, and could not be put back.
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is not None
        ):
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        self._react()

    def _restore(self) -> None:
        if self._active:
            self._active = False
            signal.signal(signal.SIGINT, self._before)

"""Prepare items ahead in a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over `source` in its own thread, at most `depth` items ahead of the consumer.

    The consumer receives an exception of the source after all earlier items.

    Args:
        source: only the thread uses it, until `close` returns or the iteration ends.
        depth: maximum number of items in the queue.
    """

    def __init__(self, source: Iterator[T], depth: int = 2) -> None:
        self._source = source
        self._items: deque[T] = deque()
        self._ready = threading.Semaphore(0)
        self._room = threading.Semaphore(depth)
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._produce, name="distkeras-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._ready.acquire()
        if self._items:
            item = self._items.popleft()
            self._room.release()
            return item
        self._ready.release()  # Further calls end, too.
        self._thread.join()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def stop(self) -> None:
        """Ask the thread to end after its current item."""
        self._stopped = True
        self._room.release()

    def close(self, timeout: float | None = None) -> None:
        """Stop, and wait for the thread (which may be waiting for its source)."""
        self.stop()
        self._thread.join(timeout)

    def _produce(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                if self._stopped:
                    return
                self._items.append(item)
                self._ready.release()
        except BaseException as error:
            self._error = error
        finally:
            self._ready.release()

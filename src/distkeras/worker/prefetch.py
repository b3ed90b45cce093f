"""Prepare items ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
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
        self._items: SimpleQueue[tuple[T] | None] = SimpleQueue()  # `None` is the end.
        self._room: SimpleQueue[None] = SimpleQueue()  # An entry for each place that is free.
        for _ in range(depth):
            self._room.put(None)
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._produce, name="distkeras-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self._items.get()
        if item is not None:
            self._room.put(None)
            return item[0]
        self._items.put(None)  # Further calls end, too.
        self._thread.join()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def stop(self) -> None:
        """Ask the thread to end after its current item."""
        self._stopped = True
        self._room.put(None)

    def close(self, timeout: float | None = None) -> None:
        """Stop, and wait for the thread (which may be waiting for its source)."""
        self.stop()
        self._thread.join(timeout)

    def _produce(self) -> None:
        try:
            for item in self._source:
                self._room.get()
                if self._stopped:
                    return
                self._items.put((item,))
        except BaseException as error:
            self._error = error
        finally:
            self._items.put(None)

"""Items prepared ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from distkeras.worker.prefetch import Prefetch


def test_items_come_in_order_and_the_end_stays_the_end() -> None:
    items = Prefetch(iter(range(100)), depth=3)
    assert list(items) == list(range(100))
    assert list(items) == []


def test_no_more_than_depth_items_are_taken_ahead() -> None:
    taken: list[int] = []
    third = threading.Event()

    def source() -> Iterator[int]:
        for item in range(10):
            taken.append(item)
            if item == 2:
                third.set()
            yield item

    items = Prefetch(source(), depth=2)
    assert third.wait(10)  # Two wait in the queue; the third is in the thread's hand.
    assert taken == [0, 1, 2]
    items.close()
    assert len(taken) <= 3


def test_exception_is_raised_again_each_time() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    items = Prefetch(source())
    assert next(items) == 1
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            next(items)


def test_close_ends_the_thread_of_an_endless_source() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    items = Prefetch(endless())
    next(items)
    items.close()
    assert "distkeras-prefetch" not in [thread.name for thread in threading.enumerate()]

"""Minibatches are copied ahead of their step: the order of things, and each backend's copies."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from backend_suites import cases, check

from distkeras.worker.device import DEPTH, CopiedAhead, alike, copied_ahead
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.step_buffer import BYTES, MAX_STEPS


@pytest.mark.parametrize(("backend", "case"), cases("device_suite.py"))
def test_device(backend, case):
    check(backend, case)


class Numbers:
    """Passes of numbered minibatches, so large that a group holds one; it notes those that were taken."""

    def __init__(self):
        self.taken = []

    def epoch(self, epoch, start=0):
        for number in range(start, 10):
            self.taken.append((epoch, number))
            yield numbered(number, BYTES)


def numbered(number, size):
    return Minibatch(np.full(size, number, np.uint8), None, None, 1)


def numbers(minibatches):
    return [int(each.x[0]) for each in minibatches]


class Notes:
    """A device that notes in which thread a copy begins, and in which it is taken."""

    def __init__(self):
        self.threads = []

    def put(self, batches):
        began = threading.current_thread().name

        def landed():
            self.threads.append((began, threading.current_thread().name))
            return batches

        return landed

    def memory_for(self, size, dtype):
        return None


def test_every_minibatch_comes_once_in_order_and_is_taken_by_the_thread_that_trains():
    device = Notes()
    with copied_ahead(Numbers(), device) as passes:
        assert numbers(passes.epoch(0)) == list(range(10))
        assert numbers(passes.epoch(1, 7)) == [7, 8, 9]
    assert set(device.threads) == {("distkeras-prefetch", threading.current_thread().name)}


def test_a_few_minibatches_wait_on_the_device_and_no_more():
    rows = Numbers()
    ahead = CopiedAhead(rows, Notes())
    assert numbers([next(ahead.epoch(0))]) == [0]
    ahead.close()  # The thread has ended, so that nothing is taken any more.
    assert len(rows.taken) <= 1 + DEPTH + 1


def test_another_epoch_may_begin_before_the_last_one_has_ended():
    rows = Numbers()
    with copied_ahead(rows, Notes()) as passes:
        first = passes.epoch(0)
        next(first)
        assert numbers(passes.epoch(0, 5)) == [5, 6, 7, 8, 9]
    assert rows.taken[-5:] == [(0, number) for number in range(5, 10)]


def test_an_error_of_the_rows_comes_after_the_minibatches_before_it():
    class Lost(Numbers):
        def epoch(self, epoch, start=0):
            yield numbered(0, 1)
            raise ValueError("a null in row 1")

    with copied_ahead(Lost(), Notes()) as passes:
        epoch = passes.epoch(0)
        assert numbers([next(epoch)]) == [0]
        with pytest.raises(ValueError, match="a null in row 1"):
            next(epoch)


def test_without_a_device_nothing_comes_between():
    rows = Numbers()
    with copied_ahead(rows, None) as passes:
        assert passes is rows


def test_small_minibatches_are_grouped_and_large_ones_are_not():
    small, large, last = (numbered(number, size) for number, size in enumerate((8, BYTES - 1, 6)))
    groups = alike([small] * (MAX_STEPS + 2) + [large, large] + [small, last])
    assert [[int(each.x[0]) for each in group] for group in groups] == [
        [0] * MAX_STEPS,
        *([0, 0], [1], [1], [0], [2]),
    ]

"""Epochs of the center end with its rows, and hold the sums of their windows."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, FedBuff, LocalSGD
from distkeras.center import (
    BadUpdates,
    Center,
    CenterConfig,
    Fragments,
    ProtocolError,
    make_center,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.requests import Exchange, Join, Keep, Leave, Pull
from distkeras.center.snapshot import read
from distkeras.events import CenterKept, EpochEnded, Window


def start(algorithm=None, num_workers=1, epoch_rows=10, size=3, **options):
    config = CenterConfig(algorithm or DOWNPOUR(), num_workers, epoch_rows=epoch_rows, **options)
    shape = (num_workers, size) if config.independent else (size,)
    center = make_center(config, np.zeros(shape, np.float32), clock=lambda: 7.0)
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def commit(worker, sequence, samples=5, *states, steps=2, value=1.0, size=3, fragment=0):
    message = np.full(size, value, np.float32)
    return Exchange(
        worker,
        sequence,
        steps,
        samples,
        0,
        2 * sequence,
        message,
        {"loss": 0.5},
        fragment=fragment,
        states=np.array(states, "<f8").tobytes(),
    )


def ended(center, since=0):
    """Return the epochs that have ended, as (epoch, samples, number, steps, windows, states, whole)."""
    return [
        (
            *(event.epoch, event.samples, event.number, event.steps, event.windows),
            np.frombuffer(event.states, "<f8").tolist(),
            event.whole,
        )
        for event in center.event_log.read(since).events
        if isinstance(event, EpochEnded)
    ]


def test_an_epoch_ends_with_the_commit_that_completes_its_rows_and_has_the_sums_of_its_windows():
    center = start()
    for sequence, samples in enumerate((4, 4, 4, 8, 3), start=1):
        center.handle(commit(0, sequence, samples, samples, 0.5))
    assert ended(center) == [(0, 12, 3, 6, 3, [12.0, 1.5], True), (1, 20, 4, 2, 1, [8.0, 0.5], True)]


def test_the_event_follows_its_window_and_the_copy_of_the_center_that_was_asked_for():
    center = start()
    center.handle(Keep(10))
    center.handle(commit(0, 1, 10))
    events = center.event_log.read(0).events[1:]
    assert [type(event) for event in events] == [Window, CenterKept, EpochEnded]
    assert events[1].number == events[2].number == 1
    ((_, pulled),) = center.handle(Pull(kept=10))
    assert pulled.num_updates == events[2].num_updates == 1


def test_without_epochs_none_ends():
    center = start(epoch_rows=None)
    center.handle(commit(0, 1, 100, 1.0))
    center.handle(Leave(0))
    assert ended(center) == []


def test_a_commit_that_ends_two_epochs_belongs_to_the_first():
    center = start()
    center.handle(commit(0, 1, 25, 3.0))
    assert ended(center) == [(0, 25, 1, 2, 1, [3.0], True), (1, 25, 1, 0, 0, [], True)]
    center.handle(commit(0, 2, 5, 4.0))
    assert ended(center)[2:] == [(2, 30, 2, 2, 1, [4.0], True)]


def test_epochs_may_have_rows_of_their_own_which_begin_again():
    center = start(epoch_rows=(9, 1))
    for sequence, samples in enumerate((9, 1, 9, 1), start=1):
        center.handle(commit(0, sequence, samples, 1.0))
    assert [each[:2] for each in ended(center)] == [(0, 9), (1, 10), (2, 19), (3, 20)]
    config = CenterConfig(DOWNPOUR(), epoch_rows=(9, 1))
    assert [config.epoch_end(epoch) for epoch in range(4)] == [9, 10, 19, 20]
    assert [config.epochs_in(samples) for samples in (0, 8, 9, 10, 18, 19, 20)] == [0, 0, 1, 2, 2, 3, 4]


def test_states_that_are_not_alike_are_left_out_and_not_added_wrongly():
    center = start()
    center.handle(commit(0, 1, 5, 1.0, 2.0))
    center.handle(commit(0, 2, 5, 3.0))
    center.handle(commit(0, 3, 5, 1.0))
    center.handle(commit(0, 4, 5))
    assert [each[5] for each in ended(center)] == [[], []]


def test_windows_without_minibatches_need_no_states():
    center = start()
    center.handle(commit(0, 1, 5, 1.0))
    last = commit(0, 2, 5)
    center.handle(Exchange(0, 2, 1, 5, 0, 4, last.message, window_steps=0, window_samples=5))
    assert ended(center)[0][5] == [1.0]


def test_discarded_messages_count_their_rows_and_skipped_ones_do_not():
    center = start(FedBuff(buffer_size=2, communication_window=2), bad_updates=BadUpdates("skip"))
    center.handle(commit(0, 1, 5, 1.0))
    center.handle(commit(0, 2, 5, 1.0, value=np.nan))
    assert ended(center) == []
    center.handle(commit(0, 3, 5, 1.0))
    assert ended(center) == [(0, 10, 2, 4, 2, [2.0], True)]


def test_a_repeated_commit_counts_once():
    center = start()
    for _ in range(2):
        center.handle(commit(0, 1, 5, 1.0))
    center.handle(commit(0, 2, 5, 2.0))
    assert ended(center) == [(0, 10, 2, 4, 2, [3.0], True)]


def test_an_epoch_that_all_workers_leave_is_reported_with_what_it_has_and_goes_on_if_they_do():
    center = start(num_workers=2)
    center.handle(commit(0, 1, 6, 1.0))
    center.handle(Leave(0))
    assert ended(center) == []
    center.handle(Leave(1))
    center.handle(Leave(1))
    assert ended(center) == [(0, 6, 1, 2, 1, [1.0], False)]
    center.handle(Join(1, 1))
    center.handle(commit(1, 1, 4, 2.0))
    assert ended(center)[1:] == [(0, 10, 2, 4, 2, [3.0], True)]
    center.handle(Leave(1))
    assert len(ended(center)) == 2


def test_a_round_counts_all_its_windows_in_one_epoch():
    center = start(LocalSGD(), num_workers=2)
    center.handle(commit(0, 1, 5, 1.0))
    center.handle(commit(1, 1, 7, 2.0))
    assert ended(center) == [(0, 12, 1, 4, 2, [3.0], True)]


def test_every_member_of_an_ensemble_counts_for_itself():
    center = start(num_workers=2, independent=True)
    center.handle(commit(1, 1, 10, 1.0))
    center.handle(commit(0, 1, 5, 1.0))
    events = [event for event in center.event_log.read(0).events if isinstance(event, EpochEnded)]
    assert [(event.member, event.epoch, event.samples) for event in events] == [(1, 0, 10)]


def test_fragments_count_every_minibatch_once():
    center = start(size=4, fragments=Fragments((((0, 2),), ((2, 4),))))
    for sequence in range(1, 6):
        message = np.ones(2, np.float32)
        states = np.array([1.0], "<f8").tobytes()
        window = {"window_steps": 1, "window_samples": 4, "fragment": (sequence - 1) % 2}
        center.handle(Exchange(0, sequence, 2, 8, 0, sequence, message, states=states, **window))
    center.handle(Leave(0))
    assert ended(center) == [(0, 12, 2, 3, 3, [3.0], True), (1, 20, 3, 2, 2, [2.0], True)]


@pytest.mark.parametrize("states", [b"1234567", bytes(8 * 2**15 + 8)])
def test_states_of_no_worker_are_refused_and_change_nothing(states):
    center = start()
    with pytest.raises(ProtocolError, match="bytes of float64 states"):
        center.handle(Exchange(0, 1, 1, 5, 0, 1, np.ones(3, np.float32), states=states))
    assert center.num_commits == 0


@pytest.mark.parametrize("rows", [0, -1, True, 1.5, (), (4, 0), "4"])
def test_senseless_rows_of_epochs_are_refused(rows):
    with pytest.raises(ValueError, match="`epoch_rows` must be a positive number"):
        CenterConfig(DOWNPOUR(), epoch_rows=rows)


def restarted(center, since=0, **options):
    file = io.BytesIO()
    take_snapshot(center, {}).write(file)
    config = center.config
    again = Center(config, np.zeros(center.size, np.float32), clock=lambda: 7.0, **options)
    restore_snapshot(again, read(io.BytesIO(file.getvalue())), since)
    return again


def test_sums_go_on_after_a_restart_and_the_last_epoch_is_reported_again_unless_it_waits_to_be_read():
    center = start()
    for sequence in (1, 2, 3):
        center.handle(commit(0, sequence, 6, 0.1, sequence))
    expected = start()
    for sequence in (1, 2, 3, 4):
        expected.handle(commit(0, sequence, 6, 0.1, sequence))
    first, second = ended(expected)
    unread = restarted(center)
    assert ended(unread) == [first]
    center.event_log.read(center.event_log.next)
    again = restarted(center, center.event_log.next)
    assert ended(again, again.event_log._first) == [first]
    again.handle(Join(0, 1))
    again.handle(commit(0, 4, 6, 0.1, 4))
    assert ended(again, again.event_log._first) == [first, second]


def test_the_sums_are_those_of_one_thread_whatever_threads_commit():
    """Each thread commits for a worker; every window is in one epoch, and no row counts twice."""
    workers, windows = 8, 60
    center = start(num_workers=workers, epoch_rows=100)

    def train(worker):
        for sequence in range(1, windows + 1):
            center.handle(commit(worker, sequence, 1 + worker, 1.0, float(1 + worker), sequence**2))

    threads = [threading.Thread(target=train, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in range(workers):
        center.handle(Leave(worker))
    found = []
    while (page := center.event_log.read(sum(map(len, found)))).events:
        found.append(page.events)
    events = [event for page in found for event in page]
    epochs = [event for event in events if isinstance(event, EpochEnded)]
    assert [event.epoch for event in epochs] == list(range(len(epochs)))
    by_number = sorted((event for event in events if isinstance(event, Window)), key=lambda each: each.number)
    begin = rows = 0
    for epoch in epochs:
        own = by_number[begin : epoch.number]
        begin = epoch.number
        rows += sum(window.samples for window in own)
        squares = float(sum((window.iteration + 1) ** 2 for window in own))
        sums = np.frombuffer(epoch.states, "<f8").tolist()
        assert sums == [len(own), sum(window.samples for window in own), squares]
        assert (epoch.windows, epoch.steps, epoch.samples) == (len(own), 2 * len(own), rows)
        assert epoch.staleness_mean == pytest.approx(sum(window.staleness for window in own) / len(own))
    assert rows == windows * sum(range(1, workers + 1))

"""The event log: in pages, in order, and bounded while the driver does not read."""

from __future__ import annotations

import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.center import Center, CenterConfig, event_log, restore_snapshot, take_snapshot
from distkeras.center.answers import MAX_PAGE_BYTES, Polled
from distkeras.center.event_log import EventLog, size_of
from distkeras.center.requests import Join
from distkeras.cluster.watch import Watch, WorkerError
from distkeras.events import EventsDropped, ServerRestored, Window, WorkerFailed, WorkerLeft
from distkeras.wire import frames


def window(iteration, num_metrics=1):
    metrics = {f"metric_{index}": 0.5 for index in range(num_metrics)}
    return Window(0, 0, iteration, 1, 1, metrics, 0, 7.0)


@pytest.fixture
def small(monkeypatch):
    """A journal with room for twenty windows, and ten other events."""
    monkeypatch.setattr(event_log, "MAX_BYTES", 20 * size_of(window(0)))
    monkeypatch.setattr(event_log, "RESERVED_BYTES", 10 * size_of(WorkerLeft(0, 7.0)))
    return EventLog(lambda: 7.0)


def read_all(event_log):
    events, since = [], 0
    while (page := event_log.read(since)).events:
        events += page.events
        since = page.next
    return events


def test_what_is_not_read_for_long_is_dropped_counted_and_told(small):
    for iteration in range(100):
        small.commit([window(iteration)], updates=1)
    assert small.num_updates == 100
    assert small.changes == 100
    small.read(0)
    small.read(small.next)
    small.commit([window(100)], updates=1)
    assert read_all(small) == [EventsDropped(80, 7.0), window(100)]


def test_windows_are_dropped_before_what_the_driver_cannot_do_without(small):
    for iteration in range(100):
        small.add(window(iteration))
    small.add(WorkerLeft(0, 7.0))
    events = read_all(small)
    assert events == [
        *(window(iteration) for iteration in range(20)),
        WorkerLeft(0, 7.0),
        EventsDropped(80, 7.0),
    ]


def test_no_kind_of_event_grows_it_without_bound(small):
    for _ in range(1000):
        small.add(WorkerFailed(0, "x" * 1000, 7.0))
        small.add(WorkerLeft(0, 7.0))
        small.add(window(0))
    assert sum(map(size_of, small._events)) == small._bytes
    assert small._bytes <= event_log.MAX_BYTES + event_log.RESERVED_BYTES
    kept = len(small._events)
    events = read_all(small)
    assert events[-1] == EventsDropped(3000 - kept, 7.0)


def test_a_page_holds_no_more_than_a_frame_does_and_one_event_at_least():
    event_log = EventLog(lambda: 7.0)
    event_log.add(*(window(iteration, 7000) for iteration in range(60)))
    pages, since = [], 0
    while (page := event_log.read(since)).events:
        frames.encode(page)  # Raises if it does not fit.
        pages.append(len(page.events))
        since = page.next
    assert sum(pages) == 60
    assert len(pages) > 1
    giant = WorkerFailed(0, "x" * MAX_PAGE_BYTES, 7.0)
    event_log.add(giant, giant)
    assert event_log.read(since).events == [giant]


def test_a_restored_journal_knows_how_large_it_is():
    center = Center(CenterConfig(DOWNPOUR()), [0.0] * 4, clock=lambda: 7.0)
    center.handle(Join(0))
    snapshot = take_snapshot(center, {})
    restore_snapshot(center, snapshot, 0)
    assert center.event_log._bytes == sum(map(size_of, center.event_log._events))
    assert [type(event) for event in center.event_log._events][-1] is ServerRestored


def test_the_driver_reads_to_the_last_page_after_the_end_and_tells_what_is_missing(caplog):
    pages = [[window(0), EventsDropped(3, 7.0)], [window(1)], [WorkerLeft(0, 7.0)], [], [window(2)]]

    class Ended:
        error, rows = None, ()

        def wait(self, seconds):
            return True

        def revive(self, since, seconds=0.0):
            return False

        def call(self, request):
            return Polled(pages.pop(0), request.since + 1, 2)

    ended, seen = Ended(), []
    assert Watch(ended, ended, ended, 1, seen.append).run() == 2
    assert seen == [window(0), EventsDropped(3, 7.0), window(1), WorkerLeft(0, 7.0)]
    assert "3 events are missing from the history" in caplog.text
    pages[:] = [[window(0)], []]
    with pytest.raises(WorkerError, match="had not finished"):
        Watch(ended, ended, ended, 1, seen.append).run()

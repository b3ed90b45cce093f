"""Monitors run beside a training, and none of their troubles reaches it."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager

import pytest

from distkeras.events import EventsDropped, Window, WorkerLeft
from distkeras.monitor import Monitor, TrainingFacts
from distkeras.monitor.monitors import monitors_of
from distkeras.monitor.running import Monitors

FACTS = TrainingFacts("ADAG, 2 workers", "runs-7", "ADAG", num_workers=2, rows=100, epochs=3)


def window(number, worker=0, **further):
    return Window(worker, 0, number, 1, 10, {"loss": 1.0}, 0, 100.0 + number, number=number + 1, **further)


@contextmanager
def told():
    """Collect the texts of the warnings, of all threads."""
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        texts += [str(warning.message) for warning in caught]


class Recording(Monitor):
    def __init__(self):
        self.calls = []

    def begin(self, training):
        self.calls.append(training)

    def take(self, events):
        self.calls.append(list(events))

    def end(self, result):
        self.calls.append(dict(result))

    @property
    def events(self):
        return [event for call in self.calls if isinstance(call, list) for event in call]


class Failing(Monitor):
    def __init__(self, where):
        self.where, self.calls = where, 0

    def call(self, where):
        self.calls += 1
        if where == self.where:
            raise OSError(f"{where} of https://me:hunter22@server failed")

    def begin(self, training):
        self.call("begin")

    def take(self, events):
        self.call("take")

    def end(self, result):
        self.call("end")


class Hanging(Monitor):
    patience = 0.05

    def __init__(self):
        self.started, self.go_on = threading.Event(), threading.Event()
        self.taken = []

    def take(self, events):
        self.started.set()
        self.go_on.wait(30)
        self.taken += events


def test_a_monitor_gets_every_event_in_order_between_beginning_and_end():
    recording, sent = Recording(), [*(window(number) for number in range(500)), WorkerLeft(0, 1.0)]
    monitors = Monitors([recording], every=0.001)
    monitors.write(sent[0])  # Before the beginning is known.
    monitors.begin(FACTS)
    for event in sent[1:]:
        monitors.write(event)
    monitors.end({"reason": "finished"})
    monitors.end({"reason": "error"})  # It has ended.
    assert recording.calls[0] is FACTS
    assert recording.calls[-1] == {"reason": "finished"}
    assert recording.events == sent
    assert sum(isinstance(call, dict) for call in recording.calls) == 1


@pytest.mark.parametrize("where", ["begin", "take", "end"])
def test_a_monitor_that_fails_warns_once_and_disturbs_nobody(where):
    failing, recording = Failing(where), Recording()
    monitors = Monitors([failing, recording], every=0.001)
    with told() as texts:
        monitors.begin(FACTS)
        for number in range(10):
            monitors.write(window(number))
        monitors.end({"reason": "finished"})
    (text,) = texts
    assert f"The monitor Failing has failed and gets no more events: OSError: {where} of https" in text
    assert "hunter22" not in text
    assert len(recording.events) == 10
    assert failing.calls <= {"begin": 1, "take": 2, "end": 12}[where]  # None after the error.


def test_a_failure_ends_nothing_where_warnings_are_errors(caplog):
    recording = Recording()
    monitors = Monitors([Failing("take"), recording], every=0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitors.begin(FACTS)
        monitors.write(window(0))
        monitors.end({"reason": "finished"})
    assert "Failing has failed" in caplog.text
    assert recording.events == [window(0)]


def test_a_monitor_that_exits_warns_too():
    class Exiting(Recording):
        def take(self, events):
            raise SystemExit(3)

    monitors = Monitors([Exiting()], every=0.001)
    with told() as texts:
        monitors.begin(FACTS)
        monitors.write(window(0))
        monitors.end({"reason": "finished"})
    assert "Exiting has failed and gets no more events: SystemExit: 3" in texts[0]


def test_the_training_does_not_wait_for_a_monitor_that_hangs():
    hanging, recording = Hanging(), Recording()
    monitors = Monitors([hanging, recording], every=0.001)
    monitors.begin(FACTS)
    monitors.write(window(0))
    assert hanging.started.wait(30)
    with pytest.warns(RuntimeWarning, match="Hanging has not ended within 0.05 s"):
        monitors.end({"reason": "finished"})
    assert not hanging.taken
    assert recording.events == [window(0)]
    hanging.go_on.set()


def test_of_a_slow_monitor_the_oldest_events_are_dropped_and_counted():
    slow = Hanging()
    slow.patience = 30.0
    monitors = Monitors([slow], every=0.001, most=10)
    monitors.begin(FACTS)
    monitors.write(window(0))
    assert slow.started.wait(30)
    for number in range(1, 100):
        monitors.write(window(number))
    with told() as texts:
        slow.go_on.set()
        monitors.end({"reason": "finished"})
    assert "slower than the training: 89 events were dropped" in texts[0]
    first, dropped, *rest = slow.taken
    assert (first, dropped.count) == (window(0), 89)
    assert isinstance(dropped, EventsDropped)
    assert rest == [window(number) for number in range(90, 100)]


def test_a_monitor_shows_one_training_at_a_time_and_then_another():
    recording = Recording()
    first, second = Monitors([recording], every=0.001), Monitors([recording], every=0.001)
    first.begin(FACTS)
    with pytest.warns(RuntimeWarning, match="is following another training"):
        second.begin(FACTS)
    second.write(window(7))
    second.end({"reason": "finished"})
    first.write(window(1))
    first.end({"reason": "finished"})
    third = Monitors([recording], every=0.001)
    third.begin(FACTS)
    third.write(window(3))
    third.end({"reason": "finished"})
    assert recording.events == [window(1), window(3)]


def test_what_is_no_monitor_is_refused_before_anything_begins():
    recording = Recording()
    assert monitors_of(None) == monitors_of([]) == ()
    assert monitors_of(recording) == monitors_of([recording]) == (recording,)
    for given, kind, message in (
        (Recording, TypeError, "make an instance"),
        (7, TypeError, "must be a name"),
        ("tensorbord", ValueError, "Expected the name of a monitor: .*'tensorboard'"),
        ([recording, recording], ValueError, "once for a training"),
        (["tensorboard", "tensorboard"], ValueError, "once for a training"),
    ):
        with pytest.raises(kind, match=message):
            monitors_of(given)
    with pytest.raises(TypeError, match="`dashboard` must be True or False"):
        monitors_of(None, "yes")

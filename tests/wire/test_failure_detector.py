"""Who has been silent for too long, on a clock of the test's own."""

from __future__ import annotations

from distkeras.wire.failure_detector import FailureDetector


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def look_until(pulse, clock, end):
    """Look every interval; return what was found, by time."""
    found = {}
    while clock.now < end:
        clock.now += pulse.interval
        if silent := pulse.silent():
            found[clock.now] = silent
    return found


def test_a_silent_worker_is_named_once_until_it_is_heard_again():
    clock = Clock()
    pulse = FailureDetector(8.0, clock)
    pulse.heard(0)
    pulse.heard(1)
    pulse.forget(1)
    assert look_until(pulse, clock, 20) == {10.0: {0: 10.0}}
    pulse.heard(0)
    assert look_until(pulse, clock, 40) == {30.0: {0: 10.0}}


def test_nobody_is_taken_for_lost_because_the_server_stood_still():
    clock = Clock()
    pulse = FailureDetector(8.0, clock)
    pulse.heard(0)
    clock.now = 100.0
    assert pulse.silent() == {}
    assert look_until(pulse, clock, 112) == {110.0: {0: 10.0}}

"""Peers without the token: bounded, slowed down, and never a reason to lock out those who have it."""

from __future__ import annotations

from distkeras.wire.handshake_limiter import (
    FORGET_SECONDS,
    LONGEST_PAUSE,
    MAX_ADDRESSES,
    SHORTEST_PAUSE,
    HandshakeLimiter,
    PendingHandshake,
)


class Crowd:
    """HandshakeLimiter under a clock that stands still unless it is moved."""

    def __init__(self, limit=3):
        self.now = 100.0
        self.gone = []
        self.handshakes = HandshakeLimiter(lambda: self.now, limit)

    def arrive(self, name, address="a"):
        handshake = PendingHandshake(address, lambda: self.gone.append(name))
        self.handshakes.begin(handshake)
        return handshake


def test_one_too_many_ends_the_oldest():
    crowd = Crowd(limit=2)
    first = crowd.arrive("first")
    crowd.arrive("second")
    assert not first.evicted.is_set()
    crowd.arrive("third")
    assert crowd.gone == ["first"]
    assert first.evicted.is_set()
    assert len(crowd.handshakes) == 2


def test_a_flood_from_one_address_ends_its_own_and_no_other():
    crowd = Crowd(limit=4)
    crowd.arrive("worker", "b")
    for index in range(50):
        crowd.arrive(index, "a")
    assert crowd.gone == list(range(47))


def test_those_who_have_left_make_room():
    crowd = Crowd(limit=2)
    for index in range(10):
        crowd.handshakes.end(crowd.arrive(index))
    assert crowd.gone == []
    assert len(crowd.handshakes) == 0


def test_each_failure_of_an_address_costs_it_twice_the_time_of_the_one_before():
    crowd = Crowd()
    pauses = [crowd.handshakes.fail("a")[0] for _ in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_PAUSE
    assert crowd.handshakes.fail("b")[0] == SHORTEST_PAUSE
    crowd.now += FORGET_SECONDS + 1
    assert crowd.handshakes.fail("a")[0] == SHORTEST_PAUSE


def test_the_log_has_every_failure_and_a_line_in_ten_seconds():
    crowd = Crowd()
    written = []
    for _ in range(31):
        written.append(crowd.handshakes.fail("a")[1])
        crowd.now += 1
    assert [count for count in written if count] == [1, 10, 10, 10]
    assert sum(written) == 31


def test_the_addresses_that_are_remembered_are_bounded():
    crowd = Crowd()
    for index in range(3 * MAX_ADDRESSES):
        crowd.handshakes.fail(str(index))
    assert len(crowd.handshakes._records) == MAX_ADDRESSES

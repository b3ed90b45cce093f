"""Workers report in parts; a local state and its commit count together or not at all."""

from __future__ import annotations

import io

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, LocalSGD
from distkeras.center import (
    BadUpdates,
    CenterConfig,
    Fragments,
    ProtocolError,
    make_center,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.answers import Done, Rejoin
from distkeras.center.requests import MAX_PART, MAX_PARTS, Exchange, Fetch, Join, Report
from distkeras.center.snapshot import read, read_facts
from distkeras.events import Reported
from distkeras.wire.reports import fetch_report, send_report


def start(algorithm=None, num_workers=1, **options):
    config = CenterConfig(algorithm or DOWNPOUR(), num_workers, **options)
    center = make_center(config, np.zeros(4, np.float32), clock=lambda: 7.0)
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def commit(worker, sequence, value=1.0):
    return Exchange(worker, sequence, 2, 5, 0, 2 * sequence, np.full(4, value, np.float32), {"loss": 0.5})


class Direct:
    """A client whose center is in this process; it may be cut off after some calls."""

    def __init__(self, center, calls=10**6):
        self.center, self.calls = center, calls

    def call(self, request):
        if not self.calls:
            raise ConnectionError
        self.calls -= 1
        ((_, reply),) = self.center.handle(request)
        return reply


def send(center, tag, data, worker=0, kind="state", calls=10**6):
    return send_report(Direct(center, calls), worker, kind, tag, data)


def fetch(center, tag, worker=0, kind="state"):
    return fetch_report(Direct(center), worker, kind, tag)


def reported(center):
    events = center.event_log.read(0).events
    return [
        (each.worker, each.kind, each.tag, each.num_bytes) for each in events if isinstance(each, Reported)
    ]


@pytest.mark.parametrize("size", [0, 1, MAX_PART, MAX_PART + 1, 3 * MAX_PART])
def test_a_state_counts_with_its_commit_and_is_fetched_as_it_was_sent(size):
    data = np.random.default_rng(size).bytes(size)
    center = start()
    center.handle(commit(0, 1))
    assert send(center, 2, data) == Done()
    assert (fetch(center, 2), reported(center)) == (None, [])
    center.handle(commit(0, 2))
    assert fetch(center, 2) == data
    assert reported(center) == [(0, "state", 2, size)]
    assert fetch(center, 1) is fetch(center, 3) is None


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_a_worker_killed_anywhere_leaves_its_last_commit_with_the_state_after_it(calls):
    """It sends three parts and the commit; whatever arrives, place and state of a replacement agree."""
    center = start()
    old, new = bytes(3 * MAX_PART), b"1" * 3 * MAX_PART
    send(center, 1, old)
    center.handle(commit(0, 1))
    if calls < 3:
        with pytest.raises(ConnectionError):
            send(center, 2, new, calls=calls)
    else:
        send(center, 2, new)
    ((_, joined),) = center.handle(Join(0, 1))
    assert joined.sequence == 1
    assert fetch(center, 1) == old
    send(center, 2, new)
    center.handle(commit(0, 2))
    ((_, joined),) = center.handle(Join(0, 2))
    assert (joined.sequence, fetch(center, 2)) == (2, new)


def test_a_commit_without_a_state_leaves_the_last_one_which_is_not_taken_for_a_later_one():
    center = start()
    send(center, 1, b"one")
    center.handle(commit(0, 1))
    center.handle(commit(0, 2))
    assert (fetch(center, 1), fetch(center, 2)) == (b"one", None)


def test_a_state_for_a_commit_that_never_came_does_not_count_for_a_later_one():
    center = start()
    send(center, 1, b"one")
    center.handle(Join(0, 1))
    center.handle(commit(0, 1))
    center.handle(commit(0, 2))
    assert (fetch(center, 1), fetch(center, 2), len(reported(center))) == (b"one", None, 1)
    send(center, 4, b"four")
    center.handle(commit(0, 3))
    assert fetch(center, 4) is None


def test_the_state_after_a_skipped_window_is_that_of_the_workers_place():
    center = start(bad_updates=BadUpdates("skip"))
    send(center, 1, b"one")
    center.handle(commit(0, 1, np.nan))
    ((_, joined),) = center.handle(Join(0, 1))
    assert (joined.sequence, fetch(center, 1)) == (1, b"one")


def test_states_of_a_round_count_when_it_closes():
    center = start(LocalSGD(), num_workers=2)
    send(center, 1, b"zero", worker=0)
    center.handle(commit(0, 1))
    assert fetch(center, 1) is None
    send(center, 1, b"one", worker=1)
    center.handle(commit(1, 1))
    assert [fetch(center, 1, worker) for worker in (0, 1)] == [b"zero", b"one"]
    assert sorted(reported(center)) == [(0, "state", 1, 4), (1, "state", 1, 3)]


def test_an_evaluation_counts_when_it_is_whole_and_replaces_the_one_before():
    center = start(num_workers=2)
    for tag in (40, 80):
        send(center, tag, b"%d" % tag, kind="evaluation")
        send(center, tag, b"other", worker=1, kind="evaluation")
    assert fetch(center, 40, kind="evaluation") is None
    assert fetch(center, 80, kind="evaluation") == b"80"
    assert fetch(center, 80, worker=1, kind="evaluation") == b"other"
    assert reported(center)[::2] == [(0, "evaluation", 40, 2), (0, "evaluation", 80, 2)]
    assert fetch(center, 80) is None  # It is no state.


def test_parts_sent_again_count_once():
    center = start()
    parts = [Report(0, kind, 1, part, 2, b"%d" % part) for kind in ("evaluation", "state") for part in (0, 1)]
    for part in parts:
        for _ in range(2):
            assert center.handle(part) == [(0, Done())]
    center.handle(commit(0, 1))
    assert fetch(center, 1, kind="evaluation") == fetch(center, 1) == b"01"
    assert len(reported(center)) == 2


@pytest.mark.parametrize(
    "fields",
    [
        (1, -1, 1, b""),
        (1, 1, 1, b""),
        (1, 0, 0, b""),
        (1, 0, MAX_PARTS + 1, b""),
        (-1, 0, 1, b""),
        (1, 0, 1, bytes(MAX_PART + 1)),
        (1, 1, 2, b""),
    ],
)
def test_parts_of_no_worker_are_refused_and_nothing_is_kept(fields):
    center = start()
    with pytest.raises(ProtocolError, match="Expected"):
        center.handle(Report(0, "state", *fields))
    center.handle(commit(0, 1))
    assert fetch(center, 1) is None


def test_parts_of_different_reports_are_not_mixed():
    center = start()
    center.handle(Report(0, "state", 1, 0, 2, b"a"))
    for tag, parts in ((2, 2), (1, 3)):
        with pytest.raises(ProtocolError, match="in order"):
            center.handle(Report(0, "state", tag, 1, parts, b"b"))
    center.handle(Report(0, "state", 1, 1, 2, b"c"))
    center.handle(commit(0, 1))
    assert fetch(center, 1) == b"ac"
    assert center.handle(Fetch(0, "state", 1, 2))[0][1].parts == 0
    assert center.handle(Fetch(0, "state", 1, -1))[0][1].parts == 0


def test_a_worker_that_has_to_join_again_is_told_so_at_its_first_part():
    center = restarted(start())
    assert send(center, 1, bytes(2 * MAX_PART), calls=1) == Rejoin()


def test_fragments_share_the_states_of_their_worker():
    center = start(fragments=Fragments((((0, 2),), ((2, 4),))))
    for sequence in (1, 2, 3):
        send(center, sequence, b"%d" % sequence)
        fragment = (sequence - 1) % 2
        message = np.ones(2, np.float32)
        center.handle(Exchange(0, sequence, 2, 5, 0, sequence, message, fragment=fragment))
        assert fetch(center, sequence) == b"%d" % sequence
    assert [each[2] for each in reported(center)] == [1, 2, 3]
    assert fetch(restarted(center), 3) == b"3"


def restarted(center):
    file = io.BytesIO()
    take_snapshot(center, {}).write(file)
    again = make_center(center.config, np.zeros(4, np.float32), clock=lambda: 7.0)
    restore_snapshot(again, read(io.BytesIO(file.getvalue())))
    assert read_facts(io.BytesIO(file.getvalue()))["version"] == 2
    return again


def test_a_snapshot_holds_each_last_commit_with_the_state_after_it_and_nothing_under_way():
    center = start(num_workers=2)
    data = np.random.default_rng(0).bytes(2 * MAX_PART + 5)
    send(center, 1, data)
    center.handle(commit(0, 1))
    send(center, 2, b"under way")
    send(center, 9, b"evaluation", kind="evaluation")
    assert take_snapshot(center, {}).num_bytes >= len(data)
    again = restarted(center)
    ((_, joined),) = again.handle(Join(0, 1))
    assert (joined.sequence, fetch(again, 1)) == (1, data)
    assert fetch(again, 2) is fetch(again, 9, kind="evaluation") is None
    again.handle(commit(0, 2))
    assert fetch(again, 2) is None

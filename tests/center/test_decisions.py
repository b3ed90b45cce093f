"""One decision a message: the same number, staleness and verdict in every shard, also under concurrency."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from distkeras.algorithms import (
    BUFFER,
    DCASGD,
    DISCARD,
    DOWNPOUR,
    TAKE,
    Algorithm,
    DynSGD,
    FedBuff,
    LocalSGD,
    Ringmaster,
)
from distkeras.center import BadUpdates, Center, CenterConfig, restore_snapshot, take_snapshot
from distkeras.center.answers import Done, Exchanged, Joined, Refused, Rejoin, Skipped
from distkeras.center.request_log import RequestLog
from distkeras.center.requests import Exchange, Join, Keep, Leave, Poll, Pull
from distkeras.events import CenterKept, Window

SIZE, WORKERS, COMMITS = 70_000, 6, 12
RULES = [DynSGD(), Ringmaster(delay_threshold=5), FedBuff(buffer_size=3), DCASGD()]


def start(rule, num_workers=2, num_shards=1, size=4, **options):
    center = Center(
        CenterConfig(rule, num_workers, **options),
        np.zeros(size, np.float32),
        clock=lambda: 7.0,
        num_shards=num_shards,
    )
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def commit(center, worker, sequence, value):
    message = np.full(center.size, value, np.float32)
    ((_, answer),) = center.handle(Exchange(worker, sequence, 1, 1, 0, sequence, message))
    assert isinstance(answer, Exchanged)
    return answer


def windows(center):
    found, since = [], 0
    while (page := center.handle(Poll(since))[0][1]).events:
        found += [event for event in page.events if isinstance(event, Window)]
        since = page.next
    return found


def message_of(worker, sequence):
    return float(np.random.default_rng((worker, sequence)).standard_normal()) / 10


@pytest.mark.parametrize("num_shards", [1, 2, 7])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("overlap", [False, True])
def test_threads_leave_the_center_of_the_same_messages_one_by_one(rule, num_shards, overlap):
    """What several threads commit at once is what one thread commits in the order of the numbers."""
    options = {"size": SIZE, "num_workers": WORKERS, "num_trainable": SIZE - 10, "overlap": overlap}
    center = start(rule, num_shards=num_shards, **options)

    def train(worker):
        for sequence in range(1, COMMITS + 1):
            commit(center, worker, sequence, message_of(worker, sequence))

    threads = [threading.Thread(target=train, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    happened = sorted(windows(center), key=lambda window: window.number)
    assert [window.number for window in happened] == list(range(1, WORKERS * COMMITS + 1))

    alone = start(rule, num_shards=1, **options)
    for window in happened:
        sequence = window.iteration + 1
        answer = commit(alone, window.worker, sequence, message_of(window.worker, sequence))
        assert answer.staleness == window.staleness
    assert [w.verdict for w in windows(alone)] == [w.verdict for w in happened]
    assert alone.num_updates == center.num_updates
    assert alone.snapshot().tobytes() == center.snapshot().tobytes()


def test_a_rule_decides_once_a_message_whatever_the_shards():
    decided, applied = [], []

    class Counting(Algorithm):
        def decide(self, commit):
            decided.append(commit.number)
            return (TAKE, DISCARD, BUFFER)[commit.number % 3]

        def apply(self, center, message, commit, state):
            applied.append((commit.number, commit.verdict, center.flags.writeable))
            return center

    center = start(Counting(), num_workers=1, num_shards=2)
    for sequence in range(1, 7):
        commit(center, 0, sequence, 1.0)
    assert decided == [1, 2, 3, 4, 5, 6]
    assert applied == [
        *[(2, BUFFER, False)] * 2,
        *[(3, TAKE, True)] * 2,
        *[(5, BUFFER, False)] * 2,
        *[(6, TAKE, True)] * 2,
    ]


def test_only_what_is_taken_counts_moves_statistics_and_makes_others_staler():
    center = start(FedBuff(buffer_size=2), num_workers=3, size=3, num_trainable=2)
    for worker in range(3):
        assert commit(center, worker, 1, 3.0).staleness == (worker == 2)
    assert [window.verdict for window in windows(center)] == ["buffer", "take", "buffer"]
    assert center.num_updates == 1
    assert center.num_commits == 3
    np.testing.assert_array_equal(center.snapshot(), [3, 3, 1])

    center = start(Ringmaster(delay_threshold=1), num_workers=2, size=3, num_trainable=2)
    commit(center, 0, 1, 2.0)
    assert commit(center, 1, 1, 5.0).reply.tolist() == [2, 2, 1]
    assert [window.verdict for window in windows(center)] == ["take", "discard"]
    assert (center.num_updates, center.snapshot().tolist()) == (1, [2, 2, 1])


def test_what_is_buffered_survives_a_snapshot():
    center, other = (start(FedBuff(buffer_size=3), num_workers=1) for _ in range(2))
    for sequence in (1, 2):
        commit(center, 0, sequence, 1.0)
    restore_snapshot(other, take_snapshot(center, {}))
    other.handle(Join(0))
    commit(other, 0, 3, 1.0)
    assert other.snapshot().tolist() == [1.0] * 4
    assert (other.num_updates, other.num_commits) == (1, 3)


def test_a_copy_is_kept_of_the_center_with_which_a_number_of_rows_is_reached():
    center = start(FedBuff(buffer_size=2), num_workers=2, num_shards=2)
    for samples in (2, 3, 5):
        center.handle(Keep(samples))
    assert isinstance(center.handle(Pull(kept=2))[0][1], Refused)
    for sequence in (1, 2, 3):
        for worker in (0, 1):
            commit(center, worker, sequence, 1.0)
    pulled = [center.handle(Pull(kept=samples))[0][1] for samples in (3, 5)]
    # Of deltas 1 and 1, then 1 and 1 / sqrt(1 + 1): each worker goes on from what it received.
    assert [each.num_updates for each in pulled] == [1, 2]
    assert pulled[0].center.tolist() == [1.0] * 4
    assert isinstance(center.handle(Pull(kept=2))[0][1], Refused)  # The last two are kept.
    events = [event for event in center.handle(Poll())[0][1].events if isinstance(event, CenterKept)]
    assert [(event.samples, event.number) for event in events] == [(2, 2), (3, 3), (5, 5)]


def test_a_round_reaches_a_number_of_rows_with_all_its_workers():
    center = start(LocalSGD(), num_workers=2, num_shards=2)
    center.handle(Keep(1))
    center.handle(Keep(2))
    for worker in (0, 1):
        center.handle(Exchange(worker, 1, 1, 1, 0, 1, np.full(4, 3.0, np.float32)))
    for samples in (1, 2):
        assert center.handle(Pull(kept=samples))[0][1].center.tolist() == [3.0] * 4


class AnswersOtherwise(Center):
    """Has an exit of its own."""

    def _exchange(self, request, record):
        return [(request.worker, Rejoin())]


def test_every_answered_request_is_in_the_log_once_however_it_was_answered():
    def told(center, request):
        before = center.request_log.read("", 0).next
        request = replace(request, call=before + 1)
        if isinstance(request, Exchange):
            request = replace(request, message=request.message.copy())
        answers = center.handle(request)
        page = center.request_log.read(center.request_log.name, before)
        assert [(entry.worker, entry.call) for entry in page.entries] == [(request.worker, before + 1)]
        return [type(reply) for worker, reply in answers if worker == request.worker]

    def new(rule, kind=Center, **options):
        config = CenterConfig(rule, 2, layout="here", **options)
        return kind(config, np.zeros(1, np.float32), clock=lambda: 7.0, request_log=RequestLog())

    one = Exchange(0, 1, 1, 1, 0, 1, np.ones(1, np.float32))
    bad = replace(one, message=np.full(1, np.nan, np.float32))
    center = new(DOWNPOUR(), bad_updates=BadUpdates("skip", limit=1))
    assert told(center, one) == told(center, Leave(0)) == [Rejoin]
    assert told(center, Join(0, layout="there")) == [Refused]
    assert told(center, Join(0, layout="here")) == [Joined]
    assert told(center, one) == told(center, one) == [Exchanged]
    assert told(center, replace(bad, sequence=2)) == [Skipped]
    assert told(center, replace(bad, sequence=3)) == [Refused]
    assert told(center, Leave(0)) == told(center, Leave(0)) == [Done]
    center.finite.failure = "planted"
    assert told(center, one) == told(center, Leave(0)) == [Refused]
    center = new(LocalSGD())
    for worker in (0, 1):
        told(center, Join(worker))
    assert told(center, one) == []
    assert told(center, replace(one, worker=1)) == [Exchanged]
    assert told(new(DOWNPOUR(), AnswersOtherwise), one) == [Rejoin]


def test_a_rule_that_returns_nothing_is_told_to_decide():
    class Old(Algorithm):
        def apply(self, center, message, commit, state):
            return None

    with pytest.raises(TypeError, match=r"return DISCARD from `decide\(commit\)`"):
        commit(start(Old()), 0, 1, 1.0)


def test_a_rule_that_moves_the_center_while_it_buffers_fails():
    class Moving(Algorithm):
        def decide(self, commit):
            return BUFFER

        def apply(self, center, message, commit, state):
            center += message
            return center

    with pytest.raises(ValueError, match="read-only"):
        commit(start(Moving()), 0, 1, 1.0)


def test_a_failure_in_one_shard_stops_no_other_thread():
    class Failing(Algorithm):
        def apply(self, center, message, commit, state):
            if commit.worker == 0:
                raise ArithmeticError("planted")
            center += message
            return center

    center = start(Failing(), num_shards=4, size=64)
    with pytest.raises(ArithmeticError):
        commit(center, 0, 1, 1.0)
    commit(center, 1, 1, 1.0)

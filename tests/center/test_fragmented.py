"""A center in fragments: whole layers, a ledger and rounds of their own, and what all fragments share."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, LocalSGD, StreamingDiLoCo
from distkeras.center import (
    BadUpdates,
    CenterConfig,
    Fragmented,
    Layout,
    ProtocolError,
    fragments_of,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.answers import Done, Exchanged, Joined, Rejoin, Skipped
from distkeras.center.fragments import Behind, Fragments, steps_before
from distkeras.center.orders import Orders
from distkeras.center.requests import DRIVER, Beat, Exchange, Join, Leave, Order, Poll
from distkeras.center.snapshot import read
from distkeras.events import Window, WorkerBack, WorkerJoined, WorkerLeft, WorkerLost

LAYOUT = Layout(
    tuple((f"{layer}/{name}", (size,)) for layer in "abcde" for name, size in (("kernel", 2), ("bias", 1))),
    (("b/mean", (1,)), ("c/mean", (2,)), ("normalize/mean", (1,))),
)


class Parts(DOWNPOUR):
    fragments = 2


class Rounds(LocalSGD):
    fragments = 2


def center(rule=None, clock=lambda: 1.0, **options):
    rule = rule or Parts(4)
    options = {"num_workers": 2, "num_trainable": LAYOUT.num_trainable} | options
    config = CenterConfig(rule, fragments=fragments_of(LAYOUT, rule), **options)
    made = Fragmented(config, np.arange(LAYOUT.size, dtype=np.float32), clock=clock)
    for worker in range(config.num_workers):
        made.handle(Join(worker))
    return made


def commit(made, worker, sequence, value=1.0, **changes):
    fragment = (sequence - 1) % 2
    size = made.members[fragment].size
    statistics = size - made.members[fragment].config.trainable_of(size)
    message = np.full(size, value, np.float32)
    message[size - statistics :] = -1
    values = {"epoch": 0, "step": 2 * sequence, "window_steps": 2, "window_samples": 8}
    request = Exchange(worker, sequence, 4, 16, message=message, fragment=fragment, **(values | changes))
    return dict(made.handle(request))


def events(made, *kinds):
    return [event for event in made.event_log.unread().events if isinstance(event, kinds)]


def test_fragments_consist_of_whole_layers_with_their_statistics():
    strided = fragments_of(LAYOUT, Parts(4))
    # Layers a, c and e, and then their statistics with those of a layer that trains nothing.
    assert strided.parts == (((0, 3), (6, 9), (12, 15), (16, 19)), ((3, 6), (9, 12), (15, 16)))
    assert strided.sizes == (12, 7)
    assert [strided.num_trainable(fragment, 15) for fragment in range(2)] == [9, 6]
    blocks = fragments_of(LAYOUT, StreamingDiLoCo(fragments=2, fragment_pattern="sequential"))
    assert blocks.parts == (((0, 9), (15, 19)), ((9, 15),))
    assert len(fragments_of(LAYOUT, StreamingDiLoCo())) == 2  # Five layers, by three.
    assert fragments_of(LAYOUT, LocalSGD()) is None


def test_fragments_put_every_element_back_to_its_place():
    fragments, vector = fragments_of(LAYOUT, Parts(4)), np.arange(19, dtype=np.float32)
    parts = [fragments.gather(vector, fragment) for fragment in range(2)]
    assert parts[1].tolist() == [3, 4, 5, 9, 10, 11, 15]
    np.testing.assert_array_equal(fragments.whole(parts), vector)


def test_more_fragments_than_layers_are_refused():
    with pytest.raises(ValueError, match=r"from 1 to 5.*fragments=6"):
        fragments_of(LAYOUT, StreamingDiLoCo(fragments=6))


def test_replies_land_at_even_parts_of_the_window_and_messages_are_made_before():
    def commits(**options):
        return np.cumsum([steps_before(sequence, **options) for sequence in range(1, 7)]).tolist()

    assert commits(window=6, num_fragments=2) == [3, 6, 9, 12, 15, 18]
    assert commits(window=6, num_fragments=2, overlap=1) == [2, 5, 8, 11, 14, 17]
    assert commits(window=10, num_fragments=3) == [3, 6, 10, 13, 16, 20]
    assert commits(window=5) == [5, 10, 15, 20, 25, 30]
    behind = Behind(2)
    behind.add(3, 12)
    assert behind.take(0) == (3, 12)
    behind.add(3, 10)
    assert (behind.take(0), behind.take(1)) == ((3, 10), (6, 22))


def test_a_commit_changes_its_fragment_and_is_reported_with_its_own_window():
    made, before = center(), np.arange(19, dtype=np.float32)
    reply = commit(made, 0, 1)[0]
    expected = made.fragments.gather(before, 0)
    expected[:9] += 1
    expected[9:] += (-1 - expected[9:]) / 2
    np.testing.assert_array_equal(reply.reply, expected)
    assert (reply.fragment, reply.sequence, reply.staleness) == (0, 1, 0)
    np.testing.assert_array_equal(made.fragments.gather(made.snapshot(), 1), made.fragments.gather(before, 1))
    assert commit(made, 1, 1)[1].staleness == 1
    assert commit(made, 1, 2)[1].staleness == 0  # Nobody has moved the second fragment.
    windows = events(made, Window)
    assert [(window.steps, window.samples) for window in windows] == [(2, 8)] * 3
    assert [(window.iteration, window.fragment) for window in windows] == [(0, 0), (0, 0), (1, 1)]
    assert made.event_log.num_updates == made.num_commits == 3


def test_a_replaced_worker_repeats_only_what_a_fragment_lacks():
    made = center()
    for sequence in (1, 2, 3):
        commit(made, 0, sequence, epoch=1, step=2 * sequence)
    reference = made.snapshot()
    ((_, joined),) = made.handle(Join(0, attempt=1))
    # The second fragment has commit 2; commit 3, of the first one, is repeated.
    assert (joined.sequence, joined.epoch, joined.step) == (2, 1, 4)
    np.testing.assert_array_equal(joined.center, reference)
    again = commit(made, 0, 3, value=9.0)[0]
    assert again.restart
    np.testing.assert_array_equal(again.reply, made.fragments.gather(reference, 0))
    assert not commit(made, 0, 4)[0].restart
    assert [event.step for event in events(made, WorkerJoined)] == [0, 0, 4]
    with pytest.raises(ProtocolError, match="Expected commit 5"):
        commit(made, 0, 7)
    with pytest.raises(ProtocolError, match=r"fragment in 0\.\.1"):
        made.handle(Exchange(0, 5, 1, 1, 0, 0, np.zeros(12, np.float32), fragment=2))
    with pytest.raises(ProtocolError, match=r"window=\(-1, 8\)"):
        commit(made, 0, 5, window_steps=-1)
    with pytest.raises(ProtocolError, match="Expected fragment 0"):
        made.members[0].handle(Exchange(0, 5, 1, 1, 0, 0, np.zeros(12, np.float32), fragment=1))


def test_each_fragment_has_rounds_of_its_own():
    made = center(Rounds(4))
    assert commit(made, 0, 1, value=1.0) == {}
    answers = commit(made, 1, 1, value=3.0)
    assert sorted(answers) == [0, 1]
    assert made.snapshot()[:3].tolist() == [2, 3, 4]
    assert commit(made, 0, 2) == {}
    assert sorted(dict(made.handle(Leave(1)))) == [0, 1]  # Worker 0 no longer waits for it, in any fragment.
    assert commit(made, 0, 3)[0].reply is not None


@pytest.mark.parametrize("how", ["look", "join", "leave", "lost"])
def test_the_graces_of_all_fragments_are_watched_and_nobody_misses_an_answer(how):
    now = [0.0]
    made = center(Rounds(4), clock=lambda: now[0], num_workers=3, quorum=2, grace=10.0)
    assert (made.due, made.seconds_left(), made.look()) == (None, None, [])
    for worker in (0, 1):
        assert commit(made, worker, 1) == {}
    now[0] = 4.0
    assert made.seconds_left() == 6.0
    now[0] = 11.0
    if how == "look":
        answers = made.look()
    elif how == "lost":
        answers = made.mark_lost(2, 30.0)
    else:
        answers = made.handle(Join(2, attempt=1) if how == "join" else Leave(2))
    told = {"look": [0, 1], "lost": [0, 1]}.get(how, [0, 1, 2])
    assert sorted(worker for worker, _ in answers) == told
    assert all(isinstance(reply, Exchanged) for worker, reply in answers if worker < 2)
    if how == "join":
        assert isinstance(dict(answers)[2], Joined)
    assert made.due is None


def test_what_concerns_a_worker_is_reported_once():
    made = center(Rounds(4), without_lost=True)
    made.mark_lost(1, 30.0)
    assert 0 in commit(made, 0, 1)  # Its round proceeds without the lost one.
    made.handle(Beat(1))
    assert not any(member.misses(1) for member in made.members)
    commit(made, 0, 2)
    made.mark_lost(1, 30.0)
    assert commit(made, 1, 1) == {}  # It is back for both fragments.
    assert commit(made, 0, 3).keys() == {0, 1}
    made.handle(Leave(0))
    kinds = [type(event) for event in events(made, WorkerLost, WorkerBack, WorkerLeft)]
    assert kinds == [WorkerLost, WorkerBack, WorkerLost, WorkerBack, WorkerLeft]


def test_a_bad_update_brings_the_whole_center():
    made = center(bad_updates=BadUpdates("skip"))
    commit(made, 1, 1)
    skipped = commit(made, 0, 1, value=np.nan)[0]
    assert isinstance(skipped, Skipped)
    np.testing.assert_array_equal(skipped.center, made.snapshot())
    assert commit(made, 0, 2)[0].staleness == 0


def test_a_restored_center_goes_on_with_every_fragment():
    made = center(StreamingDiLoCo(4, fragments=2))
    for sequence in (1, 2, 3):
        for worker in range(2):
            commit(made, worker, sequence)
    file = io.BytesIO()
    take_snapshot(made, {}).write(file)
    file.seek(0)
    restored = Fragmented(made.config, np.zeros(19, np.float32), clock=lambda: 2.0)
    restore_snapshot(restored, read(file))
    ((_, polled),) = restored.handle(Poll(0))
    report = polled.events[-1]
    assert (report.commits, report.left, report.samples) == ([3, 3], [False, False], 48)
    assert isinstance(commit(restored, 0, 4)[0], Rejoin)
    for each in (made, restored):
        for worker in range(2):
            ((_, joined),) = each.handle(Join(worker, attempt=1))
            assert joined.sequence == 2
        for sequence in (3, 4):
            replies = [commit(each, worker, sequence) for worker in range(2)]
        assert all(isinstance(reply, Exchanged) for answered in replies for reply in answered.values())
    np.testing.assert_array_equal(made.snapshot(), restored.snapshot())


def test_settings_with_fragments_say_what_does_not_fit():
    fragments = Fragments((((0, 2),), ((2, 4),)))
    with pytest.raises(ValueError, match="a number of steps, not True"):
        CenterConfig(Parts(4), overlap=True, fragments=fragments)
    with pytest.raises(ValueError, match="ensembles cannot use fragments"):
        CenterConfig(Parts(4), independent=True, fragments=fragments)
    with pytest.raises(ValueError, match="overlap=2"):
        CenterConfig(Parts(4), overlap=2, fragments=fragments)
    assert CenterConfig(Parts(4), overlap=1, fragments=fragments).overlap_steps == 1
    assert CenterConfig(DOWNPOUR(4), overlap=True).overlap_steps == 0


def test_orders_reach_the_workers_of_every_fragment():
    made = center()
    assert made.handle(Order(Orders(learning_rate=0.5))) == [(DRIVER, Done())]
    replies = [commit(made, 0, sequence)[0] for sequence in (1, 2)]
    ((_, joined),) = made.handle(Join(0, attempt=1))
    assert [reply.orders.learning_rate for reply in (*replies, joined)] == [0.5] * 3


def test_a_fragment_knows_its_tensors():
    @dataclass(frozen=True)
    class Whole(Rounds):
        communication_window: int = 4
        needs_tensors = True

        def combine(self, messages, weights):
            return sum(messages) / np.linalg.norm(sum(messages))

    made = center(Whole(), tensors=LAYOUT.tensors)
    assert [len(member.shards) for member in made.members] == [7, 5]  # The last one has the statistics.
    commit(made, 0, 1)
    commit(made, 1, 1)
    np.testing.assert_allclose(made.snapshot()[:3] - [0, 1, 2], [0.5**0.5, 0.5**0.5, 1], rtol=1e-6)

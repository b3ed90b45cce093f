"""From a number of rows on the center holds its answers to workers, until the driver has decided."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from distkeras.algorithms import AEASGD, DCASGD, DOWNPOUR, DiLoCo, LocalSGD
from distkeras.center import (
    BadUpdates,
    CenterConfig,
    Fragments,
    ProtocolError,
    make_center,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.answers import Done, Exchanged, Joined, Pulled, Refused, Rejoin, Skipped
from distkeras.center.orders import FOREVER, Orders
from distkeras.center.requests import (
    DRIVER,
    Beat,
    Dismiss,
    Exchange,
    Join,
    Keep,
    Leave,
    Order,
    Pull,
    Report,
    Write,
)
from distkeras.center.snapshot import read
from distkeras.events import CenterKept, EpochEnded
from distkeras.record import Recorded, replay


def start(algorithm=None, num_workers=1, until=10, **options):
    config = CenterConfig(algorithm or DOWNPOUR(), num_workers, epoch_rows=10, until=until, **options)
    shape = (num_workers, 3) if config.independent else (3,)
    center = make_center(config, np.zeros(shape, np.float32), clock=lambda: 7.0)
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def commit(worker, sequence, samples=5, value=1.0):
    message = np.full(3, value, np.float32)
    return Exchange(worker, sequence, 2, samples, 0, 2 * sequence, message, {"loss": 0.5})


def order(center, member=None, **orders):
    """Order, and return the answers to workers that were held."""
    (worker, reply), *answers = center.handle(Order(Orders(**orders), member))
    assert (worker, reply) == (DRIVER, Done())
    return answers


def test_the_answer_to_the_commit_that_reaches_the_rows_waits_for_the_driver():
    center = start()
    ((_, first),) = center.handle(commit(0, 1))
    assert isinstance(first, Exchanged)
    assert center.handle(commit(0, 2)) == []
    assert center.snapshot().tolist() == [2, 2, 2]  # It was applied.
    assert order(center, learning_rate=0.5) == []
    assert center.handle(Beat(0)) == [(0, Done())]
    ((_, pulled),) = center.handle(Pull())
    assert pulled.center.tolist() == [2, 2, 2]
    ((worker, reply),) = order(center, until=20)
    assert (worker, reply.sequence, reply.reply.tolist()) == (0, 2, [2, 2, 2])
    assert reply.orders == Orders(2, learning_rate=0.5, until=20)
    assert len(center.handle(commit(0, 3))) == 1
    assert center.handle(commit(0, 4)) == []


@pytest.mark.parametrize("release", [{"stop": True}, {"until": FOREVER}, {"until": 11}])
def test_the_answer_goes_out_with_an_order_to_stop_or_with_more_rows(release):
    center = start()
    center.handle(commit(0, 1))
    center.handle(commit(0, 2, 5))
    ((_, reply),) = order(center, **release)
    assert reply.orders == Orders(1, **release)


def test_an_answer_that_is_held_is_not_overwritten_by_the_memory_of_its_message():
    center = start(AEASGD(learning_rate=0.1, rho=1.0))
    request = commit(0, 1, 10)
    assert center.handle(request) == []
    expected = start(AEASGD(learning_rate=0.1, rho=1.0), until=None)
    ((_, reply),) = expected.handle(commit(0, 1, 10))
    request.message.fill(99)
    ((_, held),) = order(center, until=20)
    assert held.reply.tobytes() == reply.reply.tobytes()


def test_a_round_waits_whole():
    center = start(LocalSGD(), num_workers=2)
    center.handle(commit(0, 1))
    assert center.handle(commit(1, 1)) == []
    assert [worker for worker, _ in order(center, until=20)] == [0, 1]


def test_workers_wait_whose_answers_come_later_than_the_rows():
    center = start(num_workers=3)
    center.handle(commit(0, 1, 10))
    assert center.handle(commit(1, 1, 10)) == []
    ((_, refused),) = center.handle(commit(2, 1, value=math.nan))
    assert isinstance(refused, Refused)  # It ends the training, and nobody has to decide that.
    assert [worker for worker, _ in order(center, until=FOREVER)] == [0, 1]


def test_a_skipped_window_waits_too():
    center = start(bad_updates=BadUpdates("skip"))
    center.handle(commit(0, 1, 10))
    order(center, until=20)
    center.handle(commit(0, 2, 10))
    ((_, reply),) = order(center, until=30)
    center.handle(commit(0, 3, 10))
    center.handle(Join(0, 1))
    assert center.handle(commit(0, 4, value=math.nan)) == []
    ((_, reply),) = order(center, until=40)
    assert isinstance(reply, Skipped)


def test_who_joins_meanwhile_waits_and_takes_the_place_of_its_predecessor():
    center = start()
    center.handle(commit(0, 1, 10))
    assert center.handle(Join(0, 1)) == []
    ((worker, reply),) = order(center, until=20)
    assert (worker, type(reply), reply.sequence) == (0, Joined, 1)
    assert reply.orders == Orders(1, until=20)


def test_a_worker_that_asks_again_gets_the_answer_that_it_was_to_get():
    center = start(AEASGD(learning_rate=0.1, rho=1.0))
    center.handle(commit(0, 1, 10))
    assert center.handle(commit(0, 1, 10)) == []
    expected = start(AEASGD(learning_rate=0.1, rho=1.0), until=None)
    ((_, reply),) = expected.handle(commit(0, 1, 10))
    ((_, held),) = order(center, until=20)
    assert (held.restart, held.reply.tobytes()) == (False, reply.reply.tobytes())


def test_workers_that_leave_do_not_wait():
    center = start()
    center.handle(commit(0, 1, 10))
    order(center, until=FOREVER)
    center.handle(commit(0, 2, 10))
    order(center, until=10)
    ((_, left),) = center.handle(Leave(0))
    assert left == Done()


def test_every_member_of_an_ensemble_waits_for_itself_and_may_stop_alone():
    center = start(num_workers=2, independent=True)
    assert center.handle(commit(0, 1, 10)) == []
    assert len(center.handle(commit(1, 1, 5))) == 1
    ((worker, reply),) = order(center, member=0, stop=True)
    assert (worker, reply.orders.stop) == (0, True)
    assert center.handle(commit(1, 2, 5)) == []
    assert [worker for worker, _ in order(center, until=20)] == [1]


@pytest.mark.parametrize("options", [{"overlap": True}, {"fragments": Fragments((((0, 2),), ((2, 3),)))}])
def test_workers_that_do_not_wait_for_their_answers_cannot_be_held(options):
    with pytest.raises(ValueError, match="without fragments and overlap"):
        start(**options)
    center = start(until=None, **options)
    with pytest.raises(ProtocolError, match="no `until`"):
        order(center, until=10)


# Evaluations.


def evaluation(part=0, parts=1, tag=10):
    return Report(0, "evaluation", tag, part, parts, b"result")


def test_an_order_to_evaluate_reaches_workers_that_wait_and_they_wait_again_with_their_result():
    center = start()
    center.handle(Keep(10))
    center.handle(commit(0, 1, 10))
    ((_, reply),) = order(center, evaluate=10)
    assert (type(reply), reply.orders.evaluate) == (Exchanged, 10)
    ((_, kept),) = center.handle(Pull(kept=10))
    assert isinstance(kept, Pulled)
    assert center.handle(evaluation(0, 2)) == [(0, Done())]
    assert center.handle(evaluation(1, 2)) == []
    assert order(center, learning_rate=0.5) == []
    assert order(center, until=20) == [(0, Done())]
    ((_, reply),) = center.handle(commit(0, 2, 5))
    assert reply.orders.learning_rate == 0.5


def test_a_process_that_joins_during_an_evaluation_is_told_to_evaluate_once():
    center = start()
    center.handle(Keep(10))
    center.handle(commit(0, 1, 10))
    order(center, evaluate=10)
    for attempt in (1, 2):  # It is killed, and so is the next.
        ((_, joined),) = center.handle(Join(0, attempt))
        assert joined.orders.evaluate == 10
    assert center.handle(evaluation()) == []
    assert order(center, until=20) == [(0, Done())]
    assert center.handle(commit(0, 2, 10)) == []  # That copy is none of this boundary.
    assert center.handle(Join(0, 3)) == []


def test_a_copy_is_named_to_the_workers_while_there_is_one():
    center = start(until=None)
    order(center, evaluate=10)
    ((_, reply),) = center.handle(commit(0, 1, 10))
    assert (reply.orders.number, reply.orders.evaluate) == (1, None)
    center.handle(Keep(10))
    for sequence in (2, 3):
        ((_, reply),) = center.handle(commit(0, sequence, 10))
        assert reply.orders.evaluate == 10
    for samples in (40, 50):  # The last two are kept.
        center.handle(Keep(samples))
        ((_, reply),) = center.handle(commit(0, samples // 10, 10))
    assert reply.orders.evaluate is None


def test_an_order_that_a_restarted_server_had_before_the_boundary_counts_at_the_boundary():
    center = start()
    center.handle(commit(0, 1, 5))
    order(center, evaluate=10)
    center.handle(Keep(10))
    center.handle(Join(0, 1))
    ((_, reply),) = center.handle(commit(0, 2, 5))
    assert reply.orders.evaluate == 10
    assert center.handle(evaluation()) == []


# A new center.


def test_a_written_center_is_where_every_worker_starts_anew():
    center = start(DOWNPOUR(), num_workers=2)
    center.handle(commit(0, 1, 5))
    ((_, refused),) = center.handle(Write(np.full(3, 7, np.float32)))
    assert "[0, 1] are training" in refused.reason
    center.handle(commit(1, 1, 5))
    ((_, refused),) = center.handle(Write(np.full(3, 7, np.float32)))
    assert "[0] are training" in refused.reason
    assert center.handle(commit(0, 2, 5)) == []
    assert center.handle(Write(np.full(3, 7, np.float32))) == [(DRIVER, Done())]
    assert center.snapshot().tolist() == [7, 7, 7]
    assert order(center, learning_rate=0.5) == []
    assert order(center, until=30) == [(0, Rejoin()), (1, Rejoin())]
    assert center.handle(commit(1, 2)) == [(1, Rejoin())]
    for worker, sequence in ((0, 2), (1, 1)):
        ((_, joined),) = center.handle(Join(worker))
        assert (joined.center.tolist(), joined.sequence) == ([7, 7, 7], sequence)


def test_a_worker_that_waits_to_join_receives_the_written_center():
    center = start(DCASGD())
    center.handle(commit(0, 1, 10))
    center.handle(Join(0, 1))
    assert center.handle(Write(np.full(3, 7, np.float32))) == [(DRIVER, Done())]
    ((_, joined),) = order(center, until=20)
    assert joined.center.tolist() == [7, 7, 7]
    ((_, reply),) = center.handle(commit(0, 2, 5))  # The rule compares with what the worker has received.
    assert reply.reply.tolist() == [8, 8, 8]


def test_the_state_of_the_rule_stays_when_a_center_is_written():
    center = start(DiLoCo())
    center.handle(commit(0, 1, 10))
    before = [shard.state.copy() for shard in center.shards]
    center.handle(Write(np.full(3, 7, np.float32)))
    assert [list(state) for state in before] == [list(shard.state) for shard in center.shards]
    for state, shard in zip(before, center.shards, strict=True):
        assert all(np.array_equal(state[name], shard.state[name]) for name in state)


def test_a_center_that_is_not_finite_or_of_another_size_is_refused():
    center = start()
    center.handle(commit(0, 1, 10))
    ((_, refused),) = center.handle(Write(np.array([1, math.nan, 1], np.float32)))
    assert "NaN" in refused.reason
    with pytest.raises(ProtocolError, match="one whole vector"):
        center.handle(Write(np.zeros(4, np.float32)))
    assert center.snapshot().tolist() == [1, 1, 1]


def test_a_center_may_be_written_when_all_have_left_and_past_a_lost_worker():
    center = start(num_workers=2)
    center.handle(commit(0, 1, 10))
    center.mark_lost(1, 30.0)
    assert center.handle(Write(np.full(3, 7, np.float32))) == [(DRIVER, Done())]
    assert center.handle(commit(1, 1)) == [(1, Rejoin())]  # It comes back.
    order(center, until=FOREVER)
    for worker in (0, 1):
        center.handle(Join(worker))
        center.handle(Leave(worker))
    assert center.handle(Write(np.full(3, 8, np.float32))) == [(DRIVER, Done())]
    assert center.snapshot().tolist() == [8, 8, 8]


def test_the_center_of_one_member_of_an_ensemble_is_written():
    center = start(num_workers=2, independent=True)
    center.handle(commit(1, 1, 10))
    ((_, refused),) = center.handle(Write(np.full(3, 7, np.float32), member=0))
    assert isinstance(refused, Refused)
    assert center.handle(Write(np.full(3, 7, np.float32), member=1)) == [(DRIVER, Done())]
    assert center.snapshot().tolist() == [[0, 0, 0], [7, 7, 7]]


# Restarts.


def restarted(center, config=None):
    file = io.BytesIO()
    take_snapshot(center, {}).write(file)
    again = make_center(config or center.config, np.zeros(3, np.float32), clock=lambda: 7.0)
    restore_snapshot(again, read(io.BytesIO(file.getvalue())))
    return again


def test_a_restarted_server_still_holds_and_tells_of_the_epoch_again():
    center = start()
    center.handle(commit(0, 1, 10))
    order(center, until=20)
    center.handle(commit(0, 2, 10))
    # A driver that has resumed begins with the first boundary: the orders in the snapshot count.
    again = restarted(center)
    assert [event.epoch for event in again.event_log.read(0).events if isinstance(event, EpochEnded)] == [
        0,
        1,
    ]
    assert again.handle(Join(0, 1)) == []
    ((_, joined),) = order(again, until=30)
    assert (joined.sequence, joined.orders.until) == (2, 30)


def test_a_server_restored_from_before_the_boundary_does_not_hold_until_it_is_there_again():
    center = start()
    center.handle(commit(0, 1, 5))
    again = restarted(center)
    assert len(again.handle(Join(0, 1))) == 1
    assert again.handle(commit(0, 2, 5)) == []


# Several servers: the first holds, whatever the others have.


def test_workers_join_again_when_another_server_has_lost_commits():
    center = start()
    center.handle(commit(0, 1, 5))
    center.handle(commit(0, 2, 5))
    assert center.handle(Dismiss()) == [(0, Rejoin())]
    ((_, joined),) = center.handle(Join(0, waits=False))
    assert (joined.sequence, joined.held) == (2, True)  # It says that it would wait, if it were not behind.
    ((_, repeated),) = center.handle(commit(0, 1, 5))
    assert (repeated.restart, repeated.sequence) == (True, 1)
    assert center.handle(commit(0, 2, 5)) == []
    assert center.snapshot().tolist() == [2, 2, 2]
    order(center, until=20)
    ((_, joined),) = center.handle(Join(0, waits=False))
    assert not joined.held


def test_a_copy_asked_for_while_all_workers_wait_is_made_at_once():
    center = start(num_workers=2)
    center.handle(commit(0, 1, 5))
    center.handle(commit(1, 1, 5))
    center.handle(Keep(10))
    ((_, none),) = center.handle(Pull(kept=10))
    assert isinstance(none, Refused)  # Worker 0 still trains: the copy is made after its message.
    center.handle(commit(0, 2, 5))
    ((_, kept),) = center.handle(Pull(kept=10))
    assert (kept.center.tolist(), kept.num_updates) == ([3, 3, 3], 3)
    again = restarted(center)
    for worker in (0, 1):
        assert again.handle(Join(worker, 1)) == []
    again.handle(Keep(10))
    ((_, kept),) = again.handle(Pull(kept=10))
    assert (kept.center.tolist(), kept.num_updates) == ([3, 3, 3], 3)
    again = restarted(center)
    again.handle(Keep(10))
    for worker in (0, 1):
        again.handle(Join(worker, 1))
    events = again.event_log.read(0).events
    assert [(each.samples, each.number) for each in events if isinstance(each, CenterKept)][-1:] == [(10, 3)]


# The record.


def test_what_is_held_and_written_is_recorded_and_replayed(tmp_path):
    path = str(tmp_path / "server-0.record")
    center = start()
    recorded = Recorded(center, path)
    recorded.handle(Join(0, 1))
    recorded.handle(commit(0, 1, 10))
    recorded.handle(Order(Orders(evaluate=10)))
    recorded.handle(Keep(10))
    recorded.handle(evaluation())
    recorded.handle(Order(Orders(until=20)))
    recorded.handle(Report(0, "state", 2, 0, 1, b"state"))
    recorded.handle(commit(0, 2, 10))
    recorded.handle(Write(np.full(3, 7, np.float32)))
    recorded.handle(Order(Orders(until=30), 0))
    recorded.handle(Join(0, 1))
    recorded.handle(commit(0, 3, 10))
    recorded.close()
    seen = []
    replayed = replay(path, on_step=lambda step, _: seen.append([each.reply for each in step.told]))
    assert replayed.center.tolist() == center.snapshot().tolist() == [8, 8, 8]
    assert seen[1:6] == [[], ["Done"], ["Done", "Exchanged"], [], ["Done", "Done"]]
    assert seen[6] == ["Done"]
    assert seen[7:] == [[], ["Done"], ["Done", "Rejoin"], ["Joined"], []]

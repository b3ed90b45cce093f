"""What the center does with rounds, replacements, repeated and senseless commits, whatever the rule."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from distkeras.algorithms import AEASGD, DCASGD, DOWNPOUR, EASGD, DynSGD, LocalSGD, SlowMo
from distkeras.center import BadUpdates, Center, CenterConfig, ProtocolError
from distkeras.center.answers import Done, Exchanged, Refused, Rejoin
from distkeras.center.bad_updates import is_finite
from distkeras.center.requests import DRIVER, Beat, Exchange, Fail, Join, Leave, Poll, Pull
from distkeras.events import UpdateRefused, Window, WorkerFailed, WorkerJoined, WorkerLeft, WorkerLost


def start(algorithm, initial=(0.0,), num_workers=3, num_shards=None, **options):
    """Return a center that all workers have joined."""
    config = CenterConfig(algorithm, num_workers, **options)
    center = Center(config, np.array(initial, np.float32), clock=lambda: 7.0, num_shards=num_shards)
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def message(worker, sequence, value, *, samples=1, steps=1, epoch=0, step=0):
    return Exchange(worker, sequence, steps, samples, epoch, step, np.atleast_1d(np.float32(value)))


def answered(answers):
    return [worker for worker, _ in answers]


def value(center):
    return float(center.snapshot()[0])


# Synchronous rounds.


def test_round_waits_for_every_worker_and_answers_all_at_once():
    center = start(LocalSGD())
    assert center.handle(message(1, 1, 3.0)) == []
    assert center.handle(message(0, 1, 6.0)) == []
    assert value(center) == 0.0
    assert center.num_updates == 0
    answers = center.handle(message(2, 1, 0.0))
    assert answered(answers) == [0, 1, 2]
    assert [float(answer.reply[0]) for _, answer in answers] == [3.0, 3.0, 3.0]
    assert value(center) == 3.0
    assert center.num_updates == 1


def test_round_does_not_depend_on_the_order_of_arrival():
    values = {0: 0.1, 1: 1e7, 2: -0.3}
    centers = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        center = start(SlowMo())
        for worker in order:
            center.handle(message(worker, 1, values[worker], samples=worker + 1))
        centers.add(center.snapshot().tobytes())
    assert len(centers) == 1


def test_quorum_completes_a_round_and_the_late_message_counts_in_the_next():
    center = start(LocalSGD(), quorum=2)
    center.handle(message(0, 1, 2.0))
    assert answered(center.handle(message(2, 1, 4.0))) == [0, 2]
    assert value(center) == 3.0
    assert center.handle(message(1, 1, 10.0)) == []
    answers = center.handle(message(0, 2, 2.0))
    assert [(worker, answer.staleness) for worker, answer in answers] == [(0, 0), (1, 1)]
    assert value(center) == 3.0 + (2 + 10) / 2


def test_quorum_that_live_workers_cannot_reach_is_lowered_to_them():
    center = start(LocalSGD(), quorum=3)
    center.handle(Leave(0))
    center.handle(message(1, 1, 2.0))
    assert answered(center.handle(message(2, 1, 4.0))) == [1, 2]


@pytest.mark.parametrize(("algorithm", "quorum"), [(LocalSGD(), 0), (LocalSGD(), 4), (DOWNPOUR(), 1)])
def test_senseless_quorum_is_refused(algorithm, quorum):
    with pytest.raises(ValueError, match=f"Received: quorum={quorum}, num_workers=3"):
        start(algorithm, quorum=quorum)


def test_worker_that_leaves_completes_the_round_of_the_others():
    center = start(LocalSGD())
    center.handle(message(0, 1, 2.0))
    center.handle(message(1, 1, 4.0))
    answers = center.handle(Leave(2))
    assert answers[0] == (2, Done())
    assert answered(answers) == [2, 0, 1]
    assert value(center) == 3.0


def test_rejoining_worker_takes_its_unanswered_message_back():
    center = start(LocalSGD())
    center.handle(message(0, 1, 100.0))
    center.handle(message(1, 1, 4.0))
    ((_, joined),) = center.handle(Join(0, attempt=1))
    assert joined.sequence == 0
    assert center.handle(message(2, 1, 2.0)) == []
    answers = center.handle(message(0, 1, 6.0))
    assert answered(answers) == [0, 1, 2]
    assert value(center) == 4.0


def test_message_resent_into_an_open_round_counts_once():
    center = start(LocalSGD())
    for _ in range(3):
        assert center.handle(message(0, 1, 3.0)) == []
    center.handle(message(1, 1, 6.0))
    assert answered(center.handle(message(2, 1, 0.0))) == [0, 1, 2]
    assert value(center) == 3.0
    ((_, answer),) = center.handle(message(0, 1, 3.0))
    assert answer.restart
    assert float(answer.reply[0]) == 3.0
    assert value(center) == 3.0


def test_round_of_easgd_answers_with_the_center_before_it():
    center = start(EASGD(alpha=0.25), num_workers=2)
    center.handle(message(0, 1, 1.0))
    answers = center.handle(message(1, 1, 3.0))
    assert [float(answer.reply[0]) for _, answer in answers] == [0.0, 0.0]
    assert value(center) == 1.0


def test_center_fills_in_what_depends_on_the_number_of_workers():
    assert start(EASGD(), num_workers=3).algorithm.alpha == pytest.approx(0.3)


# Exactly once.


def test_replacement_is_told_where_its_predecessor_stood():
    center = start(DOWNPOUR())
    center.handle(message(1, 1, 1.0, epoch=0, step=5))
    center.handle(message(1, 2, 1.0, epoch=2, step=3))
    ((_, joined),) = center.handle(Join(1, attempt=1))
    assert (joined.sequence, joined.epoch, joined.step) == (2, 2, 3)
    assert float(joined.center[0]) == 2.0


def test_repeated_commit_is_answered_with_the_whole_center_and_resets_the_staleness():
    center = start(DynSGD())
    center.handle(message(0, 1, 1.0))
    center.handle(message(1, 1, 1.0))
    ((_, answer),) = center.handle(message(0, 1, 1.0))
    assert answer.restart
    assert float(answer.reply[0]) == 1.5
    ((_, answer),) = center.handle(message(0, 2, 1.0))
    assert answer.staleness == 0
    assert value(center) == 2.5


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("sequence", [-1, 0, 2])
def test_commit_out_of_sequence_is_refused(algorithm, sequence):
    center = start(algorithm)
    with pytest.raises(ProtocolError, match=f"Expected commit 1 of worker 0. Received: {sequence}"):
        center.handle(message(0, sequence, 1.0))
    assert value(center) == 0.0


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD()], ids=lambda rule: rule.name)
def test_worker_that_has_not_joined_is_told_to_and_loses_nobody_elses_commit(algorithm):
    center = Center(CenterConfig(algorithm, 2), np.zeros(1, np.float32), clock=lambda: 7.0)
    center.handle(Join(0))
    center.handle(message(0, 1, 2.0))
    assert center.handle(message(1, 1, 1.0)) == [(1, Rejoin())]
    assert center.handle(Leave(1)) == [(1, Rejoin())]
    center.handle(Join(1))
    center.handle(message(1, 1, 4.0))
    assert value(center) == (3.0 if algorithm.synchronous else 6.0)


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD()], ids=lambda rule: rule.name)
def test_commit_of_a_worker_that_has_left_does_not_count_until_it_joins_again(algorithm):
    center = start(algorithm, num_workers=2)
    center.handle(Leave(1))
    assert center.handle(message(1, 1, 1.0)) == [(1, Rejoin())]
    center.handle(Join(1, attempt=1))
    center.handle(message(1, 1, 4.0))
    center.handle(message(0, 1, 2.0))
    assert value(center) == (3.0 if algorithm.synchronous else 6.0)


def test_worker_that_leaves_a_round_it_is_in_takes_its_message_back():
    center = start(LocalSGD(), num_workers=2)
    center.handle(message(1, 1, 100.0))
    assert center.handle(Leave(1)) == [(1, Done())]
    assert answered(center.handle(message(0, 1, 2.0))) == [0]
    assert value(center) == 2.0


@pytest.mark.parametrize("worker", [-1, 3])
@pytest.mark.parametrize("request_of", [Join, Leave, lambda worker: message(worker, 1, 1.0)])
def test_unknown_worker_is_refused(worker, request_of):
    with pytest.raises(ProtocolError, match=rf"0..2. Received: worker={worker}"):
        start(DOWNPOUR()).handle(request_of(worker))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_message_of_another_size_is_refused(size):
    center = start(DOWNPOUR(), initial=(1.0, 2.0))
    with pytest.raises(ProtocolError, match="Expected 2 elements"):
        center.handle(message(0, 1, np.ones(size)))
    np.testing.assert_array_equal(center.snapshot(), [1.0, 2.0])


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD()], ids=lambda rule: rule.name)
@pytest.mark.parametrize(("steps", "samples"), [(0, 1), (-1, 5), (1, -2)])
def test_window_without_a_step_is_refused(algorithm, steps, samples):
    center = start(algorithm, num_workers=1)
    with pytest.raises(ProtocolError, match="at least one step"):
        center.handle(message(0, 1, 1.0, steps=steps, samples=samples))
    assert value(center) == 0.0


def test_messages_of_no_samples_weigh_alike():
    center = start(LocalSGD(), num_workers=2)
    center.handle(message(0, 1, 2.0, samples=0))
    center.handle(message(1, 1, 4.0, samples=0))
    assert value(center) == 3.0


# Poison.


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), AEASGD(), LocalSGD()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 3], ids=["in the weights", "in the statistics"])
def test_message_that_is_not_finite_is_refused_and_changes_nothing(algorithm, poison, at):
    center = start(algorithm, initial=np.ones(4), num_workers=1, num_trainable=3)
    values = np.full(4, 2.0, np.float32)
    ((_, answer),) = center.handle(message(0, 1, np.where(np.arange(4) == at, poison, values)))
    assert answer == Refused("the message holds NaN or infinity")
    np.testing.assert_array_equal(center.snapshot(), np.ones(4))
    assert center.num_updates == 0
    ((_, answer),) = center.handle(message(0, 1, values))  # the number is free for a sound one
    assert isinstance(answer, Exchanged)


def test_infinities_that_cancel_are_refused():
    center = start(DOWNPOUR(), initial=(0.0, 0.0))
    ((_, answer),) = center.handle(message(0, 1, [np.inf, -np.inf]))
    assert isinstance(answer, Refused)


def test_a_bad_update_is_passed_over_where_that_is_chosen_and_its_worker_goes_on_from_the_center():
    center = start(DOWNPOUR(), num_workers=2, bad_updates=BadUpdates("skip"))
    center.handle(message(1, 1, 3.0))
    ((_, answer),) = center.handle(message(0, 1, np.nan, epoch=0, step=5))
    assert (answer.reason, answer.center.tolist()) == ("the message holds NaN or infinity", [3.0])
    ((_, answer),) = center.handle(message(0, 2, 1.0))
    assert (answer.staleness, value(center), center.num_updates) == (0, 4.0, 2)
    events = center.handle(Poll(0))[0][1].events
    assert [event for event in events if isinstance(event, UpdateRefused)] == [
        UpdateRefused(0, 0, 0, "the message holds NaN or infinity", 7.0)
    ]
    assert [event.iteration for event in events if isinstance(event, Window) and event.worker == 0] == [1]


def test_a_replacement_does_not_train_a_window_again_that_was_passed_over():
    center = start(DOWNPOUR(), num_workers=1, bad_updates=BadUpdates("skip"))
    center.handle(message(0, 1, np.inf, epoch=0, step=5))
    ((_, joined),) = center.handle(Join(0, attempt=1))
    assert (joined.sequence, joined.step) == (1, 5)


def test_bad_updates_one_after_the_other_are_not_passed_over_for_ever():
    center = start(DOWNPOUR(), num_workers=1, bad_updates=BadUpdates("skip", limit=2))
    kinds = []
    for sequence, number in enumerate([np.nan, np.nan, 1.0, np.nan, np.nan, np.nan], start=1):
        ((_, answer),) = center.handle(message(0, sequence, number))
        kinds.append(type(answer).__name__)
    assert kinds == ["Skipped", "Skipped", "Exchanged", "Skipped", "Skipped", "Refused"]
    assert "after 2 skipped windows" in answer.reason


def test_a_loss_that_is_no_number_is_a_bad_update():
    center = start(DOWNPOUR(), num_workers=1)
    ((_, answer),) = center.handle(replace(message(0, 1, 1.0), metrics={"loss": np.nan}))
    assert answer == Refused("the loss became nan")
    assert value(center) == 0.0


def test_a_message_that_is_too_large_is_a_bad_update():
    center = start(DOWNPOUR(), initial=(0.0, 0.0), bad_updates=BadUpdates(max_norm=5.0))
    assert isinstance(center.handle(message(0, 1, [3.0, 4.0]))[0][1], Exchanged)
    ((_, answer),) = center.handle(message(0, 2, [3.0, 4.1]))
    assert answer == Refused("the norm of the message is 5.08, which is more than max_norm=5")


def test_a_round_waits_for_the_next_window_of_a_worker_whose_message_was_passed_over():
    center = start(LocalSGD(), num_workers=2, bad_updates=BadUpdates("skip"))
    center.handle(message(0, 1, 4.0))
    assert answered(center.handle(message(1, 1, np.nan))) == [1]
    assert answered(center.handle(message(1, 2, 2.0))) == [0, 1]
    assert value(center) == 3.0


@pytest.mark.parametrize("options", [{"action": "ignore"}, {"max_norm": 0.0}, {"limit": 0}], ids=str)
def test_senseless_options_for_bad_updates_are_refused(options):
    with pytest.raises(ValueError, match='Expected "raise" or "skip"'):
        BadUpdates(**options)


# Lost workers.


def test_a_lost_worker_is_reported_once_and_its_round_waits():
    center = start(LocalSGD(), num_workers=2)
    center.handle(message(0, 1, 4.0))
    assert center.mark_lost(1, 30.0) == []
    assert center.mark_lost(1, 60.0) == []
    assert [e for e in center.handle(Poll(0))[0][1].events if isinstance(e, WorkerLost)] == [
        WorkerLost(1, 30.0, 7.0)
    ]
    assert answered(center.handle(message(1, 1, 2.0))) == [0, 1]


@pytest.mark.parametrize("sign", [Beat(1), message(1, 1, 10.0), Join(1, 1)], ids=lambda s: type(s).__name__)
def test_a_round_goes_on_without_a_lost_worker_where_that_is_chosen_until_it_is_heard_again(sign):
    center = start(LocalSGD(), num_workers=2, without_lost=True)
    assert center.handle(message(0, 1, 4.0)) == []
    assert answered(center.mark_lost(1, 30.0)) == [0]
    assert answered(center.handle(message(0, 2, 6.0))) == [0]
    assert value(center) == 4.0 + 6.0
    center.handle(sign)
    last = center.handle(message(0, 3, 8.0))
    assert answered(last) == ([0, 1] if isinstance(sign, Exchange) else [])


def test_a_worker_that_has_left_cannot_be_lost():
    center = start(DOWNPOUR())
    center.handle(Leave(1))
    assert center.mark_lost(1, 30.0) == []
    assert not any(isinstance(event, WorkerLost) for event in center.handle(Poll(0))[0][1].events)


# The centers that workers hold.


def live_versions(center):
    return {id(held) for shard in center.shards for kept in shard._received.values() for held in kept}


def test_center_keeps_at_most_one_version_a_worker():
    center = start(DCASGD(), initial=(0.0,), num_workers=4)
    assert len(live_versions(center)) == 1
    random, sequence = np.random.default_rng(3), [0] * 4
    for _ in range(60):
        worker = int(random.integers(4))
        sequence[worker] += 1
        center.handle(message(worker, sequence[worker], 0.1))
        assert len(live_versions(center)) <= 4
    for worker in range(4):
        center.handle(Leave(worker))
    assert live_versions(center) == set()


def test_rule_that_asks_sees_the_center_its_worker_received_unchanged():
    seen = []

    class Watching(DCASGD):
        def apply(self, center, message, commit, state):
            seen.append((commit.worker, float(commit.pulled[0]), commit.pulled.flags.writeable))
            return super().apply(center, message, commit, state)

    center = start(Watching(lambda_=0.0), num_workers=2)
    center.handle(message(0, 1, 1.0))
    center.handle(message(0, 2, 1.0))
    center.handle(message(1, 1, 1.0))
    center.handle(message(0, 3, 1.0))
    assert seen == [(0, 0.0, False), (0, 1.0, False), (1, 0.0, False), (0, 2.0, False)]


def test_rule_that_does_not_ask_costs_no_copy_of_the_center():
    assert live_versions(start(DOWNPOUR())) == set()


# Reports.


def test_events_tell_the_job_and_are_forgotten_once_read():
    center = start(DOWNPOUR(), num_workers=1)
    center.handle(message(0, 1, 1.0, samples=32, steps=5))
    center.handle(Fail(0, "Traceback"))
    center.handle(Leave(0))
    ((worker, polled),) = center.handle(Poll(0))
    assert worker == DRIVER
    assert polled.events == [
        WorkerJoined(0, 0, 0, 0, 7.0),
        Window(0, 0, 0, 5, 32, {}, 0, 7.0, number=1),
        WorkerFailed(0, "Traceback", 7.0),
        WorkerLeft(0, 7.0),
    ]
    assert (polled.next, polled.num_updates) == (4, 1)
    assert center.handle(Poll(2))[0][1].events == polled.events[2:]
    assert center.handle(Poll(4))[0][1].events == []


def test_pull_of_the_driver_is_a_copy():
    center = start(DOWNPOUR())
    center.handle(message(0, 1, 1.0))
    ((worker, pulled),) = center.handle(Pull())
    assert (worker, float(pulled.center[0]), pulled.num_updates) == (DRIVER, 1.0, 1)
    pulled.center[:] = 5
    assert value(center) == 1.0


# Threads.


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD()], ids=lambda rule: rule.name)
def test_workers_in_threads_lose_no_commit(algorithm):
    num_workers, num_commits = 4, 50
    center = start(algorithm, initial=np.zeros(64), num_workers=num_workers, num_shards=4)
    turns = [threading.Event() for _ in range(num_workers)]

    def work(worker):
        template = message(worker, 1, np.ones(64))
        for sequence in range(1, num_commits + 1):
            turns[worker].clear()
            request = replace(template, sequence=sequence, message=np.ones(64, np.float32))
            for other in answered(center.handle(request)):
                turns[other].set()
            assert turns[worker].wait(30)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    total = num_commits if algorithm.synchronous else num_commits * num_workers
    np.testing.assert_array_equal(center.snapshot(), np.full(64, total, np.float32))
    assert center.num_updates == total


@pytest.mark.parametrize("element", [1e20, -3e38, 1.0, 0.0])
def test_large_numbers_are_finite(element):
    """Though their squares are not."""
    assert is_finite(np.full(2000, [0.0, element] * 1000, np.float32))


@pytest.mark.parametrize("element", [np.nan, np.inf, -np.inf])
def test_one_element_that_is_not_finite_is_seen_among_many(element):
    vector = np.full(2000, 1e-3, np.float32)
    vector[1234] = element
    assert not is_finite(vector)

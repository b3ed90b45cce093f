"""What a worker reports: its local state with the commits it is due with, and evaluations of kept copies."""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from test_loop import CountingReplica, Killed, ListFeed, caller, make_center, windows_of

from distkeras.algorithms import DOWNPOUR, Sequential
from distkeras.center import restore_snapshot, take_snapshot
from distkeras.center.orders import Orders
from distkeras.center.requests import Exchange, Keep, Order
from distkeras.events import Reported
from distkeras.wire.reports import fetch_report
from distkeras.worker.local_state import LocalState
from distkeras.worker.loop import Loop
from distkeras.worker.reports import Reports

ROWS, BATCHES, EPOCHS = 4 * 32 + 7, 5, 3


class CachedReplica:
    """Its local state is the number of minibatches that it has trained since it began."""

    def __init__(self):
        self.replica = CountingReplica()
        self.replica.sums = None
        self.replica.collect_metrics = self.collect
        self.replica.collected_metrics = lambda: [np.array(self.count, np.float64)]
        self.resets = 0
        self.before = 0

    def collect(self, before=()):
        self.replica.sums = [float(each) for each in before]

    @property
    def count(self):
        return self.before + len(self.replica.trained)

    def local_state(self):
        metrics = [] if self.replica.sums is None else [np.array(self.count, np.float64)]
        return LocalState({"count": np.array(self.count)}, [], metrics)

    def restore(self, state):
        self.before = int(state.variables["count"]) - len(self.replica.trained)

    def reset(self):
        self.resets += 1
        self.before = -len(self.replica.trained)


def train(
    center, state_at, call=None, evaluate=None, sends_state=True, attempt=0, rule=None, clock=lambda: 0.0
):
    """Train as worker 0 with windows of two minibatches; return the replica and its `Reports`."""
    cached, algorithm = CachedReplica(), rule or DOWNPOUR(communication_window=2)
    call = call or caller(center)
    client = SimpleNamespace(call=call)
    connect = lambda: contextlib.nullcontext(SimpleNamespace(call=call))  # noqa: E731 (a connection)
    place, ended_by = (lambda epoch, step: epoch * BATCHES + step), (lambda done: done // BATCHES)
    reports = Reports(client, 0, cached, state_at, place, ended_by, connect, evaluate, sends_state, clock)
    loop = Loop(
        cached.replica,
        ListFeed(BATCHES),
        algorithm,
        call,
        worker=0,
        num_epoch=EPOCHS,
        on_start=reports.start,
        on_orders=lambda orders, epoch, step: reports.obey(orders),
        on_commit=reports.commit,
        on_exchanged=reports.exchanged,
    )
    loop.run(attempt)
    return cached, reports


def after(center, actions):
    """Do what `actions` say after the commits of these numbers, as the driver."""

    def call(request):
        reply = caller(center)(request)
        if isinstance(request, Exchange) and request.sequence in actions:
            actions.pop(request.sequence)()
        return reply

    return call


def reported(center, kind="state"):
    return [
        event.tag
        for event in center.event_log.read(0).events
        if isinstance(event, Reported) and event.kind == kind
    ]


def state_in(center, tag):
    data = fetch_report(SimpleNamespace(call=caller(center)), 0, "state", tag)
    return None if data is None else int(LocalState.of(data).variables["count"])


@pytest.mark.parametrize(
    ("state_at", "tags"), [("never", []), ("epochs", [3, 5, 8]), ("commits", list(range(1, 9)))]
)
def test_state_goes_with_the_commits_that_the_plan_names(state_at, tags):
    center = make_center(DOWNPOUR(communication_window=2))
    train(center, state_at)
    assert reported(center) == tags
    assert state_in(center, 8) == (15 if tags else None)


def test_state_that_is_asked_for_goes_once_with_the_next_commit():
    center = make_center(DOWNPOUR(communication_window=2))
    actions = {
        2: lambda: center.handle(Order(Orders(send_optimizer=1))),
        4: lambda: center.handle(Order(Orders(learning_rate=0.5))),
        6: lambda: center.handle(Order(Orders(send_optimizer=2))),
    }
    train(center, "never", after(center, actions))
    assert reported(center) == [4, 8]  # The answers after the orders tell of them.
    center = make_center(DOWNPOUR(communication_window=2))
    center.handle(Order(Orders(send_optimizer=1)))
    train(center, "commits", sends_state=False)
    assert reported(center) == []


@pytest.mark.parametrize("commits", range(8))
def test_a_replacement_goes_on_from_the_state_of_its_last_commit(commits):
    center, left = make_center(DOWNPOUR(communication_window=2)), itertools.count()

    def call(request):
        if isinstance(request, Exchange) and next(left) == commits:
            raise Killed
        return caller(center)(request)

    with pytest.raises(Killed):
        train(center, "commits", call)
    cached, reports = train(center, "commits", attempt=1)
    assert cached.before == 2 * commits
    assert (cached.count, reports.restored) == (15, commits > 0)
    # The sums of the last epoch, which begins in window 6, go on from those of the dead process.
    assert cached.replica.sums == ([12.0] if commits == 6 else [14.0] if commits == 7 else [])


def test_without_being_asked_state_goes_at_epochs_every_few_seconds_and_where_windows_cannot_be_repeated():
    rule = Sequential(2)
    for actions, seconds, tags in (
        ({}, 0.0, [1, 3, 5, 8]),
        ({5: Orders(learning_rate=0.5)}, 0.0, [1, 3, 5, 7, 8]),  # The answer to the 6th commit tells of it.
        ({6: Orders(until=10**6)}, 0.0, [1, 3, 5, 8]),
        ({}, 2.5, [1, 3, 5, 7, 8]),
    ):
        center = make_center(rule)
        orders = {number: partial(center.handle, Order(order)) for number, order in actions.items()}
        clock = lambda: seconds * len(windows_of(center))  # noqa: B023, E731 (called in this turn)
        train(center, "seconds", after(center, orders), rule=rule, clock=clock)
        assert reported(center) == tags
    center = make_center(DOWNPOUR(communication_window=2))
    train(center, "seconds")  # Whose exchanges change the weights.
    assert reported(center) == list(range(1, 9))


@pytest.mark.parametrize("commits", range(8))
def test_a_replacement_repeats_the_windows_since_the_newest_state(commits):
    center, left, rule = make_center(Sequential(2)), itertools.count(), Sequential(2)

    def call(request):
        if isinstance(request, Exchange) and next(left) == commits:
            raise Killed
        return caller(center)(request)

    with pytest.raises(Killed):
        train(center, "seconds", call, rule=rule)
    cached, reports = train(center, "seconds", attempt=1, rule=rule)
    newest = max((tag for tag in (1, 3, 5, 8) if tag <= commits), default=0)
    assert cached.before == 2 * newest
    assert cached.replica.trained == list(range(2 * newest, 15))
    assert cached.replica.weights.tolist() == [15.0]
    assert (cached.count, reports.restored) == (15, commits > 0)
    assert state_in(center, 8) == 15
    assert len(windows_of(center)) == 8  # None is committed twice.


@pytest.mark.parametrize("commit", [0, 3])
def test_a_worker_goes_back_to_the_state_of_the_commit_that_a_restarted_server_has(commit):
    center = make_center(DOWNPOUR(communication_window=2))
    centers, snapshots = [center], [take_snapshot(center, {})]

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 6 and len(centers) == 1:
            centers.append(make_center(DOWNPOUR(communication_window=2)))
            restore_snapshot(centers[1], snapshots[0])
        reply = caller(centers[-1])(request)
        if isinstance(request, Exchange) and request.sequence == commit and len(centers) == 1:
            snapshots[0] = take_snapshot(center, {})
        return reply

    cached, _ = train(center, "commits", call)
    assert cached.resets == (commit == 0)
    assert cached.count == 15
    assert state_in(centers[1], 8) == 15


def test_without_its_state_a_worker_goes_on_and_says_so(caplog):
    center = make_center(DOWNPOUR(communication_window=2))

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 4:
            raise Killed
        return caller(center)(request)

    with pytest.raises(Killed):
        train(center, "never", call)
    cached, reports = train(center, "commits", attempt=1)
    assert (cached.before, reports.restored) == (0, False)
    assert "no local state of worker 0 after window 2" in caplog.text


def evaluating(judged):
    def evaluate(vector):
        judged.append(float(vector[0]))
        return vector.astype("<f8").tobytes()

    return evaluate


def test_the_copy_that_the_driver_names_is_evaluated_once_between_two_windows():
    center, judged = make_center(DOWNPOUR(communication_window=2)), []
    center.handle(Keep(64))
    actions = {
        3: lambda: center.handle(Order(Orders(evaluate=64))),
        5: lambda: center.handle(Order(Orders(learning_rate=0.5))),
        6: lambda: center.handle(Order(Orders(evaluate=999))),  # No such copy.
    }
    train(center, "never", after(center, actions), evaluating(judged))
    assert judged == [2.0]
    assert reported(center, "evaluation") == [64]
    data = fetch_report(SimpleNamespace(call=caller(center)), 0, "evaluation", 64)
    assert np.frombuffer(data, "<f8").tolist() == [2.0]


def test_a_replacement_evaluates_what_its_predecessor_was_asked_for():
    center, judged = make_center(DOWNPOUR(communication_window=2)), []
    center.handle(Keep(64))
    actions = {3: lambda: center.handle(Order(Orders(evaluate=64)))}

    def dying(vector):
        raise Killed

    with pytest.raises(Killed):
        train(center, "never", after(center, actions), dying)
    train(center, "never", evaluate=evaluating(judged), attempt=1)
    assert judged == [2.0]
    assert reported(center, "evaluation") == [64]

"""The ends of a worker's epochs: windows, states of metrics, local state; and epochs of a number of steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_loop import CountingReplica, Killed, ListFeed, caller, make_center, windows_of

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.requests import MAX_STATES, Exchange
from distkeras.events import EpochEnded
from distkeras.worker.epochs import EpochFeed, EpochPlan
from distkeras.worker.loop import Loop
from distkeras.worker.metric_states import add_states, packed
from distkeras.worker.settings import Task


class MeasuringReplica(CountingReplica):
    """Its metric counts the minibatches of a window."""

    size = 1

    def __init__(self):
        super().__init__()
        self.counted = 0

    def metrics_and_states(self):
        states = [np.full(self.size, len(self.trained) - self.counted, np.float64)]
        self.counted = len(self.trained)
        return self.metrics(), states


def run(algorithm, plan, rows=5, num_epoch=3, feed=None, replica=None, call=None, center=None, **options):
    replica = replica or MeasuringReplica()
    center = center or make_center(algorithm)
    loop = Loop(
        replica,
        feed or ListFeed(rows),
        algorithm,
        call or caller(center),
        worker=0,
        num_epoch=num_epoch,
        plan=plan,
        **options,
    )
    loop.run()
    return replica, center


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (EpochPlan(), [2] * 7 + [1]),
        (EpochPlan(windows_end=True), [2, 2, 1] * 3),
        (EpochPlan(longest_window=1), [1] * 15),
        (EpochPlan(windows_end=True, longest_window=9), [2, 2, 1] * 3),
    ],
)
def test_windows_end_with_epochs_where_the_plan_says_so(plan, steps):
    replica, center = run(DOWNPOUR(communication_window=2), plan)
    assert [window.steps for window in windows_of(center)] == steps
    assert replica.trained == list(range(15))


def test_a_window_of_one_epoch_is_cut_to_the_longest():
    _, center = run(DOWNPOUR(communication_window=None), EpochPlan(windows_end=True, longest_window=3))
    assert [window.steps for window in windows_of(center)] == [3, 2] * 3


def test_the_states_of_windows_add_up_to_those_of_the_epochs():
    rows = 4 * 32 + 7
    center = make_center(DOWNPOUR(communication_window=2), epoch_rows=rows)
    run(DOWNPOUR(communication_window=2), EpochPlan(windows_end=True), center=center, with_states=True)
    ended = [event for event in center.event_log.read(0).events if isinstance(event, EpochEnded)]
    assert [(event.samples, np.frombuffer(event.states).tolist()) for event in ended] == [
        (rows, [5.0]),
        (2 * rows, [5.0]),
        (3 * rows, [5.0]),
    ]


def test_states_that_no_window_can_carry_are_left_out_with_a_word(caplog):
    replica = MeasuringReplica()
    replica.size = MAX_STATES // 8 + 1
    sent = []
    center = make_center(DOWNPOUR(communication_window=2))

    def call(request):
        if isinstance(request, Exchange):
            sent.append(request.states)
        return caller(center)(request)

    run(DOWNPOUR(communication_window=2), EpochPlan(), replica=replica, call=call, with_states=True)
    assert set(sent) == {b""}
    assert caplog.text.count(f"have a state of {MAX_STATES + 8} bytes") == 1


def test_states_add_up_and_those_of_other_metrics_are_refused():
    one, other = packed([np.ones((2, 2)), np.array(3.0)]), packed([np.zeros(4), np.array(0.5)])
    assert np.frombuffer(add_states([one, b"", other]), "<f8").tolist() == [1, 1, 1, 1, 3.5]
    assert add_states([b"", b""]) == b""
    with pytest.raises(ValueError, match=r"the same metrics.*of 5 and of 1 numbers"):
        add_states([one, packed([np.ones(1)])])
    with pytest.raises(ValueError, match=r"8 bytes each. Received: 39 bytes"):
        add_states([one[:-1]])


class CountedFeed(ListFeed):
    """A pass that tells when it is begun."""

    def __init__(self, rows):
        super().__init__(rows)
        self.begun = []

    def epoch(self, epoch, start=0):
        self.begun.append((epoch, start))
        yield from super().epoch(epoch, start)


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 12])
def test_epochs_of_a_number_of_steps_go_on_from_pass_to_pass(steps):
    passes = CountedFeed(5)
    feed = EpochFeed(passes, 5, EpochPlan(steps=steps))
    read = [[minibatch.x for minibatch in feed.epoch(epoch)] for epoch in range(4)]
    assert read == [list(range(epoch * steps, (epoch + 1) * steps)) for epoch in range(4)]
    # Each pass was begun once: its rows may still arrive.
    assert passes.begun == [(number, 0) for number in range(-(-4 * steps // 5))]


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 7])
def test_epochs_within_a_pass_end_with_it(steps):
    passes, plan = CountedFeed(5), EpochPlan(steps=steps, within_pass=True)
    feed, cut = EpochFeed(passes, 5, plan), range(0, 5, steps)
    read = [[minibatch.x for minibatch in feed.epoch(epoch)] for epoch in range(2 * len(cut))]
    places = [(number, first) for number in range(2) for first in cut]
    assert read == [
        [5 * number + place for place in range(first, min(first + steps, 5))] for number, first in places
    ]
    assert plan.num_passes(2 * len(cut), 5) == 2
    for epoch in range(2 * len(cut)):
        begin = plan.begin_of(epoch, 5)
        assert plan.ended_by(begin, 5) == epoch
        assert plan.ended_by(plan.begin_of(epoch + 1, 5) - 1, 5) == epoch
        assert [each.x for each in feed.epoch(epoch, 0)] == read[epoch]


def test_a_replacement_and_a_worker_that_goes_back_find_the_place_in_the_pass():
    feed = EpochFeed(CountedFeed(5), 5, EpochPlan(steps=3))
    for epoch, start in ((3, 1), (1, 0), (1, 2), (0, 0)):
        assert [each.x for each in feed.epoch(epoch, start)] == list(range(3 * epoch + start, 3 * epoch + 3))
    assert list(EpochFeed(CountedFeed(0), 0, EpochPlan(steps=3)).epoch(0)) == []


@pytest.mark.parametrize("commits", range(6))
def test_a_killed_worker_trains_each_minibatch_of_such_epochs_once(commits):
    algorithm, plan = DOWNPOUR(communication_window=2), EpochPlan(windows_end=True, steps=3)
    center, left = make_center(algorithm), itertools.count()

    def call(request):
        if isinstance(request, Exchange) and next(left) == commits:
            raise Killed
        return caller(center)(request)

    feed = EpochFeed(CountedFeed(5), 5, EpochPlan(steps=3))
    with pytest.raises(Killed):
        run(algorithm, plan, feed=feed, center=center, call=call)
    replica, _ = run(algorithm, plan, feed=EpochFeed(CountedFeed(5), 5, EpochPlan(steps=3)), center=center)
    done = [0, 2, 3, 5, 6, 8][commits]
    assert replica.trained == list(range(done, 9))
    assert [window.steps for window in windows_of(center)] == [2, 1] * 3


def make_task(**options):
    algorithm = DOWNPOUR()
    settings = {"center": CenterConfig(algorithm, 1), "rows": (100,), "batch_size": 32, "num_epoch": 4}
    return Task(columns=None, shuffle=False, seed=0, **settings | options)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, (100,) * 4),
        ({"epochs": EpochPlan(steps=4)}, (100,) * 4),
        ({"epochs": EpochPlan(steps=3)}, (96, 4 + 64, 32 + 4 + 32, 64 + 4)),
        ({"epochs": EpochPlan(steps=6)}, (100 + 64, 32 + 4 + 100 + 0 * 64, 100 + 64, 32 + 4 + 100)),
        ({"epochs": EpochPlan(steps=3), "drop_remainder": True}, (96,) * 4),
        ({"epochs": EpochPlan(steps=3, within_pass=True)}, (96, 4) * 2),
        ({"epochs": EpochPlan(steps=9, within_pass=True)}, (100,) * 4),
        ({"center": CenterConfig(DOWNPOUR(), 2), "rows": (40, 33)}, (73,) * 4),
        (
            {"center": CenterConfig(DOWNPOUR(), 2), "rows": (40, 33), "epochs": EpochPlan(steps=1)},
            (64, 9) * 2,
        ),
    ],
)
def test_the_rows_of_each_epoch_are_known_before_the_training(options, rows):
    assert make_task(**options).rows_of_epochs() == rows


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"steps": 0}, "`steps` must be a positive integer, or None. Received: steps=0"),
        ({"longest_window": True}, "`longest_window` must be a positive integer"),
        ({"state": "always"}, "`state` must be one of .*'seconds'.* Received: state='always'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        EpochPlan(**settings)


@pytest.mark.parametrize("plan", [EpochPlan(windows_end=True), EpochPlan(state="commits")])
@pytest.mark.parametrize("center", [CenterConfig(DOWNPOUR(), 2), CenterConfig(DOWNPOUR(), 1, overlap=True)])
def test_what_only_one_worker_can_do_is_refused_for_several(plan, center):
    with pytest.raises(ValueError, match=r"Expected one worker, no overlap.*num_workers="):
        make_task(epochs=plan, center=center, rows=(100,) * center.num_workers)
    make_task(epochs=plan, center=CenterConfig(DOWNPOUR(), 2, independent=True), rows=(100, 100))

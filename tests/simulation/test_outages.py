"""Processes that fail at random times: what they cost, and that every window counts once all the same."""

import dataclasses
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from counting import CountRounds, CountSteps

from distkeras.algorithms import DOWNPOUR, REGISTRY
from distkeras.simulation import Constant, Exponential, Failures, Network, Outages, Quadratic, simulate


def run(rule=None, **options):
    defaults = {
        "num_workers": 4,
        "num_commits": 10**6,
        "learning_rate": 0.1,
        "step_time": Constant(0.5),
        "keep_centers": False,
        "evaluate_every": 10**6,
    }
    return simulate(rule or CountSteps(2), Quadratic(), **defaults | options)


seconds, often = st.floats(0, 5), st.just(math.inf) | st.floats(2, 100)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    num_workers=st.integers(1, 6),
    synchronous=st.booleans(),
    step_time=st.sampled_from([Constant(0.5), Exponential(0.5)]),
    outages=st.builds(
        Outages,
        worker=often,
        worker_restart=seconds,
        server=often,
        server_restart=seconds,
        snapshot=st.floats(0.5, 20),
        job=often,
        job_restart=seconds,
        cut=often,
        cut_restart=seconds,
        together=st.booleans(),
    ),
    failures=st.builds(Failures, crash=st.floats(0, 0.3), lost_reply=st.floats(0, 0.3), timeout=seconds),
    overlap=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_fails_each_window_counts_once_and_time_goes_forward(
    num_workers, synchronous, step_time, outages, failures, overlap, seed
):
    result = run(
        (CountRounds if synchronous else CountSteps)(2),
        num_workers=num_workers,
        num_commits=40,
        until=500.0,
        step_time=step_time,
        network=Network(latency=0.1, service=0.01),
        outages=outages,
        failures=failures,
        overlap=overlap and not synchronous,
        evaluate_every=1,
        keep_centers=True,
        seed=seed,
    )
    assert result.centers[:, 0].tolist() == [1 + 2 * commit for commit in range(result.num_commits + 1)]
    assert result.samples[-1] == 2 * result.num_commits * (num_workers if synchronous else 1)
    assert np.all(np.diff(result.times) > 0)
    assert result.num_commits == 40 or result.times[-1] <= 500.0


@pytest.mark.parametrize("name", REGISTRY)
def test_the_same_seed_fails_at_the_same_times(name):
    def trajectory():
        rule = REGISTRY[name]()
        window = 2 if rule.communication_window is not None else None
        return run(
            dataclasses.replace(rule, communication_window=window),
            num_commits=60,
            until=400.0,
            outages=Outages(worker=30.0, worker_restart=2.0, server=40.0, snapshot=5.0, job=60.0, cut=20.0),
            evaluate_every=1,
            keep_centers=True,
        )

    one, other = trajectory(), trajectory()
    assert one.num_restored + one.num_stopped > 0
    assert one.times.tolist() == other.times.tolist()
    assert one.centers.tobytes() == other.centers.tobytes()


def test_without_outages_nothing_changes():
    one, other = run(until=100.0), run(until=100.0, outages=Outages())
    assert one.times.tolist() == other.times.tolist()
    assert one.samples[-1] == 4 * 2 * 100
    assert (one.num_restored, one.num_stopped, one.num_crashes) == (0, 0, 0)


def test_workers_fail_as_often_as_was_asked_for_and_cost_their_restart_and_their_window():
    calm = run(until=1000.0)
    result = run(until=1000.0, outages=Outages(worker=20.0, worker_restart=2.0))
    # Each lives for 20 s and is gone for 2, and loses half a window of one second.
    assert result.num_crashes == pytest.approx(4 * 1000 / 22, rel=0.2)
    assert result.samples[-1] / calm.samples[-1] == pytest.approx(19.5 / 22, abs=0.03)


def test_a_server_that_fails_loses_what_came_after_its_last_snapshot():
    calm = run(until=1000.0)
    result = run(until=1000.0, outages=Outages(server=40.0, server_restart=2.0, snapshot=10.0))
    assert result.num_restored == pytest.approx(25, rel=0.4)
    # On average the half of 10 s, the restart, and the window that is under way.
    lost = 1 - result.samples[-1] / calm.samples[-1]
    assert lost == pytest.approx((5 + 2 + 1) * result.num_restored / 1000, abs=0.05)
    often = run(until=1000.0, outages=Outages(server=40.0, server_restart=2.0, snapshot=2.0))
    assert often.samples[-1] > 1.05 * result.samples[-1]


def test_a_job_that_fails_loses_the_windows_that_were_trained_and_its_restart():
    calm = run(until=1000.0)
    result = run(until=1000.0, outages=Outages(job=20.0, job_restart=2.0))
    assert result.num_stopped == pytest.approx(50, rel=0.4)
    # It may fail again before it is back: the time between two failures goes on.
    lost = 1 - result.samples[-1] / calm.samples[-1]
    assert lost == pytest.approx((2 + 0.5) * result.num_stopped / 1000, abs=0.05)


def test_a_cut_connection_costs_a_duplicate():
    result = run(until=300.0, outages=Outages(cut=10.0, cut_restart=0.5))
    assert result.num_duplicates == pytest.approx(120, rel=0.3)
    assert result.num_crashes == 0


def test_workers_that_start_together_lose_most_to_each_other():
    outages = Outages(worker=300.0, worker_restart=5.0)
    together = dataclasses.replace(outages, together=True)
    alone, joint, calm = (
        run(rule, num_workers=32, until=100.0, outages=each).samples[-1]
        for rule, each in (
            (CountSteps(2), outages),
            (CountRounds(2), together),
            (CountRounds(2), Outages()),
        )
    )
    assert alone / calm > 0.98
    assert joint / calm < 0.7


def test_a_level_is_how_many_times_as_often_everything_fails():
    outages = Outages(worker=600.0, worker_restart=5.0, server=1200.0, snapshot=7.0, job=1800.0)
    assert outages.times_as_often(3) == Outages(
        worker=200.0, worker_restart=5.0, server=400.0, snapshot=7.0, job=600.0
    )
    with pytest.raises(ValueError, match="level=0"):
        outages.times_as_often(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Outages(worker=0.0), "`worker` must be positive .seconds.. Received: worker=0.0"),
        (lambda: Outages(snapshot=-1.0), "snapshot=-1.0"),
        (lambda: Outages(server=math.nan), "server=nan"),
        (lambda: Outages(job_restart=math.inf), "job_restart=inf"),
        (lambda: Outages(worker_restart=-1.0), "worker_restart=-1.0"),
        (lambda: run(until=0.0), "until=0.0"),
    ],
)
def test_outages_out_of_range_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_rule_learns_through_outages():
    result = simulate(
        DOWNPOUR(communication_window=2),
        Quadratic(),
        num_workers=2,
        num_commits=200,
        learning_rate=0.1,
        outages=Outages(worker=50.0, worker_restart=2.0, server=80.0, snapshot=10.0, job=100.0),
        evaluate_every=200,
    )
    assert result.num_restored
    assert result.losses[-1] < 1e-6

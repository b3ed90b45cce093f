"""Which rules give workers of unequal speed an equal part in the center, where their data differ."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
from driving import Job

from distkeras.algorithms import REGISTRY, RescaledASGD, RingleaderASGD, is_fair
from distkeras.center import restore_snapshot, take_snapshot
from distkeras.center.requests import Leave
from distkeras.center.snapshot import read
from distkeras.simulation import Exponential, Quadratic, simulate

FREQUENCIES = (10.0, 1.0)
BY_FREQUENCY = (10 - 1) / (10 + 1)
"""Where the center comes to rest if a worker's part is its share of the commits: 0.8182."""


@dataclass(frozen=True)
class Opposed(Quadratic):
    """Worker 0 has its optimum at 1, worker 1 at -1: the right answer is 0."""

    start: float = 0.3

    def train(self, weights, num_steps, replica):
        optimum = 1 - 2 * replica.worker
        moved, rows = super().train(weights - np.float32(optimum), num_steps, replica)
        return moved + np.float32(optimum), rows


@dataclass(frozen=True)
class Machines:
    """Worker 0 is ten times as fast as worker 1."""

    def windows(self, num_workers, rng):
        return lambda worker, num_steps: num_steps / FREQUENCIES[worker]


def rest(rule):
    """The mean of the center over the last quarter of 1100 commits."""
    rule = replace(rule, communication_window=1)
    result = simulate(
        rule,
        Opposed(),
        num_workers=2,
        num_commits=1100,
        learning_rate=0.03,
        step_time=Machines(),
        evaluate_every=11,
    )
    return float(result.centers[75:].mean())


ASYNCHRONOUS = [rule() for name, rule in REGISTRY.items() if not rule.synchronous and name != "Sequential"]


def check_fair(rule):
    assert abs(rest(rule)) < 0.05


@pytest.mark.parametrize("rule", ASYNCHRONOUS, ids=lambda rule: rule.name)
def test_fair_rules_come_to_rest_at_the_right_point_and_others_near_the_fast_workers(rule):
    if is_fair(rule):
        check_fair(rule)
    else:
        assert rest(rule) > 0.5


def test_downpour_comes_to_rest_where_the_frequencies_say():
    assert rest(REGISTRY["DOWNPOUR"]()) == pytest.approx(BY_FREQUENCY, abs=0.03)


def test_a_synchronous_rule_is_fair_without_a_quorum():
    assert is_fair(REGISTRY["LocalSGD"]())
    assert not is_fair(REGISTRY["LocalSGD"](), quorum=1)
    assert not is_fair(REGISTRY["DOWNPOUR"]())
    check_fair(REGISTRY["LocalSGD"]())


class OwnCommitsOnly(RescaledASGD):
    """Weighs every worker alike."""

    def apply(self, center, message, commit, state):
        super().apply(center, message.copy(), commit, state)
        center += message
        return center


class WholeTable(RingleaderASGD):
    """Sums the deltas of a worker, in place of their mean."""

    def apply(self, center, message, commit, state):
        return super().apply(center, message * (state["counts"][commit.worker] + 1), commit, state)


@pytest.mark.parametrize("fault", [OwnCommitsOnly, WholeTable])
def test_planted_fault_in_a_fair_rule_is_found(fault):
    with pytest.raises(AssertionError):
        check_fair(fault())


def ringleader(num_workers):
    job = Job(RingleaderASGD(), [0.0], num_workers)

    def commit(worker, delta):
        before = job.weights[0]
        job.local[worker] = job.anchor[worker] + np.float32(delta)
        job.exchange(worker)
        return float(job.weights[0] - before)

    return job, commit


def test_ringleader_does_not_wait_for_a_worker_that_has_left():
    job, commit = ringleader(3)
    assert [commit(0, 1.0), commit(1, 3.0)] == [0, 0]
    job.center.handle(Leave(2))
    assert commit(0, 3.0) == 2.5  # the means are 2 and 3; the next commit completes the table
    job.center.handle(Leave(1))  # before its step
    assert commit(0, 7.0) == 7.0  # alone


def test_ringleader_counts_the_replacement_of_a_worker_as_the_worker():
    job, commit = ringleader(2)
    assert commit(0, 4.0) == 0
    job.join(0)
    assert commit(0, 2.0) == 0
    assert commit(1, 1.0) == 2.0  # (4 + 2) / 2 and 1


def test_a_restored_ringleader_goes_on_in_the_middle_of_its_table():
    (job, commit), (other, commit_other) = ringleader(3), ringleader(3)
    for worker, delta in ((0, 1.0), (1, 2.0), (0, 5.0), (2, 3.0), (2, 8.0), (0, 2.0)):
        commit(worker, delta)
    file = io.BytesIO()
    take_snapshot(job.center, {}).write(file)
    restore_snapshot(other.center, read(io.BytesIO(file.getvalue())), 0)
    for worker in other.workers:
        other.join(worker)
        other.sequence[worker] = job.sequence[worker]
        other.local[worker], other.anchor[worker] = job.local[worker].copy(), job.anchor[worker].copy()
    for worker, delta in ((0, 4.0), (1, 1.0), (2, 2.0), (1, 6.0), (0, 3.0)):
        assert commit(worker, delta) == commit_other(worker, delta)


@pytest.mark.parametrize("num_workers", [2, 5])
def test_the_staleness_of_ringleader_is_at_most_twice_the_workers_less_two(num_workers):
    result = simulate(
        RingleaderASGD(),
        Quadratic(),
        num_workers=num_workers,
        num_commits=400,
        learning_rate=0.01,
        step_time=Exponential(),
        evaluate_every=400,
    )
    assert result.staleness.max() <= 2 * num_workers - 2
    assert result.staleness.max() > num_workers - 1

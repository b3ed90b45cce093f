"""Which rules give workers of unequal speed an equal part in the center, where their data differ."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from distkeras.algorithms import REGISTRY, RescaledASGD, RingleaderASGD, is_fair
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

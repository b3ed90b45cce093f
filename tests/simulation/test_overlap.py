"""Exchanges that overlap the next window: the laws and oracles hold, and staleness counts the late reply."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distkeras.algorithms import (
    ADAG,
    AEASGD,
    DCASGD,
    DOWNPOUR,
    EAMSGD,
    AdaptiveADAG,
    DiLoCo,
    DynSGD,
    GapAware,
    LocalSGD,
    Ringmaster,
    SlowMo,
)
from distkeras.simulation import Constant, Exponential, Failures, Network, Quadratic, simulate

ALONE = [
    DOWNPOUR(5),
    DynSGD(5),
    LocalSGD(5),
    SlowMo(5, outer_momentum=0.0),
    DiLoCo(5, outer_learning_rate=1.0, outer_momentum=0.0),
    Ringmaster(5),
    DCASGD(5),
    GapAware(5),
    ADAG(1),
    AdaptiveADAG(1),
]


def run(rule, num_workers=4, num_commits=60, step_time=None, **options):
    options = {"overlap": True, "learning_rate": 0.05} | options
    return simulate(
        rule,
        Quadratic(curvature=np.full(7, 2.0), start=np.linspace(-1, 1, 7)),
        num_workers=num_workers,
        num_commits=num_commits,
        step_time=step_time or Exponential(),
        **options,
    )


@pytest.mark.parametrize("rule", ALONE, ids=lambda rule: rule.name)
def test_one_worker_that_overlaps_equals_one_that_waits(rule):
    late, prompt = (run(rule, num_workers=1, overlap=overlap) for overlap in (True, False))
    np.testing.assert_allclose(late.centers, prompt.centers, rtol=1e-4, atol=1e-6)
    if not rule.synchronous:
        assert late.staleness.tolist() == [0] * 60


@pytest.mark.parametrize(
    ("rule", "other", "num_workers"),
    [
        (DynSGD(5), DOWNPOUR(5), 1),
        (ADAG(1), DOWNPOUR(1), 4),
        (AdaptiveADAG(5, gamma=math.inf), ADAG(5), 4),
        (SlowMo(5, outer_learning_rate=1.0, outer_momentum=0.0), LocalSGD(5), 4),
        (Ringmaster(5, delay_threshold=math.inf), DOWNPOUR(5), 4),
        (DCASGD(5, lambda_=0.0), DOWNPOUR(5), 4),
        (GapAware(5, learning_rate=math.inf), DOWNPOUR(5), 4),
    ],
    ids=lambda rule: getattr(rule, "name", str(rule)),
)
def test_rules_that_coincide_do_so_with_overlap(rule, other, num_workers):
    np.testing.assert_array_equal(run(rule, num_workers).centers, run(other, num_workers).centers)


@pytest.mark.parametrize("rule", [DOWNPOUR(3), DCASGD(3), AEASGD(3), EAMSGD(3), LocalSGD(3)])
@pytest.mark.parametrize("num_shards", [2, 7])
def test_shards_do_not_change_a_bit(rule, num_shards):
    failures = Failures(crash=0.05, lost_reply=0.05)
    whole, cut = (run(rule, num_shards=shards, failures=failures) for shards in (1, num_shards))
    np.testing.assert_array_equal(whole.centers, cut.centers)
    np.testing.assert_array_equal(whole.staleness, cut.staleness)


@pytest.mark.parametrize("step_time", [Constant(), Exponential()], ids=["constant", "exponential"])
@pytest.mark.parametrize("num_workers", [2, 5])
def test_mean_staleness_is_twice_that_of_workers_that_wait(num_workers, step_time):
    late, prompt = (
        run(DOWNPOUR(1), num_workers, 3000, step_time, learning_rate=0.001, overlap=overlap).staleness.mean()
        for overlap in (True, False)
    )
    assert prompt == pytest.approx(num_workers - 1, rel=0.02)
    assert late == pytest.approx(2 * (num_workers - 1), rel=0.02)


def round_robin(num_workers, gain, num_commits):
    """The center in double precision: window m begins at the center after commit m - 2, plus window m - 1."""
    centers, deltas = [1.0], []
    for commit in range(num_commits):
        begun, own = commit - 2 * num_workers + 1, commit - num_workers
        start = centers[max(begun, 0)] + (deltas[own] if own >= 0 else 0.0)
        deltas.append(-gain * start)
        centers.append(centers[-1] + deltas[-1])
    return np.array(centers)


@pytest.mark.parametrize("num_workers", [2, 4, 8])
@pytest.mark.parametrize("excess", [0.9, 1.1])
def test_round_robin_is_stable_up_to_the_bound_of_its_recursion(num_workers, excess):
    def radius(gain):
        own = np.zeros(2 * num_workers + 1)
        own[0], own[num_workers], own[-1] = 1, gain, gain
        own[1] -= 1
        own[num_workers + 1] -= gain
        return np.abs(np.roots(own)).max()

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) < 1 else (low, middle)
    gain = excess * low
    result = simulate(
        DOWNPOUR(1),
        Quadratic(),
        num_workers=num_workers,
        num_commits=1200,
        learning_rate=gain,
        step_time=Constant(),
        overlap=True,
    )
    expected = round_robin(num_workers, gain, 1200)
    np.testing.assert_allclose(
        result.centers[:, 0], expected[: len(result.centers)], rtol=5e-3, atol=1e-4 * np.abs(expected).max()
    )
    distance = np.abs(result.centers[:, 0])
    assert (distance[-200:].max() > distance[200:400].max()) == (excess > 1)


def test_the_exchange_costs_no_time_while_the_window_is_longer():
    network = Network(latency=1.0, service=0.5)
    waits, overlaps = (
        run(DOWNPOUR(10), 1, 20, Constant(), network=network, overlap=overlap).times[-1]
        for overlap in (False, True)
    )
    assert waits == 20 * (10 + 2.5) - 1.0
    assert overlaps == 20 * 10 + 1.5

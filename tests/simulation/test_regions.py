"""Servers in two levels: with one region they are one level, and regions learn as one job does."""

from __future__ import annotations

import numpy as np
import pytest

from distkeras.algorithms import ADAG, DOWNPOUR, DelayedNesterov, DynSGD, HALoS, LocalSGD, Sequential
from distkeras.simulation import Exponential, Network, Outages, Quadratic, Regions, simulate

PROBLEM = Quadratic(curvature=(0.5, 1.0), noise=0.1)
OPTIONS = {"learning_rate": 0.05, "seed": 4}


def one_level(rule, num_commits):
    return simulate(rule, PROBLEM, num_workers=4, num_commits=num_commits, step_time=Exponential(), **OPTIONS)


@pytest.mark.parametrize(
    "rule", [DOWNPOUR(2), DynSGD(3), DelayedNesterov(2, period=4)], ids=lambda rule: rule.name
)
def test_one_region_is_its_own_job(rule):
    """The global server takes what the region has, after every tenth commit of its workers."""
    quiet = Quadratic(curvature=(0.5, 1.0))  # Regions have random generators of their own.
    regions = Regions(quiet, rule, 4, Exponential())
    ours = simulate(Sequential(10), regions, num_workers=1, num_commits=6, step_time=regions, **OPTIONS)
    theirs = simulate(rule, quiet, num_workers=4, num_commits=60, step_time=Exponential(), **OPTIONS)
    np.testing.assert_array_equal(ours.centers, theirs.centers[::10])
    np.testing.assert_allclose(ours.times, theirs.times[::10])
    assert ours.samples.tolist() == theirs.samples[::10].tolist()


def test_regions_learn_over_a_slow_network_as_fast_as_over_a_fast_one():
    local = DelayedNesterov(2, outer_learning_rate=0.8, period=4)

    def run(latency):
        regions = Regions(PROBLEM, local, 4, Exponential())
        return simulate(
            HALoS(8),
            regions,
            num_workers=3,
            num_commits=150,
            step_time=regions,
            network=Network(latency=latency),
            **OPTIONS,
        )

    fast, slow = run(0.0), run(5.0)
    assert fast.losses[-1] < 0.05 * fast.losses[0]
    assert slow.losses[-1] < 0.05 * slow.losses[0]
    assert slow.bytes_sent == fast.bytes_sent  # a message of each region in 8 commits of its workers
    assert slow.times[-1] > fast.times[-1]
    assert fast.samples[-1] == 150 * 8 * 2


def test_the_same_seed_gives_the_same_regions_also_where_they_fail():
    def run():
        regions = Regions(PROBLEM, ADAG(2), 4, Exponential())
        return simulate(
            HALoS(8),
            regions,
            num_workers=3,
            num_commits=60,
            step_time=regions,
            outages=Outages(worker=60.0, worker_restart=5.0),
            **OPTIONS,
        )

    one, other = run(), run()
    assert one.num_crashes
    assert one.centers.tobytes() == other.centers.tobytes()


def test_what_diverges_in_a_region_ends_the_run():
    regions = Regions(PROBLEM, DOWNPOUR(2), 4, Exponential())
    options = OPTIONS | {"learning_rate": 1.9}
    result = simulate(HALoS(64), regions, num_workers=2, num_commits=100, step_time=regions, **options)
    assert result.diverged
    assert np.isfinite(result.center).all()


def test_regions_refuse_what_they_cannot_simulate():
    for rule in (LocalSGD(), DOWNPOUR(None)):
        with pytest.raises(ValueError, match="asynchronous algorithm with a `communication_window` in steps"):
            Regions(PROBLEM, rule, 4)
    with pytest.raises(ValueError, match="the same `Regions`"):
        simulate(HALoS(8), Regions(PROBLEM, DOWNPOUR(1), 4), num_workers=2, num_commits=3, **OPTIONS)

"""Windows that are dropped at once because they have become too stale: Ringmaster's `stop`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from test_vectorized import Together

from distkeras.algorithms import DISCARD, DOWNPOUR, TAKE, Ringmaster
from distkeras.simulation import Failures, Heterogeneous, Network, Outages, Quadratic, simulate


@dataclass(frozen=True)
class Paces:
    """Each worker needs a time of its own for a step."""

    seconds: tuple[float, ...] = (2.0, 3.5, 10.0)

    def windows(self, num_workers, rng):
        return lambda worker, num_steps: self.seconds[worker] * num_steps


class StopsTooLate(Ringmaster):
    def decide(self, commit):
        return DISCARD if commit.staleness > self.threshold(commit.num_workers) else TAKE


class StopsNobody(Ringmaster):
    stops = False


# R 2, rate 0.5, f = w^2 / 2: at 3.5 C is dropped; at 6 B and C; at 9.5 C.
TIMES = [0, 2, 3.5, 3.5, 4, 6, 6, 6, 8, 9.5, 9.5]
WORKERS = [0, 1, 2, 0, 0, 1, 2, 0, 1, 2]
CENTERS = [1, 0.5, 0, 0, -0.25, -0.125, -0.125, -0.125, -0.0625, 0, 0]
STALENESS = [0, 1, 2, 1, 0, 2, 2, 0, 1, 2]


def follows_the_paper(rule):
    result = simulate(rule, Quadratic(), num_workers=3, num_commits=10, learning_rate=0.5, step_time=Paces())
    found = [each.tolist() for each in (result.times, result.workers, result.centers.ravel())]
    return [*found, result.staleness.tolist()] == [TIMES, WORKERS, CENTERS, STALENESS]


def test_a_stale_worker_starts_anew_from_the_center_as_computed_by_hand():
    assert follows_the_paper(Ringmaster(1, delay_threshold=2, stop=True))


@pytest.mark.parametrize("fault", [StopsTooLate, StopsNobody])
def test_a_planted_fault_breaks_the_trajectory(fault):
    assert not follows_the_paper(fault(1, delay_threshold=2, stop=True))


def test_dropped_windows_train_no_rows_and_the_lost_time_counts():
    """B trains 6 to 9.5 after its stop at 6; without stop it would have committed at 7."""
    options = {"num_workers": 3, "learning_rate": 0.5, "step_time": Paces()}
    stopped, ended = (
        simulate(Ringmaster(1, delay_threshold=2, stop=stop), Quadratic(), num_commits=10, **options)
        for stop in (True, False)
    )
    assert stopped.samples.tolist() == [0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 6]
    assert ended.times[:6].tolist() == [0, 2, 3.5, 4, 6, 7]


STORM = {
    "step_time": Heterogeneous(machine_variation=1.0),
    "network": Network(latency=0.2, service=0.01),
    "failures": Failures(crash=0.05, straggle=0.1, lost_reply=0.05),
    "outages": Outages(worker=60, server=80, job=200, cut=50),
}


def test_a_problem_that_trains_windows_together_has_the_same_trajectory_under_stops():
    settings = {"curvature": (0.5, 1.0), "noise": 0.3}
    rule = Ringmaster(4, delay_threshold=6, stop=True)
    one, other = (
        simulate(rule, problem, num_workers=8, num_commits=300, learning_rate=0.02, seed=3, **STORM)
        for problem in (Quadratic(**settings), Together(**settings))
    )
    assert one.centers.tobytes() == other.centers.tobytes()
    assert min(one.num_crashes, one.num_restored, one.num_duplicates) > 0
    dropped = np.diff(one.samples) == 0
    assert 10 < dropped.sum() < 200


@pytest.mark.parametrize("network", [None, Network(latency=0.2)])
def test_no_window_that_is_as_stale_as_the_threshold_is_taken_or_trained_to_its_end(network):
    """With a latency, what is sent before the word arrives is discarded as without `stop`."""
    rule = Ringmaster(3, delay_threshold=5, stop=True)
    result = simulate(
        rule,
        Quadratic(noise=0.1),
        num_workers=12,
        num_commits=400,
        learning_rate=0.01,
        step_time=Heterogeneous(machine_variation=1.0),
        network=network,
    )
    late, rows = result.staleness >= 5, np.diff(result.samples)
    assert late.sum() > 50
    assert not np.diff(result.centers.ravel())[late].any()
    assert set(rows[~late]) == {3}
    if network is None:
        assert set(result.staleness[late]) == {5}
        assert not rows[late].any()


def test_without_a_threshold_it_is_downpour_bit_for_bit():
    stops = Ringmaster(2, delay_threshold=math.inf, stop=True)
    one, other = (
        simulate(rule, Quadratic(noise=0.2), num_workers=8, num_commits=100, learning_rate=0.02, **STORM)
        for rule in (stops, DOWNPOUR(2))
    )
    assert one.centers.tobytes() == other.centers.tobytes()


def test_stops_are_refused_where_workers_do_not_wait_or_would_keep_an_epoch():
    for window, stop in ((None, True), (1, 1), (1, None)):
        with pytest.raises(ValueError, match=r"`stop` of Ringmaster .*`communication_window` in steps"):
            Ringmaster(window, stop=stop)
    for overlap in (True, 2):
        with pytest.raises(ValueError, match=r"Workers drop a window.*overlap="):
            simulate(Ringmaster(4, stop=True), Quadratic(), num_workers=2, num_commits=2, overlap=overlap)

"""Windows by worker: the speeds decide them, equal speeds change nothing, and staleness evens out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, DelayedNesterov, DyLU, FedBuff, LocalSGD, window_by_speed
from distkeras.record import replay
from distkeras.simulation import Constant, Failures, Heterogeneous, Network, Outages, Quadratic, simulate

PROBLEM = Quadratic(curvature=(0.5, 1.0), noise=0.1)


def test_windows_are_in_proportion_to_the_speeds():
    speeds = dict(enumerate((10.0, 5.0, 3.0, 1.0)))
    assert [window_by_speed(50, worker, speeds) for worker in range(4)] == [50, 25, 15, 5]
    assert DyLU().window(2, speeds) == 15
    assert window_by_speed(50, 4, speeds) == 50  # unknown, such as a replacement
    assert window_by_speed(5, 0, {0: 0.1, 1: 10.0}) == 1  # at least one step
    assert window_by_speed(50, 1, {0: 0.1 + 0.2, 1: 0.3}) == 50  # equal but for the last bit


def test_a_window_of_an_epoch_has_no_parts():
    with pytest.raises(ValueError, match="of DyLU must be a number of minibatch steps"):
        DyLU(communication_window=None)


@dataclass(frozen=True)
class DynamicLocalSGD(LocalSGD):
    """A synchronous rule whose workers end their windows together."""

    def window(self, worker, speeds):
        return window_by_speed(self.communication_window, worker, speeds)


@dataclass(frozen=True)
class DynamicFedBuff(FedBuff):
    """FedBuff whose slow workers have short windows."""

    def window(self, worker, speeds):
        return window_by_speed(self.communication_window, worker, speeds)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(
    ("dynamic", "fixed"),
    [
        (DyLU(7), DelayedNesterov(7)),
        (DynamicLocalSGD(7), LocalSGD(7)),
        (DynamicFedBuff(7), FedBuff(7)),
    ],
    ids=lambda rule: rule.name,
)
def test_equal_speeds_leave_the_trajectory_as_it_is(dynamic, fixed, overlap):
    options = {
        "num_workers": 5,
        "num_commits": 60,
        "learning_rate": 0.05,
        "step_time": Constant(0.1),
        "network": Network(latency=0.2, service=0.05),
        "failures": Failures(crash=0.05, lost_reply=0.05),
        "overlap": overlap,
        "seed": 3,
    }
    ours, theirs = (simulate(rule, PROBLEM, **options) for rule in (dynamic, fixed))
    assert ours.centers.tobytes() == theirs.centers.tobytes()
    assert ours.times.tobytes() == theirs.times.tobytes()


@dataclass(frozen=True)
class Still(Quadratic):
    """Only the times of its windows count."""

    def train(self, weights, num_steps, replica):
        return weights, num_steps


def staleness(rule, seed):
    """The staleness on 64 unequal machines, after the first windows of all, which are equal."""
    result = simulate(
        rule,
        Still(),
        num_workers=64,
        num_commits=2000,
        step_time=Heterogeneous(),
        evaluate_every=2000,
        seed=seed,
    )
    return result.staleness[1000:]


def test_windows_by_speed_even_out_the_staleness_of_unequal_machines():
    fixed, dynamic = (
        [staleness(rule, seed) for seed in range(2)] for rule in (DelayedNesterov(50), DyLU(50))
    )
    for equal, by_speed in zip(fixed, dynamic, strict=True):
        assert equal.std() > 25
        assert by_speed.std() < 12
        assert by_speed.max() < 0.5 * equal.max()
        assert equal.mean() == pytest.approx(by_speed.mean(), abs=2)  # about N - 1 in any case


@dataclass(frozen=True)
class Timed(DOWNPOUR):
    """A worker commits about every `seconds`, as in ADSP (Hu et al. 2019)."""

    seconds: float = 10.0

    def window(self, worker, speeds):
        return max(1, round(speeds[worker] * self.seconds)) if worker in speeds else 1


def test_a_rule_may_give_every_worker_the_same_time_to_its_next_commit():
    machines = (1.0, 2.0, 5.0)

    @dataclass(frozen=True)
    class Machines:
        def windows(self, num_workers, rng):
            return lambda worker, num_steps: machines[worker] * num_steps

    result = simulate(
        Timed(), PROBLEM, num_workers=3, num_commits=30, learning_rate=0.01, step_time=Machines()
    )
    commits = np.bincount(result.workers)
    assert commits.max() - commits.min() <= 2
    times = np.array([result.times[1:][result.workers == worker][2:5] for worker in range(3)])
    np.testing.assert_allclose(np.diff(times), 10.0)  # windows of 10, 5 and 2 steps


def test_a_crash_and_a_restarted_server_leave_the_windows_in_order(tmp_path):
    """The record of such a run is replayed to the same bits."""
    path = str(tmp_path / "run.record")
    result = simulate(
        DyLU(20),
        PROBLEM,
        num_workers=4,
        num_commits=60,
        learning_rate=0.01,
        step_time=Heterogeneous(),
        outages=Outages(worker=100.0, server=100.0, snapshot=20.0, cut=80.0),
        overlap=True,
        record=path,
        seed=5,
    )
    assert result.num_restored
    assert result.num_crashes
    assert replay(path).center.tobytes() == result.center.tobytes()
    steps = []
    replay(path, on_step=lambda step, _: steps.append(getattr(step.request, "num_steps", 20)))
    assert len(set(steps)) > 3


def test_dylu_is_a_rule_of_its_own_beside_delayed_nesterov():
    assert replace(DyLU(9), period=3) == DyLU(9, period=3)
    assert DyLU(9) != DelayedNesterov(9)

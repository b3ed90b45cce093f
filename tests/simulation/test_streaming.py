"""Fragments and late replies in the simulator: the oracle of Streaming DiLoCo, laws and faults."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from distkeras.algorithms import ADAG, AEASGD, DOWNPOUR, DiLoCo, DynSGD, LocalSGD, StreamingDiLoCo
from distkeras.record import replay
from distkeras.simulation import Constant, Exponential, Failures, Network, Outages, Quadratic, simulate


@dataclass
class Steady:
    """Every inner step subtracts 2 from every weight. It notes the weights of worker 0 after every step."""

    size: int = 2
    seen: list = field(default_factory=list)

    @property
    def initial(self):
        return np.ones(self.size, np.float32)

    @property
    def num_trainable(self):
        return self.size

    def steps_per_epoch(self, num_workers):
        return 1

    def train(self, weights, num_steps, replica):
        start = replica.memory.get("steps", 0)
        if replica.worker == 0:  # What was adopted replaces what the last step left.
            self.seen[start:] = [weights, *(weights - 2 * (step + 1) for step in range(num_steps))]
        replica.memory["steps"] = start + num_steps
        return weights - np.float32(2 * num_steps), num_steps

    def evaluate(self, weights):
        return {"loss": float(weights[0])}


def streaming(alpha=0.0, **changes):
    values = {"communication_window": 6, "outer_learning_rate": 2.0, "outer_momentum": 0.0, "fragments": 2}
    return StreamingDiLoCo(**(values | {"alpha": alpha} | changes))


TABLE = [  # steps late, alpha; fragment 0 at steps 0 to 9 and 15; fragment 1 at steps 5, 6 and 12
    (0, 0.0, [1, -1, -3, -11, -13, -15, -17, -19, -21, -35, -59], [-9, -23, -47]),
    (0, 0.5, [1, -1, -3, -8, -10, -12, -14, -16, -18, -24.5, -40.25], [-9, -17, -32]),
    (1, 0.0, [1, -1, -3, -7, -9, -11, -13, -15, -17, -27, -47], [-9, -19, -39]),
    (1, 0.5, [1, -1, -3, -6, -8, -10, -12, -14, -16, -21.5, -35.75], [-9, -15, -29]),
    (0, 1.0, [1 - 2 * step for step in (*range(10), 15)], [-9, -11, -23]),
]


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(("late", "alpha", "first", "second"), TABLE)
def test_streaming_diloco_gives_the_numbers_of_its_oracle(late, alpha, first, second, num_workers):
    problem = Steady()
    result = simulate(
        streaming(alpha), problem, num_workers=num_workers, num_commits=6, overlap=late, step_time=Constant()
    )
    weights = np.array(problem.seen)
    np.testing.assert_allclose(weights[[*range(10), 15], 0], first, rtol=1e-6)
    np.testing.assert_allclose(weights[[5, 6, 12], 1], second, rtol=1e-6)
    assert result.times.tolist() == [0.0, *(3.0 * commit - late for commit in range(1, 7))]
    assert not result.staleness.any()
    if alpha == 1:
        assert result.centers[1, 0] == -11


def test_one_fragment_without_mixing_is_diloco_bit_for_bit():
    def run(rule):
        return simulate(
            rule,
            Quadratic(np.full(7, 2.0), noise=0.1, start=np.linspace(-1, 1, 7)),
            num_workers=3,
            num_commits=30,
            learning_rate=0.05,
            failures=Failures(crash=0.05, lost_reply=0.05),
        )

    one = run(StreamingDiLoCo(5, 0.7, 0.9, alpha=0.0, fragments=1))
    np.testing.assert_array_equal(one.centers, run(DiLoCo(5, 0.7, 0.9)).centers)


@dataclass(frozen=True)
class Parts(DOWNPOUR):
    fragments: int = 2


@dataclass(frozen=True)
class AveragedParts(LocalSGD):
    fragments: int = 3
    fragment_pattern: str = "sequential"


@dataclass(frozen=True)
class ElasticParts(AEASGD):
    fragments: int = 2


@dataclass(frozen=True)
class StepsCounted(ADAG):
    fragments: int = 2


RULES = [
    Parts(6),
    AveragedParts(6),
    ElasticParts(6),
    StepsCounted(6),
    streaming(0.5, outer_learning_rate=0.4),
]


def run(rule, num_commits=60, num_workers=3, **options):
    return simulate(
        rule,
        Quadratic(np.full(7, 2.0), noise=0.05, start=np.linspace(-1, 1, 7)),
        num_workers=num_workers,
        num_commits=num_commits,
        learning_rate=0.05,
        step_time=Exponential(),
        **options,
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("late", [0, 1])
def test_fragments_train_through_crashes_and_lost_replies_whatever_the_shards(rule, late):
    faults = {
        "failures": Failures(crash=0.05, lost_reply=0.05),
        "outages": Outages(server=100.0, snapshot=20.0, cut=100.0),
        "network": Network(latency=0.3, service=0.05),
        "overlap": late,
    }
    whole, cut = (run(rule, 120, num_shards=shards, **faults) for shards in (1, 3))
    np.testing.assert_array_equal(whole.centers, cut.centers)
    assert min(whole.num_crashes, whole.num_duplicates, whole.num_restored) > 0
    assert whole.losses[-1] < 0.2 * whole.losses[0]


def test_each_fragment_counts_its_own_staleness():
    result = run(Parts(6), 400, num_workers=5)
    assert result.staleness.mean() == pytest.approx(4, abs=0.4)  # Not twice as much.


def test_the_fragments_of_one_worker_add_up_to_its_training():
    result = run(Parts(6), 2 * 40, num_workers=1, network=Network(latency=0.1))
    plain = simulate(
        DOWNPOUR(3),
        Quadratic(np.full(7, 2.0), noise=0.05, start=np.linspace(-1, 1, 7)),
        num_workers=1,
        num_commits=80,
        learning_rate=0.05,
        step_time=Exponential(),
    )
    # After every commit one fragment is what the worker has trained; the other one is a commit behind.
    np.testing.assert_allclose(result.centers[1:, :3][::2], plain.centers[1:, :3][::2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        result.centers[1:, 3:][1::2], plain.centers[1:, 3:][1::2], rtol=1e-4, atol=1e-6
    )


def test_late_replies_leave_staleness_as_it_is_and_cost_no_time_while_the_steps_last():
    network = Network(latency=1.0, service=0.5)
    waits, late = (run(DynSGD(10), 20, 1, network=network, overlap=overlap) for overlap in (0, 4))
    assert not late.staleness.any()
    assert late.times[-1] < waits.times[-1] - 19 * 2.0
    many = run(DynSGD(10), 400, 5, overlap=4)
    assert many.staleness.mean() == pytest.approx(4, abs=0.4)


def test_a_run_in_fragments_is_recorded_and_replayed(tmp_path):
    record = str(tmp_path / "record")
    options = {"failures": Failures(crash=0.05, lost_reply=0.05), "overlap": 1}
    outages = Outages(server=100.0, snapshot=20.0)
    result = run(streaming(0.5, outer_learning_rate=0.4), 80, record=record, outages=outages, **options)
    assert result.num_restored
    np.testing.assert_array_equal(replay(record).center, result.center)


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        (Parts(6, fragments=8), {}, "from 1 to 7"),
        (Parts(1), {}, "at least as many as fragments"),
        (Parts(6), {"overlap": True}, "a number of steps, not True"),
        (Parts(6), {"overlap": 3}, "fewer steps"),
        (DOWNPOUR(None), {"overlap": 1}, "in steps"),
        (DOWNPOUR(5), {"overlap": -1}, "fewer steps"),
    ],
)
def test_fragments_and_overlaps_that_do_not_fit_are_refused(rule, options, words):
    with pytest.raises(ValueError, match=words):
        run(rule, **options)

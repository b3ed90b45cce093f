"""Shares of the rows that run out, in a fixed division and in the queue of an elastic training."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from counting import CountRounds, CountSteps

from distkeras.algorithms import DOWNPOUR
from distkeras.events import WorkerLeft
from distkeras.runs import load_run
from distkeras.simulation import (
    Constant,
    Exponential,
    Failures,
    Heterogeneous,
    Network,
    Outages,
    Quadratic,
    Seconds,
    recorder,
    simulate,
)
from distkeras.simulation.shares import Shares


class Rows:
    """Worker i has 10 + i steps in an epoch, of one row each."""

    initial = np.zeros(1, np.float32)
    num_trainable = 1

    def steps_per_epoch(self, num_workers):
        return 10

    def steps_of_share(self, worker, num_workers):
        return 10 + worker

    def train(self, weights, num_steps, replica):
        return weights, num_steps

    def evaluate(self, weights):
        return {"loss": float(weights[0])}


def run(rule, **options):
    settings = {"num_workers": 4, "num_epoch": 3, "learning_rate": 0.0, "keep_centers": False}
    return simulate(rule, Rows(), **settings | options)


def total(shares, num_epoch=3):
    return num_epoch * sum(10 + share for share in range(shares))


STORM = {
    "failures": Failures(crash=0.05, restart=5.0, lost_reply=0.05, timeout=2.0),
    "outages": Outages(worker=80.0, server=50.0, server_restart=3.0, snapshot=10.0, job=70.0, cut=30.0),
    "network": Network(latency=0.3, service=0.01),
    "step_time": Heterogeneous(),
}


@pytest.mark.parametrize("conditions", [{}, STORM])
@pytest.mark.parametrize(
    ("rule", "elastic"), [(CountSteps(7), False), (CountSteps(7), True), (CountRounds(7), False)]
)
def test_every_step_of_every_epoch_counts_once_whatever_fails(rule, elastic, conditions, tmp_path):
    result = run(rule, elastic=elastic, run=tmp_path / "run", **conditions)
    shares = 16 if elastic else 4
    assert result.samples[-1] == total(shares)
    assert load_run(tmp_path / "run").status == "finished"
    if not rule.synchronous:
        assert result.losses[-1] == total(shares)
    left = [event for event in load_run(tmp_path / "run").events() if isinstance(event, WorkerLeft)]
    last = Counter(event.worker for event in left if not event.rests)
    assert set(last) == set(range(shares))


def test_a_fast_worker_leaves_and_the_round_no_longer_waits_for_it():
    result = run(CountRounds(10))  # Shares of 30, 33, 36 and 39 steps.
    assert result.num_commits == 4
    assert result.samples.tolist() == [0, 40, 80, 120, 138]


def test_windows_of_fixed_shares_end_with_the_share():
    result = run(CountSteps(7), step_time=Constant(1.0))
    assert Counter(result.workers.tolist()) == {0: 5, 1: 5, 2: 6, 3: 6}
    assert result.times[-1] == pytest.approx(39.0)


def test_in_a_queue_a_fast_machine_trains_more_shares_and_no_share_twice_at_once(monkeypatch):
    taken, held = defaultdict(list), set()
    take, give_back = Shares.take, Shares.give_back

    def watched_take(self, machine):
        share = take(self, machine)
        if share is not None:
            assert share not in held
            held.add(share)
            taken[machine].append(share)
        return share

    def watched_give_back(self, share):
        held.remove(share)
        return give_back(self, share)

    monkeypatch.setattr(Shares, "take", watched_take)
    monkeypatch.setattr(Shares, "give_back", watched_give_back)
    step_time = Heterogeneous(machine_variation=1.0)
    elastic = run(DOWNPOUR(5), elastic=True, step_time=step_time)
    machines = step_time.windows(4, np.random.default_rng((0, 0)))
    speeds = [1 / np.mean([machines(machine, 50) for _ in range(20)]) for machine in range(4)]
    assert held == set()
    assert sorted(share for shares in taken.values() for share in shares) == sorted(3 * list(range(16)))
    assert np.argmax(speeds) == max(taken, key=lambda machine: len(taken[machine]))
    assert np.argmin(speeds) == min(taken, key=lambda machine: len(taken[machine]))
    assert elastic.samples[-1] == total(16)


def test_shares_without_end_change_nothing_until_then():
    one, other = (
        simulate(
            DOWNPOUR(5),
            Quadratic(noise=0.1),
            num_workers=3,
            num_commits=50,
            num_epoch=epochs,
            step_time=Exponential(),
            learning_rate=0.1,
        )
        for epochs in (None, 10**6)
    )
    assert one.centers.tobytes() == other.centers.tobytes()
    assert one.times.tobytes() == other.times.tobytes()


def test_evaluations_at_even_times_see_what_was_committed_until_then():
    every, even = (
        simulate(
            DOWNPOUR(5),
            Quadratic(noise=0.1),
            num_workers=3,
            until=100.0,
            num_commits=10**3,
            learning_rate=0.1,
            step_time=Exponential(),
            evaluate_every=evaluate_every,
        )
        for evaluate_every in (1, Seconds(2.5))
    )
    assert every.times.tobytes() == even.times.tobytes()
    assert even.evaluated[:41].tolist() == [2.5 * index for index in range(41)]
    for time, version, loss in zip(even.evaluated, even.versions, even.losses, strict=True):
        assert version == np.searchsorted(every.times[1:], time, side="right")
        assert loss == every.losses[version]
    assert len(even.to_pandas()) == even.num_commits + 1
    assert every.evaluated.tolist() == every.times.tolist()


def test_runs_of_different_rules_end_with_the_same_number_of_rows():
    for rule in (CountSteps(5), CountRounds(5)):
        result = run(rule, num_epoch=None, num_samples=60)
        assert result.samples[-1] == 60 > result.samples[-2]
    assert run(CountSteps(5), num_epoch=None, num_samples=61).samples[-1] == 65
    assert run(CountSteps(5), num_epoch=None, num_samples=60, num_commits=3).samples[-1] == 15


def test_a_run_needs_an_end_and_kept_centers_a_limit(monkeypatch):
    for options, words in (
        ({"num_epoch": None}, "no end"),
        ({"num_epoch": 0}, "num_epoch=0"),
        ({"num_epoch": None, "num_samples": 0}, "num_samples=0"),
        ({"num_epoch": None, "until": 5.0, "elastic": True}, "needs `num_epoch`"),
        ({"overlap": True}, "cannot be combined with overlap"),
        ({"elastic": True, "rule": CountRounds(5)}, "is synchronous"),
    ):
        rule = options.pop("rule", CountSteps(5))
        with pytest.raises(ValueError, match=words):
            run(rule, **options)
    monkeypatch.setattr(recorder, "KEEP_BYTES", 80)  # 20 centers of one weight.
    assert run(CountSteps(5), keep_centers=True, evaluate_every=Seconds(5.0)).centers.shape == (9, 1)
    for options in ({"evaluate_every": 1}, {"evaluate_every": Seconds(1.0)}):
        with pytest.raises(ValueError, match=r"21 centers .* keep_centers=False"):
            run(CountSteps(5), keep_centers=True, **options)
    with pytest.raises(ValueError, match=r"seconds=0\.0"):
        Seconds(0.0)

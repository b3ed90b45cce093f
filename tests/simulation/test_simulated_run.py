"""A simulation writes the same run directory as a training, in virtual seconds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from distkeras.algorithms import ADAG, LocalSGD
from distkeras.events import ServerRestored, Window
from distkeras.monitor import Monitor
from distkeras.runs import CenterEvaluated, Second, Totals, load_run
from distkeras.simulation import (
    Constant,
    Exponential,
    Failures,
    Heterogeneous,
    Network,
    Outages,
    Quadratic,
    simulate,
)


def rolled_up(run):
    """Return the totals of a run, and its buckets."""
    totals, rolled = Totals(), list(run.rollups())
    for each in rolled:
        totals.take(each)
    return totals, [each for each in rolled if isinstance(each, Second)]


def simulated(run, **options):
    return simulate(
        ADAG(communication_window=2),
        Quadratic(noise=0.1),
        num_workers=3,
        num_commits=1500,  # More than one reading of events.
        learning_rate=0.01,
        step_time=Constant(1.0),
        evaluate_every=500,
        run=run,
        **options,
    )


def test_a_simulation_is_read_from_its_run_and_is_the_same_as_without_one(tmp_path):
    result = simulated(tmp_path / "run")
    assert result.losses.tolist() == simulated(None).losses.tolist()
    run = load_run(tmp_path / "run")
    assert (run.status, run.result["reason"]) == ("finished", "finished")
    assert run.settings["algorithm"] == {"name": "ADAG", "communication_window": 2}
    windows = list(run.windows())
    assert len(windows) == 1500
    assert [window.timestamp for window in windows] == result.times[1:].tolist()
    evaluated = [event for event in run.events() if isinstance(event, CenterEvaluated)]
    assert [event.num_updates for event in evaluated] == result.versions.tolist()
    assert [event.metrics["loss"] for event in evaluated] == result.losses.tolist()
    totals, seconds = rolled_up(run)
    assert (totals.windows, totals.samples) == (1500, result.samples[-1])
    assert len({each.start for each in seconds}) > 300
    assert math.log2(seconds[0].seconds).is_integer()  # The same virtual times give the same buckets.
    with pytest.raises(ValueError, match="a run that has ended"):
        simulated(tmp_path / "run")


def test_windows_that_a_simulated_server_has_lost_do_not_count(tmp_path):
    outages = Outages(server=400.0, snapshot=50.0)
    result = simulated(tmp_path / "run", outages=outages)
    run = load_run(tmp_path / "run")
    kinds = Counter(type(event) for event in run.events())
    assert kinds[ServerRestored] == result.num_restored > 0
    assert kinds[Window] > 1500
    assert len(list(run.windows())) == result.num_commits == 1500
    totals, seconds = rolled_up(run)
    assert (totals.windows, totals.updates, totals.samples) == (1500, 1500, result.samples[-1])
    assert sum(each.windows for each in seconds) == kinds[Window]


@pytest.mark.parametrize("step", [1e-6, 1.0, 1e6])
def test_the_rollups_of_a_simulation_are_as_many_whatever_a_virtual_second_is(step, tmp_path):
    simulate(
        ADAG(communication_window=1),
        Quadratic(),
        num_workers=1,
        num_commits=6000,
        learning_rate=0.01,
        step_time=Constant(step),
        run=tmp_path / "run",
    )
    totals, seconds = rolled_up(load_run(tmp_path / "run"))
    assert totals.windows == 6000
    assert 1000 < len(seconds) < 2100


@pytest.mark.parametrize("overlap", [False, True, 2])
def test_the_virtual_time_of_a_worker_is_in_its_windows_and_the_bytes_of_all_in_the_result(overlap, tmp_path):
    network = Network(latency=0.3, bandwidth=100.0, frames=True)
    result = simulate(
        ADAG(communication_window=5),
        Quadratic(curvature=np.ones(8)),
        num_workers=3,
        num_commits=60,
        learning_rate=0.01,
        step_time=Exponential(),
        network=network,
        overlap=overlap,
        run=tmp_path / "run",
    )
    windows = list(load_run(tmp_path / "run").windows())
    for worker in range(3):
        own = [window for window in windows if window.worker == worker]
        frame = own[1].timing.bytes_out
        spent = sum(window.timing.computing + window.timing.exchanging for window in own)
        # Before its last message it has trained, or waited for replies, all the time.
        expected = own[-1].timestamp - network.transfer(frame)
        assert spent == pytest.approx(expected) if not overlap else spent <= expected + 1e-9
        assert all(window.timing.blocked == 0.0 for window in own)
    # A window tells of the messages before its own.
    assert sum(window.timing.bytes_out for window in windows) == result.bytes_sent - 3 * frame


def test_a_fast_worker_of_a_round_is_blocked_until_the_slowest_has_sent(tmp_path):
    simulate(
        LocalSGD(communication_window=4),
        Quadratic(),
        num_workers=4,
        num_commits=20,
        learning_rate=0.01,
        step_time=Heterogeneous(),
        network=Network(latency=0.1),
        failures=Failures(lost_reply=0.05, timeout=1.0),
        run=tmp_path / "run",
    )
    windows = [window for window in load_run(tmp_path / "run").windows() if window.iteration > 0]
    blocked = [window.timing.blocked for window in windows]
    assert sum(wait == 0.0 for wait in blocked) >= 19  # The last of every round.
    assert max(blocked) > 1.0
    assert all(0 <= window.timing.blocked <= window.timing.exchanging for window in windows)
    assert sum(window.timing.resends for window in windows) > 0


class Recording(Monitor):
    def begin(self, training):
        self.facts, self.events = training, []

    def take(self, events):
        self.events += events

    def end(self, result):
        self.result = result


def test_monitors_of_a_simulation_get_the_events_of_its_run(tmp_path):
    recording = Recording()
    result = simulated(tmp_path / "run", monitor=recording)
    assert [each for each in recording.events if type(each) is Window] == list(
        load_run(tmp_path / "run").windows()
    )
    evaluated = [event for event in recording.events if isinstance(event, CenterEvaluated)]
    assert [event.metrics["loss"] for event in evaluated] == result.losses.tolist()
    assert (recording.facts.name, recording.facts.num_workers) == ("run", 3)
    assert recording.result["reason"] == "finished"
    alone = Recording()
    simulated(None, monitor=[alone])
    assert alone.events == recording.events

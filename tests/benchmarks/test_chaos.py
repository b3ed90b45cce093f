"""The storm of `benchmarks/chaos.py`: drawn alike from the same seed, and counted by the center itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from chaos_simulated import measured, outages, rows_in_time
from storm.account import Traces, rate_between
from storm.plan import MEAN_SECONDS, Fault, Storm
from storm.run import Struck
from storm.training import Config, Count, CountRounds, put_in_place

from distkeras.center import Center, CenterConfig
from distkeras.center.answers import Exchanged
from distkeras.center.requests import Exchange, Join
from distkeras.simulation import Outages

HOUR = 3600.0


def test_the_same_seed_draws_the_same_storm():
    storm = Storm(level=3, seconds=HOUR, seed=1)
    assert storm.faults() == storm.faults()
    assert storm.faults() != Storm(level=3, seconds=HOUR, seed=2).faults()
    times = [fault.at for fault in storm.faults()]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < HOUR


def test_another_number_of_servers_moves_no_fault_of_a_worker():
    def of_workers(num_servers):
        faults = Storm(level=1, seconds=HOUR, seed=0, num_servers=num_servers).faults()
        return [fault for fault in faults if "worker" in fault.kind]

    assert of_workers(1) == of_workers(4) != []


def test_a_level_is_how_many_times_as_often_everything_fails():
    def mean_seconds(level, kinds, processes):
        storm = Storm(level=level, seconds=40 * HOUR, seed=0, num_workers=4, num_servers=2)
        return 40 * HOUR * processes / sum(fault.kind in kinds for fault in storm.faults())

    for level in (1, 10):
        for struck, kinds, processes in (
            ("worker", ("kill worker", "kill executor", "stop worker"), 4),
            ("server", ("kill server",), 2),
            ("driver", ("kill driver",), 1),
            ("network", ("cut", "delay"), 1),
        ):
            assert mean_seconds(level, kinds, processes) * level == pytest.approx(
                MEAN_SECONDS[struck], rel=0.3
            )


def test_what_stands_still_goes_on_after_a_while():
    faults = Storm(level=10, seconds=10 * HOUR, seed=0).faults()
    stopped = [fault.lasts for fault in faults if fault.kind == "stop worker"]
    assert 2 <= min(stopped) < 4 < 30 < max(stopped) <= 60
    assert {fault.lasts for fault in faults if fault.kind == "kill worker"} == {0.0}


@pytest.mark.parametrize(("name", "value"), [("level", 0), ("seconds", float("inf")), ("num_workers", 0)])
def test_a_storm_that_cannot_be_is_refused(name, value):
    arguments = {"level": 1, "seconds": 60, "seed": 0} | {name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be positive and finite. Received: {name}={value}"):
        Storm(**arguments)


@pytest.mark.parametrize("rule", [Count, CountRounds])
def test_every_element_of_the_center_counts_the_rows_once(rule):
    center = Center(CenterConfig(rule(), 2), np.zeros(4, np.float32), clock=lambda: 0.0)
    for worker in (0, 1):
        center.handle(Join(worker))
    for sequence in (1, 2, 2):  # The last one is sent again.
        for worker, samples in ((0, 80), (1, 30)):
            noise = np.full(4, 0.25, np.float32)
            message = Exchange(worker, sequence, 20, samples, 0, 20 * sequence, noise)
            answers = center.handle(message)
    assert any(isinstance(answer, Exchanged) for _, answer in answers)
    assert center.snapshot().tolist() == [220.0] * 4


def test_a_training_has_as_many_rows_as_its_configuration_says():
    config = Config(folder="", ports=(), rows=100, epochs=3, num_workers=4, batch_size=5, step_seconds=0.1)
    assert config.total == 1200
    assert config.rows_a_second == pytest.approx(200)
    with pytest.raises(ValueError, match=r"at most 16777216 rows .* Received: 30000000"):
        Config(folder="", ports=(), rows=10**7)


@pytest.fixture
def traces(tmp_path):
    """Of two workers and two servers; at 10 s the second server was killed, at 20 s the driver."""
    windows = [(t, t % 2) for t in (1, 2, 3, 4, 12, 13, 30, 31)]
    lines = [json.dumps({"kind": "Window", "timestamp": t, "worker": worker}) for t, worker in windows]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, '{"kind": "Win']))
    counts = [(0, 0, 0), (5, 100, 100), (9, 180, 180), (11, 200, 140), (15, 240, 200), (33, 400, 380)]
    (tmp_path / "counts.jsonl").write_text("".join(json.dumps(count) + "\n" for count in counts))
    return Traces(tmp_path).read()


def test_of_two_servers_the_one_with_fewer_rows_counts(traces):
    assert traces.rows_at(5) == 100
    assert traces.rows_at(10) == 140  # The second went back to its snapshot.
    assert rate_between(traces, 5, 15) == pytest.approx((200 - 100) / 10)
    with pytest.raises(ValueError, match="Expected counts before and after 40"):
        traces.rows_at(40)


def test_recovery_is_the_time_to_the_next_window_of_what_a_fault_hit(traces):
    def recovery(kind, at, lasts=0.0, **facts):
        return traces.recovery(Struck(Fault(0.0, kind, 0, lasts), at, **facts), num_workers=2)

    assert traces.first_windows() == {1: 1, 0: 2}
    assert recovery("kill worker", 2.5, worker=0) == 1.5
    assert recovery("stop worker", 2.5, lasts=5.0, worker=1) == 10.5
    assert recovery("kill server", 10.0) == 5.0  # More rows than before, at both.
    assert recovery("kill driver", 20.0) == 11.0  # The last worker's.
    assert recovery("kill worker", 2.5) is None  # It had not begun to train.
    assert recovery("kill worker", 30.5, worker=0) is None  # It had no window after that.
    assert recovery("kill driver", 20.0, missed=True) is None


def test_the_simulated_storm_recovers_as_was_measured(tmp_path):
    def record(rule, **seconds):
        faults = [
            {"kind": kind.replace("_", " "), "recovery": time}
            for kind, times in seconds.items()
            for time in times
        ]
        return {"rule": rule, "storm": faults}

    rest = {"kill_driver": [20.4], "cut": [0.5, 0.3, 30.0]}
    workers = {"kill_worker": [1.4, 2.4], "stop_worker": [10.4], "kill_executor": [None]}
    path = tmp_path / "chaos.json"
    one = record("asynchronous", **workers, **rest, kill_server=[2.4])
    other = record("synchronous", **workers, **rest)
    path.write_text(json.dumps({"storms": [one, other]}))
    with pytest.raises(ValueError, match=r"struck the synchronous rule: .* Received: none of server"):
        measured([path])
    path.write_text(json.dumps({"storms": [one, other | {"storm": [*other["storm"], *one["storm"]]}]}))
    found = measured([path])["asynchronous"]
    # Without the window of 0.4 s that ends each.
    assert found == pytest.approx({"worker": 13 / 3, "server": 2.0, "driver": 20.0, "network": 0.1})
    failing = outages(found, synchronous=True)
    assert (failing.worker, failing.server, failing.together) == (600.0, 600.0, True)
    calm = rows_in_time(Count(50), 4, 300.0, Outages(), seed=0)
    assert calm == pytest.approx(4 * 300 / 0.1, rel=0.02)
    assert 0.5 * calm < rows_in_time(Count(50), 4, 300.0, failing.times_as_often(3), seed=0) < calm


def test_what_the_storm_counts_with_is_put_where_a_training_uses_it(monkeypatch):
    from distkeras.cluster import job, placing
    from distkeras.trainers import training

    for module, name in ((training, "ProgressBar"), (placing, "Servers")):
        monkeypatch.setattr(module, name, vars(module)[name])
        put_in_place(module, name, sample := object())
        assert vars(module)[name] is sample
    with pytest.raises(AttributeError, match=r"uses Servers. Received: distkeras\.cluster\.job"):
        put_in_place(job, "Servers", object())

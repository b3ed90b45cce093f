"""A simulation writes the same run directory as a training, in virtual seconds."""

from __future__ import annotations

from collections import Counter

import pytest

from distkeras.algorithms import ADAG
from distkeras.events import ServerRestored, Window
from distkeras.runs import CenterEvaluated, load_run
from distkeras.simulation import Constant, Outages, Quadratic, simulate


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

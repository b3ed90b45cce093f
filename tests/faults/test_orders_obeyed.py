"""The driver's orders reach all workers within a window, and replaced ones and restarted servers too."""

from __future__ import annotations

import bare
import pytest

from distkeras.center.messages import Exchange
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.watch import Watch
from distkeras.events import WorkerJoined, WorkerLeft
from distkeras.record import replay
from distkeras.record.entries import records_in
from distkeras.wire.store import SnapshotOptions


def rates_in(folder, job):
    """Replay the first server's record, and return the rate of each window in it, by worker, in order."""
    rates = {0: [], 1: []}

    def note(step, _):
        request = step.request
        if isinstance(request, Exchange):
            rates[request.worker].append(float(request.message[0]) / request.num_steps)

    replayed = replay(records_in(str(folder))[0], on_step=note)
    assert replayed.center.tobytes() == job.center[: replayed.center.size].tobytes()
    return rates


def check_stopped(job):
    """All workers have left, long before the end of their data, and each window counts once."""
    assert sum(isinstance(event, WorkerLeft) for event in job.events) == 2
    assert len(job.history) == job.num_updates < 2 * 2000 / 2
    assert len({(window.worker, window.iteration) for window in job.history}) == len(job.history)


def test_a_rate_and_then_a_stop_reach_the_workers_of_two_servers_and_a_replacement(tmp_path):
    def fault(job):
        job.wait_for_windows(10)
        job.watch.order(learning_rate=0.25)
        job.wait_for_windows(len(job.history) + 20)
        job.workers.processes[0].kill()
        job.wait_for_windows(sum(window.worker == 0 for window in job.history) + 5, 0)
        job.watch.order(stop=True)

    options = ServerOptions(record=str(tmp_path))
    job = bare.run(fault, num_batches=2000, num_epoch=1, options=options, num_servers=2)
    check_stopped(job)
    assert any(isinstance(event, WorkerJoined) and event.attempt == 1 for event in job.events)
    for rates in rates_in(tmp_path, job).values():
        assert rates == sorted(rates, reverse=True)  # Nobody went back to the first rate.
        assert set(rates) == {1.0, 0.25}


def test_a_server_that_forgot_the_orders_gets_them_again():
    def fault(job):
        job.wait_for_windows(10)
        job.watch.order(learning_rate=0.25, window=3)
        while not any(window.steps == 3 for window in job.history):
            job.wait_for_windows(len(job.history) + 1)
        job.server._process.kill()  # Without a snapshot: it begins at the start, and so do the workers.
        while len(job.history) > 10:
            job.wait_for_windows(0)
        job.wait_for_windows(30)
        job.workers.processes[1].kill()
        job.wait_for_windows(60)
        job.watch.order(stop=True)

    options = ServerOptions(snapshots=SnapshotOptions())
    job = bare.run(fault, num_batches=2000, num_epoch=1, options=options)
    check_stopped(job)
    joined = [event for event in job.events if isinstance(event, WorkerJoined) and event.attempt]
    assert joined
    last = [window for window in job.history if window.worker == 1][-5:]
    assert [window.steps for window in last] == [3] * 5


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rate": 0.1}, r"Expected some of .*Received: rate"),
        ({"number": 7}, r"Expected some of .*Received: number"),
        ({"window": 0}, "`window` must be an integer of at least 1"),
    ],
)
def test_an_order_that_does_not_exist_or_is_senseless_is_refused_at_once(changes, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Watch(None, None, None, 1, print).order(**changes)

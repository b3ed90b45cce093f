"""What once hung a training for ever, or ended the application: closed ports, too few slots, lost workers."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "reach_script.py"

DYNAMIC = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "0",
    "spark.dynamicAllocation.maxExecutors": "2",
}

PORT = 7003


def check_lives(output):
    """Neither the session nor that of another user has ended."""
    assert "\nthe session lives True" in output, output[-6000:]
    assert "another session lives True" in output, output[-6000:]


def wait_until_it_trains(script):
    """Wait until windows are counted; the test's own limit ends this."""
    script.program.wait_for("training\n", 100)


def kill_a_python_worker(cluster):
    """SIGKILL the Python process that has trained most."""
    daemons = [daemon for executor in cluster.executors() for daemon in executor.children()]
    workers = [worker for daemon in daemons for worker in daemon.children()]
    max(workers, key=lambda process: process.memory_info().rss).kill()


def test_a_synchronous_rule_trains_with_dynamic_allocation_also_when_a_worker_is_killed(standalone, start):
    script = start(SCRIPT, "LocalSGD", "--pause", 0.03, to=standalone, settings=DYNAMIC)
    wait_until_it_trains(script)
    kill_a_python_worker(standalone)
    output = script.succeeded(100)
    assert "LocalSGD counted every window once True" in output, output[-6000:]
    check_lives(output)


@pytest.mark.slow
def test_a_barrier_stage_that_lost_a_worker_is_submitted_again(standalone, start):
    script = start(SCRIPT, "LocalSGD", "--pause", 0.03, to=standalone)
    wait_until_it_trains(script)
    kill_a_python_worker(standalone)
    output = script.succeeded(100)
    assert "A worker was lost, and all workers restart." in output
    assert "LocalSGD counted every window once True" in output, output[-6000:]
    check_lives(output)


def test_a_client_that_asks_a_shared_connect_server_for_more_slots_than_there_are_is_told_their_number(
    standalone, connect_server, submit
):
    server = connect_server(standalone.url)
    output = submit(SCRIPT, "LocalSGD", "--host", "127.0.0.1", "--workers", 3, to=server, limit=110)
    assert "LocalSGD ended with NotEnoughSlots: A synchronous algorithm needs 3 task slots" in output
    assert "application with 2 that were free at one time" in output
    check_lives(output)


def test_a_port_that_is_closed_to_one_executor_is_found_before_the_training(
    namespaces, far_standalone, submit
):
    namespaces.close(PORT, "executor-b", "driver")
    output = submit(
        SCRIPT, "LocalSGD", "DOWNPOUR", "--port", PORT, to=far_standalone, host=namespaces["driver"]
    )
    for name in ("LocalSGD", "DOWNPOUR"):
        assert f"{name} ended with ServerUnreachable: Expected every executor" in output, output[-6000:]
    told = f"on executor-b cannot reach parameter server 0 at driver:{PORT}: timed out after 5 s."
    assert output.count(told) == 2, output[-6000:]
    assert "on executor-a cannot reach" not in output
    check_lives(output)


@pytest.mark.slow
@pytest.mark.limit(300)
@pytest.mark.parametrize("name", ["LocalSGD", "DOWNPOUR"])
def test_a_port_that_closes_in_the_middle_ends_the_training_with_the_workers_own_error(
    namespaces, far_standalone, start, name
):
    options = ("--port", PORT, "--pause", 0.1, "--epochs", 40, "--patience", 2, "--timeout", 3)
    script = start(SCRIPT, name, *options, to=far_standalone, host=namespaces["driver"])
    wait_until_it_trains(script)
    namespaces.close(PORT, "executor-a", "driver")
    namespaces.close(PORT, "executor-b", "driver")
    output = script.succeeded(250)
    assert f"{name} ended with WorkerError: Worker " in output, output[-6000:]
    told, end, _ = output.partition("ended with WorkerError")[2].partition("-- end of the error")
    assert end
    assert told.count("ServerLost: Worker") == 1, told
    assert f"The parameter server at driver:{PORT} could not be reached for 2 s" in told
    assert "org.apache.spark" not in told
    check_lives(output)

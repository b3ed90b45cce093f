"""Hosts of their own, with a firewall between them that drops packets, and slow or broken networks."""

from __future__ import annotations

import re
import time

import pytest
from checking import TRAIN, check
from standalone import Standalone

DRIVER, DRIVER_BLOCKS, EXECUTOR_BLOCKS, SERVER = 7001, 7002, 7003, 7004
FIXED = {
    "spark.driver.port": str(DRIVER),
    "spark.driver.blockManager.port": str(DRIVER_BLOCKS),
    "spark.blockManager.port": str(EXECUTOR_BLOCKS),
}
EXECUTORS = ("executor-a", "executor-b")


def test_trains_where_only_the_documented_ports_are_open(namespaces, far_standalone, submit):
    """Executors reach three ports of the driver and each other's blocks; the driver reaches no executor."""
    namespaces.close_all_but((DRIVER, DRIVER_BLOCKS, SERVER), "driver")
    for executor in EXECUTORS:
        namespaces.close_all_but((EXECUTOR_BLOCKS,), executor)
        namespaces.close((1, 32767), "driver", executor)
    script = (TRAIN, "DOWNPOUR", "LocalSGD", "--ports", SERVER)
    output = submit(*script, to=far_standalone, host=namespaces["driver"], settings=FIXED)
    check(output, "DOWNPOUR", "LocalSGD")


@pytest.mark.slow
@pytest.mark.limit(400)
def test_a_partition_of_ten_seconds_on_a_slow_network_changes_nothing(namespaces, far_standalone, start):
    for host in ("driver", *EXECUTORS):
        namespaces.limit(host, 100)
    script = ("DOWNPOUR", "LocalSGD", "--pause", 0.05, "--heartbeat", 3)
    training = start(TRAIN, *script, to=far_standalone, host=namespaces["driver"])
    for number, host in enumerate(EXECUTORS, start=1):
        wait_for_training(training, number)
        namespaces.cut(host)
        time.sleep(10)
        namespaces.restore(host)
    check(training.succeeded(200), "DOWNPOUR", "LocalSGD")


@pytest.mark.slow
@pytest.mark.limit(400)
def test_an_executor_that_loses_its_network_for_good_is_replaced(namespaces, tmp_path, start):
    """On another machine: what it held of the shuffled rows is computed again, and no window is doubled."""
    executors = tuple(namespaces[name] for name in EXECUTORS)
    soon = {"spark.worker.timeout": "20"}  # The master's, for a worker that says nothing.
    spark = {
        "spark.network.timeout": "20s",
        "spark.network.timeoutInterval": "5s",
        "spark.executor.heartbeatInterval": "2s",
    }
    with Standalone(tmp_path, master_on=namespaces["master"], workers_on=executors, settings=soon) as cluster:
        script = (TRAIN, "DOWNPOUR", "--pause", 0.1, "--heartbeat", 3)
        training = start(*script, to=cluster, host=namespaces["driver"], settings=spark)
        wait_for_training(training, 1)
        namespaces.cut("executor-b")
        output = training.succeeded(300)
    assert re.search(r"Lost executor \d on executor-b", output)
    check(output, "DOWNPOUR")


def wait_for_training(script, number):
    """Wait until so many trainings of the script have begun; the test's own limit ends this."""
    while script.output.count("training\n") < number:
        assert script.program.process.poll() is None, script.program.tail()
        time.sleep(0.05)

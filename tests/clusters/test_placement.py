"""Parameter servers on executors: where nothing reaches the driver, and where an executor is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager

import psutil
import pytest
from checking import TRAIN, check


@contextmanager
def hidden(folder, host):
    """A folder that `host` does not share with the others."""
    subprocess.run([*host.prefix, "mount", "-t", "tmpfs", "none", str(folder)], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run([*host.prefix, "umount", str(folder)], check=True, timeout=10)


@pytest.mark.parametrize("trainer", ["DOWNPOUR", pytest.param("LocalSGD", marks=pytest.mark.slow)])
def test_a_client_that_no_executor_reaches_and_that_shares_no_folder_with_them_trains(
    namespaces, far_standalone, connect_server, submit, tmp_path, trainer
):
    settings = {"spark.cores.max": "4", "spark.executor.cores": "2"}
    server = connect_server(far_standalone.url, host=namespaces["master"], settings=settings)
    for executor in ("executor-a", "executor-b"):
        namespaces.close(None, executor, "driver")
        namespaces.close(None, "driver", executor)
    with hidden(tmp_path, namespaces["driver"]):
        script = (TRAIN, trainer, "--placement", "auto", "--shared", tmp_path)
        output = submit(*script, to=server, host=namespaces["driver"])
    check(output, trainer)
    assert f"{trainer}: servers on executors" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_goes_on_elsewhere_when_its_executor_is_killed(start_standalone, start, tmp_path):
    cluster = start_standalone(settings={"spark.cores.max": "3", "spark.executor.cores": "1"})
    script = (TRAIN, "DOWNPOUR", "--placement", "executors", "--shared", tmp_path, "--pause", 0.02)
    training = start(*script, to=cluster)
    training.program.wait_for("training", 120)
    (executor,) = [jvm for jvm in cluster.executors() if any(map(_serves, jvm.children(recursive=True)))]
    executor.kill()
    output = training.succeeded(150)
    check(output, "DOWNPOUR")
    assert "DOWNPOUR: servers on executors, started again 1" in output


@pytest.mark.slow
def test_two_servers_run_on_two_executors(start_standalone, submit, tmp_path):
    cluster = start_standalone(settings={"spark.cores.max": "4", "spark.executor.cores": "2"})
    script = (TRAIN, "DOWNPOUR", "--placement", "executors", "--shared", tmp_path, "--servers", 2)
    output = submit(*script, to=cluster)
    check(output, "DOWNPOUR")
    assert "DOWNPOUR: 2 parameter servers run on 2 executors." in output


@pytest.mark.slow
def test_ctrl_c_with_the_server_on_an_executor_gives_the_model_and_leaves_nothing(
    start_standalone, connect_server, start, tmp_path
):
    cluster = start_standalone(settings={"spark.cores.max": "4", "spark.executor.cores": "2"})
    server = connect_server(cluster.url, settings={"spark.cores.max": "4", "spark.executor.cores": "2"})
    shared = tmp_path / "shared"
    shared.mkdir()
    script = (TRAIN, "DOWNPOUR", "--placement", "executors", "--shared", shared, "--pause", 0.02)
    training = start(*script, "--epochs", 1000, to=server)
    training.program.wait_for("training", 120)
    os.kill(training.program.pid, signal.SIGINT)
    output = training.succeeded(60)
    assert "DOWNPOUR: ended by interrupt" in output
    assert "session lives True" in output
    assert list(shared.iterdir()) == []
    assert not any(
        map(_serves, (each for jvm in cluster.executors() for each in jvm.children(recursive=True)))
    )


def _serves(process: psutil.Process) -> bool:
    try:
        return "distkeras.wire" in process.cmdline()
    except psutil.NoSuchProcess:
        return False

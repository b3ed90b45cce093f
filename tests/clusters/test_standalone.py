"""A standalone cluster: client mode, two applications, dynamic allocation, encryption, kills, archives."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

import pytest
from checking import TRAIN, check

ELASTIC = {
    "spark.speculation": "true",
    "spark.speculation.multiplier": "1.1",
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "0",
    "spark.dynamicAllocation.initialExecutors": "0",
    "spark.dynamicAllocation.maxExecutors": "2",
    "spark.dynamicAllocation.schedulerBacklogTimeout": "1s",
    "spark.dynamicAllocation.executorIdleTimeout": "2s",
}


def test_two_applications_train_at_once_one_with_speculation_and_dynamic_allocation(standalone, start):
    first = start(TRAIN, "DOWNPOUR", "LocalSGD", to=standalone)
    second = start(TRAIN, "ADAG", to=standalone, settings=ELASTIC)
    check(first.succeeded(200), "DOWNPOUR", "LocalSGD")
    check(second.succeeded(200), "ADAG")


def test_trains_with_authentication_and_encryption(start_standalone, submit):
    secured = {
        "spark.authenticate": "true",
        "spark.authenticate.secret": "not a secret",
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",
    }
    check(
        submit(TRAIN, "DOWNPOUR", "LocalSGD", to=start_standalone(settings=secured)), "DOWNPOUR", "LocalSGD"
    )


@pytest.mark.slow
@pytest.mark.limit(400)
def test_a_kill_where_spark_tries_once_ends_the_training_and_not_the_session(standalone, start):
    once = {"spark.task.maxFailures": "1", "spark.stage.maxConsecutiveAttempts": "1"}
    script = ("DOWNPOUR", "LocalSGD", "DOWNPOUR", "--pause", 0.05)
    trainings = start(TRAIN, *script, to=standalone, settings=once)
    for number in (1, 2):
        wait_for_count(trainings, "training\n", number)
        kill_a_python_worker(standalone)
        wait_for_count(trainings, ": failed\n", number)
    output = trainings.succeeded(120)
    assert "DOWNPOUR: failed" in output
    assert "LocalSGD: failed" in output
    check(output, "DOWNPOUR")


def wait_for_count(script, text, count):
    """Wait until the script has printed `text` so often; the test's own limit ends this."""
    while script.output.count(text) < count:
        assert script.program.process.poll() is None, script.program.tail()
        time.sleep(0.05)


def kill_a_python_worker(cluster):
    """SIGKILL the Python process of one executor that has trained most."""
    workers = [
        process
        for executor in cluster.executors()
        for daemon in executor.children()
        for process in daemon.children()
    ]
    max(workers, key=lambda process: process.memory_info().rss).kill()


@pytest.mark.slow
def test_trains_in_an_environment_that_travels_as_an_archive(standalone, submit, tmp_path):
    archive = archived_environment(tmp_path)
    settings = {"spark.archives": f"{archive}#travelled", "spark.pyspark.python": "./travelled/bin/python"}
    output = submit(TRAIN, "DOWNPOUR", to=standalone, settings=settings)
    check(output, "DOWNPOUR")
    used = [path for path in standalone.folder.glob("worker-*/app-*/*/travelled/used") if path.read_text()]
    assert used, "the executors ran another Python"


def archived_environment(folder: Path) -> Path:
    """Return the archive of a virtual environment that finds the packages of this one where they lie.

    Its interpreter is a link, as in one that `venv-pack` packs. It notes that it was started.
    """
    home = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (packages / "these.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport used\n")
    (packages / "used.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.prefix, 'used').write_text(sys.executable)\n"
    )
    archive = folder / "environment.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(home, arcname=".")
    return archive

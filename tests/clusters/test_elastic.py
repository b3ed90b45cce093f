"""Workers that come and go: speculative copies, resources of a training, executors lost and gained."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from running import Host

SCRIPT = Path(__file__).parent / "elastic_script.py"
ELSEWHERE = Host("127.0.0.2", "127.0.0.2")
"""Another host to Spark, which starts copies of a task on other hosts alone."""

SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.minTaskRuntime": "500ms",
}

DYNAMIC = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.maxExecutors": "2",
    "spark.dynamicAllocation.schedulerBacklogTimeout": "1s",
    "spark.dynamicAllocation.sustainedSchedulerBacklogTimeout": "1s",
    "spark.cores.max": "16",
}


@pytest.mark.slow
@pytest.mark.limit(300)
def test_a_speculative_copy_waits_and_takes_over_only_what_is_lost(start_standalone, submit, tmp_path):
    cluster = start_standalone(workers_on=(Host(), ELSEWHERE), cores=1)
    output = submit(
        SCRIPT, "speculation", tmp_path, cluster.folder, to=cluster, settings=SPECULATION, limit=280
    )
    assert output.count("a copy waits") == 2
    assert "the original is killed" in output
    assert output.count("every row once an epoch True") == 2


@pytest.mark.slow
@pytest.mark.limit(200)
def test_each_training_of_an_application_gets_the_cores_that_it_asks_for(standalone, submit, tmp_path):
    settings = {"spark.executor.cores": "2", "spark.cores.max": "4"}
    output = submit(SCRIPT, "different", tmp_path, 0, to=standalone, settings=settings, limit=180)
    assert output.count("every row once an epoch True") == 2
    notes = [line.split(", ") for line in output.splitlines() if line.startswith("note")]
    asked, unasked = ["note 2 cores", "gpus []", "threads 2"], ["note 1 cores", "gpus []", "threads 1"]
    assert sorted([*note[:2], note[-1]] for note in notes) == [unasked, unasked, asked, asked]


@pytest.mark.slow
@pytest.mark.limit(300)
def test_the_training_gets_executors_with_gpus_of_its_own(start_standalone, submit, tmp_path):
    script = tmp_path / "gpus.sh"
    script.write_text(f"#!/bin/sh\necho '{json.dumps({'name': 'gpu', 'addresses': ['5', '7']})}'\n")
    script.chmod(0o755)
    finds = {
        "spark.worker.resource.gpu.amount": "2",
        "spark.worker.resource.gpu.discoveryScript": str(script),
    }
    cluster = start_standalone(cores=6, settings=finds)
    output = submit(SCRIPT, "resources", tmp_path, 1, to=cluster, settings=DYNAMIC, limit=280)
    assert "every row once an epoch True" in output
    assert sum(f"note 2 cores, gpus ['{address}']" in output for address in ("5", "7")) >= 1
    assert "gpus []" not in output


@pytest.mark.slow
@pytest.mark.parametrize("what", ["resources", "together", "few"])
def test_resources_and_elastic_workers_work_over_spark_connect(
    standalone, connect_server, submit, tmp_path, what
):
    server = connect_server(standalone.url, settings={"spark.executor.cores": "2", "spark.cores.max": "4"})
    output = submit(SCRIPT, what, tmp_path, *(() if what == "few" else (0,)), to=server)
    assert "every row once an epoch True" in output
    if what != "few":
        assert output.count("note 2 cores, gpus []") == 2


@pytest.mark.slow
def test_workers_of_a_synchronous_rule_get_the_cores_that_are_asked_for(standalone, submit, tmp_path):
    settings = {"spark.executor.cores": "2", "spark.cores.max": "4"}
    output = submit(SCRIPT, "together", tmp_path, 0, to=standalone, settings=settings)
    assert "every row once an epoch True" in output
    assert output.count("note 2 cores, gpus []") == 2


@pytest.mark.limit(500)
def test_workers_come_and_go_and_no_row_is_lost_or_doubled(start_standalone, start, tmp_path):
    cluster = start_standalone(workers_on=(Host(),), cores=1, settings={"spark.decommission.enabled": "true"})
    settings = DYNAMIC | {"spark.decommission.enabled": "true"}
    script = start(SCRIPT, "elastic", tmp_path, to=cluster, settings=settings)
    progress = script.program
    progress.wait_for(r"windows \d\d", 200)
    late = cluster.start_worker(Host(), "worker-late")
    progress.wait_for(r"windows [2-9]\d", 100)
    (executor,) = cluster.executors(cluster.workers[0])
    executor.kill()
    progress.wait_for(r"windows [4-9]\d", 100)
    os.kill(late.pid, signal.SIGPWR)  # Its executors get no more tasks, and end.
    output = script.succeeded(250)
    assert "every row once an epoch True" in output
    assert int(output.rpartition("executors ")[2].split()[0]) >= 3

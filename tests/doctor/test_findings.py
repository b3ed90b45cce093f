"""What the doctor makes of facts, and of the driver's machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

import distkeras
from distkeras.cluster.executor_facts import ExecutorFacts
from distkeras.doctor import Diagnosis, Finding, NotReady, driver, executors
from distkeras.doctor.wanted import Wanted
from distkeras.runs.check import why_not_writable
from distkeras.wire.listening import Listening
from distkeras.wire.reachability import connector

GIB = 2**30
FACTS = ExecutorFacts(
    host="host-b",
    executor="1",
    python=sys.executable,
    python_version="3.11",
    versions={"keras": driver.version_of("keras"), "jax": driver.version_of("jax")},
    missing=(),
    package=("", "", ""),
    cores=4,
    memory=(8 * GIB, 6 * GIB),
    disk={"/local": 10 * GIB},
    gpus=(0, 0),
    gpus_of_backend=None,
    begin=1000.0,
    end=1000.5,
)
WANTED = Wanted("jax", worker_bytes={"weights": GIB}, server_bytes=({"the center": GIB},))
STANDALONE = {"master": "spark://host:7077", "overhead": str(384 * 2**20), "tasks": "1"}


def levels(findings):
    return [finding.level for finding in findings]


def test_a_diagnosis_names_errors_first_and_raises_all_of_them():
    fine, odd = Finding("ok", "Java", "version 17"), Finding("warning", "GPU", "shared.", "Divide them.")
    bad = Finding("error", "slots", "too few.", "Lower `num_workers`.")
    diagnosis = Diagnosis((fine, odd, bad))
    assert str(diagnosis).splitlines() == [
        "✗ slots: too few. Lower `num_workers`.",
        "! GPU: shared. Divide them.",
        "✓ Java: version 17",
        "1 error, 1 warning, 1 check passed.",
    ]
    assert not diagnosis.ok
    assert diagnosis.to_dict()["findings"][2]["fix"] == "Lower `num_workers`."
    with pytest.raises(NotReady, match="slots: too few"):
        diagnosis.raise_if_bad()
    Diagnosis((fine, odd)).raise_if_bad()


def test_versions_of_keras_and_backend_are_compared_by_their_minor():
    assert levels(executors.check_versions([FACTS], "jax")) == ["ok"]
    own = driver.version_of("keras")
    major, minor = own.split(".")[:2]
    patched = replace(FACTS, versions=FACTS.versions | {"keras": f"{major}.{minor}.999"})
    assert levels(executors.check_versions([patched], "jax")) == ["ok"]
    other = replace(FACTS, versions=FACTS.versions | {"keras": "3.1.0"})
    (finding,) = executors.check_versions([FACTS, other], "jax")
    assert finding.level == "warning"
    assert (
        f"Expected keras {major}.{minor} as on the driver. Received: 3.1.0 on executor 1 on host-b."
        in str(finding)
    )


def test_a_clock_is_off_only_if_no_moment_of_the_task_explains_it():
    assert levels(executors.check_clocks([FACTS], 999.0, 1001.0)) == ["ok"]
    # A task that waited long says little of its clock.
    assert levels(executors.check_clocks([FACTS], 900.0, 1002.0)) == ["ok"]
    (ahead,) = executors.check_clocks([FACTS], 899.0, 901.0)
    (behind,) = executors.check_clocks([FACTS], 1300.0, 1302.0)
    assert "100 s ahead of the driver's" in ahead.what
    assert "300 s behind the driver's" in behind.what


def test_disk_and_memory_are_compared_with_all_workers_of_a_machine():
    roomy = replace(WANTED, num_workers=4, spool_bytes=2 * GIB)
    assert levels(executors.check_disk([FACTS, FACTS], roomy)) == ["ok"]
    full = replace(roomy, spool_bytes=3 * GIB)
    (finding,) = executors.check_disk([FACTS, FACTS], full)
    assert "4 worker(s) on host-b need 12,544 MiB of disk" in finding.what
    elsewhere = replace(FACTS, host="host-c")
    assert levels(executors.check_disk([FACTS, elsewhere], full)) == ["ok"]
    (closed,) = executors.check_disk([replace(FACTS, disk={"/local": -1})], roomy)
    assert "/local on host-b cannot be written" in closed.what
    assert levels(executors.check_memory([FACTS], roomy, STANDALONE)) == ["ok"]
    (short,) = executors.check_memory([FACTS], replace(roomy, num_workers=7), STANDALONE)
    (lacking,) = executors.check_memory([FACTS], replace(roomy, num_workers=9), STANDALONE)
    assert (short.level, lacking.level) == ("warning", "error")
    assert "weights 1,024 MiB" in lacking.what


def test_a_container_needs_overhead_for_its_python_workers():
    (finding,) = executors.check_memory([FACTS], WANTED, STANDALONE | {"master": "yarn", "tasks": "2"})
    assert "`spark.executor.memoryOverhead` of at least 2,048 MiB" in finding.what
    assert "spark.executor.memoryOverhead=2049m" in finding.fix
    roomy = {"master": "k8s://https://host:6443", "overhead": str(GIB), "tasks": "1"}
    assert levels(executors.check_memory([FACTS], WANTED, roomy)) == ["ok"]


def test_gpus_that_were_asked_for_must_be_there_and_others_are_named():
    assert levels(executors.check_gpus([FACTS], 0)) == ["ok"]
    assert "no /dev/nvidia" in executors.check_gpus([FACTS], 1)[0].what
    there = replace(FACTS, gpus=(2, 0))
    assert levels(executors.check_gpus([there], 0)) == ["warning"]
    assert "gives each task 0.5 GPU(s)" in executors.check_gpus([FACTS], 0.5)[0].what
    # By the trainer's `resources`: the short tasks of the check have none.
    assert levels(executors.check_gpus([there], 0.5)) == ["ok"]
    given = replace(FACTS, gpus=(2, 1))
    assert levels(executors.check_gpus([given], 1)) == ["ok"]
    assert levels(executors.check_gpus([replace(given, gpus_of_backend=1)], 1)) == ["ok"]
    (blind,) = executors.check_gpus([replace(given, gpus_of_backend=0)], 1)
    assert (blind.level, "the Keras backend there sees none" in blind.what) == ("error", True)


def test_the_memory_of_servers_is_compared_with_the_drivers_machine():
    assert levels(executors.check_server_memory(WANTED, GIB)) == ["ok"]
    assert levels(executors.check_server_memory(WANTED, GIB - 1)) == ["warning"]
    assert executors.check_payload(2**60, "/")[0].level == "error"


def test_java_is_found_and_old_or_missing_java_is_named(monkeypatch, tmp_path):
    assert driver.check_java().level == "ok"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert f"none in JAVA_HOME={tmp_path}" in driver.check_java().what
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    assert f"Received: {java} of version 8" in driver.check_java().what


def test_packages_of_the_driver_and_names_of_backends_are_checked(monkeypatch):
    assert driver.check_packages("jax")[0].level == "ok"
    (finding,) = driver.check_packages("theano")
    assert "Expected one of jax, tensorflow, torch. Received: backend='theano'" in finding.what
    monkeypatch.setattr(driver, "PACKAGES", ("no_such_package",))
    (finding,) = driver.check_packages("jax")
    assert "no_such_package missing in" in finding.what
    assert finding.fix == "pip install 'distkeras[jax]'"


def test_the_address_of_a_master_is_tried_before_spark_is(monkeypatch):
    with Listening("127.0.0.1", "127.0.0.1") as listening:
        assert driver.check_address(f"spark://127.0.0.1:1,127.0.0.1:{listening.port}").level == "ok"
        assert driver.check_address(f"sc://127.0.0.1:{listening.port}/;user_id=me").level == "ok"
        closed = listening.port
    assert "refused" in driver.check_address(f"spark://127.0.0.1:{closed}").what
    assert "does not resolve" in driver.check_address("spark://no-such-host.invalid:7077").what
    assert "spark://host:7077" in driver.check_address("mesos://host").what
    assert "7o77" in driver.check_address("spark://localhost:7o77").what
    assert driver.check_address("local[4]").level == "ok"
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    assert "yarn-site.xml" in driver.check_address("yarn").what


def test_a_port_listens_until_its_block_ends_and_a_wrong_address_is_named():
    with Listening("127.0.0.1", "127.0.0.1") as listening:
        address = (listening.host, listening.port)
        assert connector([address], 5.0)() == [""]
        with pytest.raises(OSError, match=r"on one of the ports \[\d+\]"):
            Listening("127.0.0.1", "127.0.0.1", (listening.port,))
    assert connector([address], 5.0)() == ["connection refused"]
    with pytest.raises(OSError, match=r"Expected to listen at 192\.0\.2\.77.*to an address of this machine"):
        Listening("192.0.2.77", "192.0.2.77")


def test_a_run_directory_is_tried_and_nothing_is_left_there(tmp_path):
    assert why_not_writable(tmp_path / "new") is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "Expected a folder that this process can write to" in why_not_writable(tmp_path / "file" / "run")
    assert "Expected an address that fsspec, or Spark's Hadoop in this process, can open" in why_not_writable(
        "nosuch://host/run"
    )


def test_the_command_starts_without_spark_and_keras():
    code = "import sys, distkeras.command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"pyspark", "keras", "numpy", "jax"} & set(loaded.split())
    command = [sys.executable, "-m", "distkeras", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert distkeras.__version__ in told


def test_the_memory_of_a_saved_model_is_known_to_the_command(tmp_path):
    import keras

    from distkeras.command.doctor import wanted_by

    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])
    model.save(tmp_path / "model.keras")
    wanted = wanted_by("jax", 3, None, str(tmp_path / "model.keras"))
    assert wanted.num_workers == 3
    assert wanted.worker_bytes["weights"] == 4 * 1001 * 1000
    assert wanted_by("jax", 3, None, None).worker_bytes == {}

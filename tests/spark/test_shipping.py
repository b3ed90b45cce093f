"""Executors get the driver's distkeras where they have none, or another one."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import cloudpickle
import keras
import pytest
import regex

import distkeras
from distkeras.algorithms import ADAG
from distkeras.cluster import executor_side, probe
from distkeras.cluster.executor_facts import ExecutorFacts
from distkeras.cluster.executor_side import digest_of, sources_of
from distkeras.cluster.pickled_modules import packages_of
from distkeras.cluster.probe import ExecutorsNotReady, ask, check_python
from distkeras.cluster.shipping import own_digest, own_sources, zipped


def test_the_zip_file_has_the_digest_of_the_source_and_runs_servers_and_workers(tmp_path):
    path = zipped(str(tmp_path))
    assert own_digest() in path.name
    assert digest_of(dict(sources_of(f"{path}/distkeras"))) == own_digest()
    code = (
        "import distkeras, distkeras.wire.serve, distkeras.worker.daemon, distkeras.worker.task;"
        "from distkeras.cluster.shipping import own_digest; print(distkeras.__file__, own_digest())"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r}); {code}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed == [f"{path}/distkeras/__init__.py", own_digest()]


def test_the_digest_changes_with_any_file_and_does_not_depend_on_their_order():
    sources = own_sources()
    assert digest_of(dict(reversed(sources.items()))) == own_digest()
    for name in ("__init__.py", "worker/loop.py"):
        assert digest_of(sources | {name: sources[name] + b"\n"}) != own_digest()
    assert digest_of({name: sources[name] for name in list(sources)[1:]}) != own_digest()


def test_a_python_worker_that_has_imported_another_distkeras_imports_the_drivers(tmp_path):
    """It has an older one in memory and on its path; then the driver's comes before it."""
    old = tmp_path / "old" / "distkeras"
    old.mkdir(parents=True)
    (old / "__init__.py").touch()
    facts = tmp_path / "old" / "distkeras-0.0.9.dist-info" / "METADATA"
    facts.parent.mkdir()
    facts.write_text("Metadata-Version: 2.4\nName: distkeras\nVersion: 0.0.9\n")
    path, side = zipped(str(tmp_path)), cloudpickle_by_value(executor_side.check_package)
    (tmp_path / "side").write_bytes(side)
    code = f"""
import pickle, sys
sys.path.insert(0, {str(tmp_path / "old")!r})
import distkeras
check = pickle.loads(open({str(tmp_path / "side")!r}, "rb").read())
try:
    check({own_digest()!r})
except RuntimeError as error:
    print(error)
sys.path.insert(0, {str(path)!r})
check({own_digest()!r})
import distkeras
print(distkeras.__file__, distkeras.__version__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, found = done.stdout.splitlines()
    assert "Received: distkeras 0.0.9 with different code, in " + str(old) in refused
    assert found == f"{path}/distkeras/__init__.py {distkeras.__version__}"


def cloudpickle_by_value(function):
    cloudpickle.register_pickle_by_value(executor_side)
    try:
        return cloudpickle.dumps(function)
    finally:
        cloudpickle.unregister_pickle_by_value(executor_side)


def test_executors_with_another_distkeras_are_refused_where_it_may_not_be_sent(spark, monkeypatch):
    monkeypatch.setattr(probe, "_ready", {})
    monkeypatch.setattr(probe, "_is_own_python", lambda _: False)
    monkeypatch.setattr(probe, "own_digest", lambda: "of-another-one")
    spark.conf.set("spark.distkeras.ship", "false")
    try:
        with pytest.raises(ExecutorsNotReady, match=r"distkeras \S+ with different code.*ship=false"):
            check_python(spark, "jax")
        spark.conf.set("spark.distkeras.ship", "maybe")
        with pytest.raises(ValueError, match=r"true or false\. Received: spark\.distkeras\.ship=maybe"):
            check_python(spark, "jax")
    finally:
        spark.conf.unset("spark.distkeras.ship")


def test_a_daemon_that_has_imported_another_distkeras_is_named():
    chosen = {"spark.python.daemon.module": "distkeras.worker.daemon"}
    session = SimpleNamespace(conf=SimpleNamespace(get=lambda name, default: chosen.get(name, default)))
    nothing = ("", "", "")
    facts = ExecutorFacts(
        *("host-b", "1", "/bin/python", "3.11", {}, (), nothing, 1, (0, 0), {}, (0, 0), None, 0.0, 0.0)
    )
    with pytest.raises(ExecutorsNotReady, match=r"no distkeras in /bin.*without `spark\.python\.daemon"):
        probe._send(session, facts, allowed=True)


def test_a_task_says_what_its_executor_is_like(spark):
    (facts,) = ask(spark, "jax", ["keras", "no_such_module"], num_tasks=1, limit=60)
    assert facts.missing == ("no_such_module",)
    assert facts.versions["keras"] == keras.version()
    assert facts.python == sys.executable
    assert 0 < facts.memory[1] <= facts.memory[0]
    assert all(free > 0 for free in facts.disk.values())
    assert facts.begin <= facts.end
    assert facts.cores > 0


def test_packages_of_the_users_own_code_are_those_that_an_unpickler_imports():
    def uses_a_package():
        return regex.compile("a")

    class Rule(ADAG):
        def commit(self, local, anchor, num_steps):
            return regex.compile

    assert packages_of(uses_a_package) == {"regex"}
    assert packages_of([Rule(3)]) == {"regex"}
    assert packages_of(ADAG(3), keras.losses.MeanSquaredError, subprocess.run) == set()
    assert packages_of(distkeras) == set()

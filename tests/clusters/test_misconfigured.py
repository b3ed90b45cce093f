"""What is configured wrong neither hangs nor takes the session with it; docs/doctor.md has the messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from checking import TRAIN, check

SCRIPT = Path(__file__).parent / "misconfigured_script.py"


def told(output, name):
    """Return what the script said of `name`."""
    return output.partition(f"\n{name}: ")[2].partition("\nafter ")[0]


def python_of_executors(path):
    """Return the settings that leave the driver its own Python."""
    return {"spark.pyspark.python": str(path), "spark.pyspark.driver.python": sys.executable}


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python that has all packages but distkeras, as an interpreter of executors."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    # Files beside it that name further folders, such as that of an editable installation, are not read.
    installed = next(path for path in sys.path if (Path(path) / "pyspark").is_dir())
    (site / "installed.pth").write_text(f"{installed}\n")
    program = folder / "python"
    hidden = [path for path in os.environ.get("PYTHONPATH", "").split(":") if "hidden" in path]
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={":".join(hidden)} exec {folder / "venv" / "bin" / "python"} "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.limit(400)
def test_each_fault_has_a_message_and_the_session_trains_afterwards(standalone, submit):
    names = {
        "host without a name": "'no-such-host.invalid' does not resolve",
        "another host": "cannot reach parameter server 0 at 198.51.100.1:",
        "bound elsewhere": "Expected to listen at 198.51.100.1, on one of the ports [0]",
        "taken port": "Address already in use",
        "little memory": "`ServerOptions(memory=...)` allows",
        "run that cannot be written": "Expected a folder that this process can write to: /proc/run",
        "streaming": "Expected a batch DataFrame. Received: a streaming one",
        "module of the driver": "ExecutorsNotReady: Expected the executors' Python to have",
    }
    output = submit(SCRIPT, *names, "as it should be", to=standalone, limit=380)
    for name, text in names.items():
        assert text in told(output, name), output
    assert told(output, "as it should be") == "trained"


@pytest.mark.slow
@pytest.mark.limit(400)
def test_distkeras_is_sent_to_executors_without_it(standalone, submit, bare_python):
    python = python_of_executors(bare_python)
    output = submit(SCRIPT, "as it should be", "diagnosis", to=standalone, settings=python, limit=380)
    assert "Sending distkeras" in output
    assert "has no distkeras in" in output
    assert told(output, "as it should be") == "trained"
    assert "0 errors" in told(output, "diagnosis")


@pytest.mark.slow
@pytest.mark.limit(400)
def test_executors_without_distkeras_are_refused_where_it_may_not_be_sent(standalone, submit, bare_python):
    settings = python_of_executors(bare_python) | {"spark.distkeras.ship": "false"}
    output = submit(SCRIPT, "as it should be", to=standalone, settings=settings, limit=380)
    assert "ExecutorsNotReady: Expected distkeras" in told(output, "as it should be")


@pytest.mark.slow
@pytest.mark.limit(400)
@pytest.mark.parametrize(
    ("settings", "name", "text"),
    [
        (python_of_executors("/no/such/python"), "as it should be", "there is no /no/such/python"),
        ({"spark.executor.memory": "64g"}, "diagnosis", "spark.executor.memory=64g"),
        ({"spark.executor.memory": "64g"}, "no executors", "Received: no answer"),
        ({"spark.distkeras.ship": "perhaps"}, "as it should be", "spark.distkeras.ship=perhaps"),
    ],
    ids=["no-python", "memory-checked", "memory", "wrong-setting"],
)
def test_a_session_whose_executors_cannot_train_says_why(standalone, submit, settings, name, text):
    output = submit(SCRIPT, name, to=standalone, settings=settings, limit=380)
    assert text in told(output, name), output


@pytest.mark.parametrize(
    ("options", "about", "text"),
    [
        (("--master", "spark://127.0.0.1:1"), "master", "connection refused"),
        (("--master", "spark://no-such-host.invalid:7077"), "master", "does not resolve"),
        (("--master", "spark://192.0.2.1:7077"), "master", "Expected something that listens"),
        (("--remote", "sc://127.0.0.1:1"), "master", "connection refused"),
        (("--backend", "theano"), "backend", "Expected one of jax, tensorflow, torch"),
    ],
    ids=["closed", "no-name", "silent", "no-connect-server", "backend"],
)
def test_the_doctor_finds_a_wrong_address_in_seconds(options, about, text):
    command = [sys.executable, "-m", "distkeras", "doctor", "--backend", "jax", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    errors = {
        found["about"]: found["what"]
        for found in json.loads(done.stdout)["findings"]
        if found["level"] == "error"
    }
    assert done.returncode == 1
    assert text in errors[about]


@pytest.mark.slow
@pytest.mark.limit(300)
def test_the_doctor_examines_a_standalone_cluster(standalone):
    command = [sys.executable, "-m", "distkeras", "doctor", "--backend", "jax", "--master", standalone.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors" in done.stdout
    assert "all executors reach" in done.stdout


@pytest.mark.slow
@pytest.mark.limit(400)
def test_distkeras_is_sent_to_a_connect_server_without_it(connect_server, submit, bare_python):
    server = connect_server(environment={"PYSPARK_PYTHON": str(bare_python)})
    output = submit(TRAIN, "DOWNPOUR", "--host", "127.0.0.1", to=server, limit=380)
    assert "Sending distkeras" in output
    check(output, "DOWNPOUR")

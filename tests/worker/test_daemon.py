"""Spark's daemon with Keras imported: what it says to Spark, and what its workers have."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distkeras.worker import daemon as daemon_module
from distkeras.worker.daemon import import_all


@contextlib.contextmanager
def daemon(**environment):
    """Start the daemon as Spark does; yield the process and the port that it tells."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distkeras.worker.daemon", "pyspark.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHON_WORKER_FACTORY_SECRET": "secret", "OMP_NUM_THREADS": "1"} | environment,
    )
    try:
        (port,) = struct.unpack("!i", process.stdout.read(4))
        yield process, port
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def forked(port):
    """Ask the daemon for a worker, as Spark does; return the connection and the worker's number."""
    connection = socket.create_connection(("127.0.0.1", port))
    (pid,) = struct.unpack("!i", connection.recv(4, socket.MSG_WAITALL))
    return connection, pid


def libraries(pid):
    return {path.rsplit("/", 1)[-1] for path in Path(f"/proc/{pid}/maps").read_text().split() if "/" in path}


def test_a_forked_worker_has_keras_before_it_is_told_what_to_do():
    with daemon(KERAS_BACKEND="jax", OMP_NUM_THREADS="2") as (process, port):
        for _ in range(2):
            connection, pid = forked(port)
            assert any("jax" in name for name in libraries(pid))
            connection.close()
        process.stdin.close()  # Spark has enough of it.
        process.wait(30)


def test_what_cannot_be_imported_is_told_and_the_workers_are_spark_s_plain_ones(tmp_path):
    (tmp_path / "keras.py").write_text("print('not for Spark'); raise ImportError('no Keras here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with daemon(KERAS_BACKEND="jax", PYTHONPATH=path) as (process, port):
        connection, pid = forked(port)
        command = Path(f"/proc/{pid}/cmdline").read_text()
        connection.close()
        process.kill()
        process.wait()
        assert "pyspark.daemon" in command
        error = process.stderr.read().decode()
    assert "no Keras here" in error
    assert "not for Spark" in error


def test_nothing_is_forked_from_a_process_with_threads(monkeypatch):
    monkeypatch.setattr(daemon_module, "MODULES", ())
    monkeypatch.setattr(daemon_module, "import_ahead", lambda *_: None)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match=r"Expected no threads after the imports\. Received: .+"):
            import_all("jax", 1)
    finally:
        stop.set()
        thread.join()


def test_forked_processes_draw_numbers_of_their_own():
    code = """
import os, random
from distkeras.worker.daemon import import_all
import_all("jax", 1)
import numpy as np
for _ in range(2):
    if os.fork() == 0:
        print(np.random.rand(), random.random(), flush=True)
        os._exit(0)
    os.wait()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert len({*run.stdout.split()}) == 4, run


def test_a_process_that_was_forked_starts_the_backend_by_itself():
    code = """
import os, sys
from distkeras.worker.environment import import_ahead, prepare_process
import_ahead("jax", 1)
assert "matplotlib" not in sys.modules
import jax
assert not jax._src.xla_bridge.backends_are_initialized()
if os.fork() == 0:
    prepare_process("jax", 1)
    print(os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"], flush=True)
    try:
        prepare_process("torch", 1)
    except RuntimeError as error:
        print("KERAS_BACKEND" in str(error), flush=True)
    os._exit(0)
os.wait()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["false", "True"], run.stderr

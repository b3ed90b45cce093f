"""A worker's task: what it keeps between processes, and what becomes of one that is told to stop."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig, make_center
from distkeras.center.requests import Join
from distkeras.wire.client import JobStopped, Replaced, ServerAddress, ServerLost
from distkeras.wire.handshake import GREETING, NONCE_BYTES, SESSION_BYTES
from distkeras.wire.server import Server
from distkeras.worker import task
from distkeras.worker.environment import _keep_compiled
from distkeras.worker.final_state import FinalState
from distkeras.worker.payload import pack


def test_compiled_steps_lie_in_a_folder_of_this_user_alone(tmp_path):
    environment = {"SPARK_LOCAL_DIRS": f"{tmp_path},/elsewhere"}
    _keep_compiled(environment)
    folder = tmp_path / "distkeras-compiled"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_place_that_the_executors_name_for_compiled_steps_comes_first(tmp_path):
    environment = {"SPARK_LOCAL_DIRS": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": "/theirs"}
    _keep_compiled(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/theirs"
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"  # A small model is kept as well.
    assert list(tmp_path.iterdir()) == []


def test_nothing_compiled_is_kept_outside_spark():
    environment = {}
    _keep_compiled(environment)
    assert environment == {}


def test_a_second_process_compiles_nothing_anew(tmp_path):
    code = """
from distkeras.worker.environment import prepare_process
prepare_process("jax", 1)
import jax
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event.rsplit("/", 1)[-1]))
print(float(jax.jit(lambda x: (x * x).sum())(jax.numpy.arange(4.0))))
print("cache_hits" in found, "cache_misses" in found)
"""
    environment = os.environ | {"SPARK_LOCAL_DIRS": str(tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    for expected in (["14.0", "False True"], ["14.0", "True False"]):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert run.stdout.splitlines() == expected, run.stderr


def run_task(monkeypatch, train, *servers):
    """Run a task that trains by `train(client)`."""
    monkeypatch.setattr(task, "prepare_process", lambda *_: None)
    monkeypatch.setattr(task, "_train", lambda task, model, start, batches, client, further: train(client))
    envelope = task.Envelope(pickle.dumps(None), pack(None, "/"), servers, 0.2, "jax", 1, 30.0)
    return task.run(envelope, task.Start(0, 0, 0), iter(()))


@contextmanager
def serving():
    """Yield a server and its address."""
    center = make_center(CenterConfig(DOWNPOUR(), 1), np.zeros(4, np.float32), clock=time.time)
    server = Server(center, b"t" * 32, "127.0.0.1")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server, ServerAddress("127.0.0.1", server.port, b"t" * 32, 4)
    finally:
        server.close()
        thread.join(5)


def run(monkeypatch, told):
    """Run a task whose training ends by what the server said."""

    def train(client):
        raise told

    with serving() as (_, address):
        return run_task(monkeypatch, train, address)


@contextmanager
def impostor():
    """Yield the address of a server that does not know the job's token, and answers all the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pretend():
            with suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        sock.sendall(GREETING + bytes(NONCE_BYTES))
                        sock.recv(NONCE_BYTES + SESSION_BYTES + 32, socket.MSG_WAITALL)
                        sock.sendall(bytes(32))

        thread = threading.Thread(target=pretend)
        thread.start()
        yield ServerAddress("127.0.0.1", listener.getsockname()[1], b"t" * 32, 4)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def no_authority():
    raise FileNotFoundError("/etc/ssl/authority.pem")


def join(client):
    client.call(Join(0))


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_server_that_is_not_that_of_the_job_is_an_error_once(monkeypatch, num_servers):
    """Returned as a row: if it were raised, Spark would try the same again."""
    with impostor() as address:
        error = run_task(monkeypatch, join, *[address] * num_servers).error
    assert "AuthenticationError: Expected" in error


def test_a_server_that_cannot_be_reached_fails_the_task_for_spark_to_try_elsewhere(monkeypatch):
    with pytest.raises(ServerLost, match=r"Worker 0 on .*127\.0\.0\.1:1 could not be reached"):
        run_task(monkeypatch, join, ServerAddress("127.0.0.1", 1, b"t" * 32, 4))


def test_a_certificate_that_is_missing_is_an_error_once(monkeypatch):
    address = replace(ServerAddress("nowhere", 0, b"t" * 32, 4), tls=no_authority)
    assert "FileNotFoundError: /etc/ssl/authority.pem" in run_task(monkeypatch, join, address).error


def test_an_error_that_the_server_cannot_be_told_is_an_error_once(monkeypatch):
    with serving() as (server, address):

        def fail(client):
            server.close()
            raise LookupError("a bug of the layer")

        assert "LookupError: a bug of the layer" in run_task(monkeypatch, fail, address).error


def test_a_task_of_a_job_that_is_over_ends_without_an_error(monkeypatch):
    assert run(monkeypatch, JobStopped("The driver ended the job.")) == FinalState()


def test_a_task_that_was_replaced_is_no_finished_one_to_spark(monkeypatch):
    """Else Spark would take the partition for done, and end its replacement with the stage."""
    with pytest.raises(Replaced):
        run(monkeypatch, Replaced("Another process is this worker now."))
